//! `isolab restart`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::failure;
use isolab_command::instances::with_each;
use isolab_instances::Catalogue;

/// Stop instances that run, and start them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab restart web")]
pub struct Args {
    /// How many seconds the workload may take to end; by default what --stop-timeout said.
    #[arg(long, short, value_name = "SECONDS")]
    time: Option<u64>,
    /// Names, or ids or beginnings of them.
    #[arg(required = true, value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    with_each(&catalogue, &args.instances, |instance| {
        catalogue.stop(instance, args.time)?;
        let instance = catalogue.find(&instance.entry.id)?;
        catalogue.start(&instance, None, failure::describe).map(drop)
    })
}
