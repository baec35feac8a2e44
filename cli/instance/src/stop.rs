//! `isolab stop`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::instances::with_each;
use isolab_instances::Catalogue;

use crate::chosen::chosen;

/// End the workloads of instances: by their stop signal, and after a while by SIGKILL.
///
/// It returns when nothing of them runs any more. One that does not run is no failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab stop --time 30 web")]
pub struct Args {
    /// How many seconds the workload may take; by default what --stop-timeout said.
    #[arg(long, short, value_name = "SECONDS")]
    time: Option<u64>,
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
    let names = chosen(&catalogue, &args.instances, args.all, |it| it.state.status.is_active())?;
    with_each(&catalogue, &names, |instance| catalogue.stop(instance, args.time))
}
