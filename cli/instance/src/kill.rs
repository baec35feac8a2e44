//! `isolab kill`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::instances::with_each;
use isolab_instances::{Catalogue, parse_signal};

use crate::chosen::chosen;

/// Send a signal to the workloads of instances.
///
/// SIGKILL and an instance's stop signal end it for good, whatever its restart policy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab kill --signal HUP web")]
pub struct Args {
    /// The signal, by its name or number.
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL", value_parser = parse_signal)]
    signal: i32,
    /// All instances that run.
    #[arg(long, short, conflicts_with = "instances")]
    all: bool,
    /// Names, or ids or beginnings of them.
    #[arg(required_unless_present = "all", value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    let names = chosen(&catalogue, &args.instances, args.all, |it| it.state.status.is_running())?;
    with_each(&catalogue, &names, |instance| catalogue.signal(instance, args.signal))
}
