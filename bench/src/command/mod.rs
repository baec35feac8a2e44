//! `isolab bench`

mod all;
mod compare;
mod density;
mod devices;
mod image;
mod instances;
mod probes;
mod running;
mod startup;
mod tiers;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use isolab_bench::report::{self, Report};
use isolab_bench::subjects::Peer;
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_guest::package;
use isolab_isolation::Level;

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

/// Refuses what is named twice. Where neither levels nor peers are named, all levels take part.
fn choose(levels: &mut Vec<Level>, peers: &[Peer]) -> Result<()> {
    let twice = duplicate(levels).map(Level::name);
    if let Some(twice) = twice.or(duplicate(peers).map(Peer::name)) {
        bail!("{twice} is named twice");
    }
    if levels.is_empty() && peers.is_empty() {
        *levels = Level::ALL.to_vec();
    }
    Ok(())
}

/// The `isolab` whose starts are measured: the one of this package.
fn own_program() -> Result<PathBuf> {
    Ok(package::executable("isolab")?)
}

/// A table for each metric, under its title; ratios are to `baseline`.
fn tables_of(report: &Report, metrics: &[(&str, &str)], baseline: &str) -> String {
    let tables = metrics.iter().map(|(metric, title)| {
        let table = report::of_metric(report, metric);
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
