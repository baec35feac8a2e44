//! `isolab bench`

mod all;
mod compare;
mod density;
mod devices;
mod image;
mod instances;
mod levels;
mod peers;
mod probes;
mod running;
mod startup;
mod tiers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use isolab_bench::report::{self, Report};
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_guest::package;

/// Measure the levels of isolation side by side.
#[derive(Debug, Parser)]
#[command(name = "isolab-bench", bin_name = "isolab bench", version)]
pub struct Bench {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    All(all::All),
    Startup(startup::Startup),
    Cpu(probes::Cpu),
    Memory(probes::Memory),
    Density(density::DensityBench),
    Image(image::Images),
    Disk(devices::DiskBench),
    Net(devices::NetBench),
    Tiers(tiers::TiersBench),
    Compare(compare::Compare),
}

impl Executable for Bench {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        match self.command {
            Command::All(args) => all::run(args),
            Command::Startup(args) => startup::run(args),
            Command::Cpu(args) => probes::cpu(args),
            Command::Memory(args) => probes::memory(args),
            Command::Density(args) => density::run(args),
            Command::Image(args) => image::run(args),
            Command::Disk(args) => devices::disk(args),
            Command::Net(args) => devices::net(args),
            Command::Tiers(args) => tiers::run(args),
            Command::Compare(args) => compare::run(args),
        }
    }
}

/// The `isolab` whose starts are measured: the one of this package.
fn own_program() -> Result<PathBuf> {
    Ok(package::executable("isolab")?)
}

/// A table for each metric of `benchmark`, under its title; ratios are to `baseline`.
fn tables_of(report: &Report, benchmark: &str, metrics: &[(&str, &str)], baseline: &str) -> String {
    let tables = metrics.iter().map(|(metric, title)| {
        let table = report::of_metric(report, benchmark, metric);
        format!("{title} (ratio: of medians, to {baseline})\n{table}\n\n")
    });
    tables.collect()
}

/// What was left out, and why, and what the audit says, a line each.
fn remarks_of(report: &Report) -> String {
    report.remarks().into_iter().map(|remark| remark + "\n").collect()
}

fn duplicate<T: PartialEq + Copy>(items: &[T]) -> Option<T> {
    items.iter().enumerate().find(|(i, item)| items[..*i].contains(item)).map(|(_, item)| *item)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn levels_have_the_same_options_and_each_benchmark_its_defaults() {
        Bench::command().debug_assert();
        for (benchmark, mebibytes) in [
            ("all", 256),
            ("startup", 128),
            ("cpu", 256),
            ("memory", 256),
            ("density", 128),
            ("image", 128),
            ("disk", 512),
            ("net", 512),
        ] {
            let words = ["isolab-bench", benchmark, "--isolation", "process,container"];
            let matches = Bench::command().try_get_matches_from(words).unwrap();
            let (_, of_benchmark) = matches.subcommand().unwrap();
            assert_eq!(
                of_benchmark.get_one::<u64>("memory"),
                Some(&(mebibytes << 20)),
                "{benchmark}"
            );
        }
        for peers in ["--peers=qemu", "--only=vmm-virtio"] {
            let words = ["isolab-bench", "disk", "--isolation", "process", peers];
            assert!(Bench::command().try_get_matches_from(words).is_err(), "{peers}");
        }
    }
}
