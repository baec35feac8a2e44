//! `isolab rename`

use std::process::ExitCode;

use anyhow::Result;
use isolab_instances::Catalogue;
use isolab_isolation::InstanceName;

/// Give an instance that does not run another name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab rename web old-web")]
pub struct Args {
    /// Its name, or its id or the beginning of it.
    instance: String,
    /// The name that it gets.
    name: InstanceName,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    catalogue.rename(&catalogue.find(&args.instance)?, &args.name)?;
    Ok(ExitCode::SUCCESS)
}
