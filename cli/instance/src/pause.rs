//! `isolab pause` and `isolab unpause`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::instances::with_each;
use isolab_instances::Catalogue;

/// Make everything in instances stand still.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab pause web")]
pub struct Pause {
    /// Names, or ids or beginnings of them.
    #[arg(required = true, value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// Let instances go on that were paused.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab unpause web")]
pub struct Unpause {
    /// Names, or ids or beginnings of them.
    #[arg(required = true, value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// Runs `isolab pause`.
pub fn pause(args: &Pause) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    with_each(&catalogue, &args.instances, |instance| catalogue.pause(instance))
}

/// Runs `isolab unpause`.
pub fn unpause(args: &Unpause) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    with_each(&catalogue, &args.instances, |instance| catalogue.unpause(instance))
}
