//! `isolab port`

use std::process::ExitCode;

use anyhow::Result;
use isolab_instances::Catalogue;

/// List the ports that an instance publishes. There is no way to publish one yet, so that there are none.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab port web")]
pub struct Args {
    /// Its name, or its id or the beginning of it.
    instance: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    Catalogue::open_default()?.find(&args.instance)?;
    Ok(ExitCode::SUCCESS)
}
