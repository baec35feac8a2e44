//! `isolab check`

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use isolab_command::format::Format;
use isolab_instances::host;
use isolab_isolation::host::{HostReport, require_kvm};

/// Show what this host can do, found by trying, and which isolation levels are ready.
///
/// KVM is judged by a probe guest of a few instructions. Exits with 0 when every level is ready,
/// else with 1.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  isolab check --format json | jq '.levels[] | select(.ready)'")]
pub struct Args {
    /// How to print what was found.
    #[arg(long, value_enum, default_value_t)]
    format: Format,

    /// Check KVM only: print one sentence, exit with 0 when guests run.
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    Kvm,
}

/// Looks at the host and prints what was found; the code is 0 when every level is ready.
pub fn run(args: &Args) -> Result<ExitCode> {
    if args.only.is_some() {
        return Ok(match require_kvm() {
            Ok(()) => {
                println!("KVM runs guests");
                ExitCode::SUCCESS
            }
            Err(why) => {
                println!("{why}");
                ExitCode::FAILURE
            }
        });
    }
    let report = host::inspect();
    match args.format {
        Format::Table => print_table(&report),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(if report.all_ready() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_table(report: &HostReport) {
    for fact in &report.facts {
        let mark = if fact.ok { "ok" } else { "no" };
        println!("{mark:<3} {:<24} {}", fact.name, fact.found);
    }
    println!();
    for verdict in &report.levels {
        match (&verdict.why, &verdict.hint) {
            (Some(why), Some(hint)) => println!("{:<10} not ready: {why}; {hint}", verdict.level),
            _ => match &verdict.without {
                Some(without) => println!("{:<10} ready, without {without}", verdict.level),
                None => println!("{:<10} ready", verdict.level),
            },
        }
    }
}
