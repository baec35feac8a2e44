//! `isolab system`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use isolab_command::failure;
use isolab_command::format::{EXIT_OWN_FAILURE, Format};
use isolab_isolation::{Instances, Leftover};

/// Look after what isolab keeps on this host.
#[derive(Args)]
pub struct System {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Prune(Prune),
}

/// Remove what instances have left whose `isolab` was killed: processes, cgroups, folders.
///
/// What a running `isolab` looks after is not touched. `isolab run` does the same when it starts.
/// Images are pruned by `isolab image prune`.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab system prune --format json | jq -r '.[].name'")]
struct Prune {
    /// How to print what was removed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Runs the command.
pub fn run(system: System) -> Result<ExitCode> {
    match system.command {
        Command::Prune(prune) => run_prune(&prune),
    }
}

fn run_prune(prune: &Prune) -> Result<ExitCode> {
    let sweep = Instances::open_default()?.sweep()?;
    match prune.format {
        Format::Table => sweep.removed.iter().for_each(print_one),
        Format::Json => println!("{}", serde_json::to_string_pretty(&sweep.removed)?),
    }
    for failure in &sweep.failures {
        failure::tell(failure);
    }
    Ok(match sweep.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_OWN_FAILURE),
    })
}

fn print_one(leftover: &Leftover) {
    let Leftover { name, level, monitor, killed, cgroups, freed } = leftover;
    let killed = killed.map_or(String::new(), |pid| format!(", process {pid} killed"));
    let (cgroups, megabytes) = (cgroups.len(), *freed as f64 / 1e6);
    println!(
        "{name} ({level}, of process {monitor}): {cgroups} cgroups, {megabytes:.1} MB{killed}"
    );
}
