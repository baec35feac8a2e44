//! `isolab rm`

use std::process::ExitCode;

use anyhow::Result;
use isolab_command::failure;
use isolab_command::instances::with_each;
use isolab_instances::{Catalogue, InstanceError};

use crate::chosen::chosen;

/// Remove instances, with what they wrote and their logs.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  isolab rm --force web")]
pub struct Args {
    /// Kill those that run first; one that is not there is no failure.
    #[arg(long, short)]
    force: bool,
    /// Remove their anonymous volumes as well.
    #[arg(long, short)]
    volumes: bool,
    /// All instances; those that run with --force only.
    #[arg(long, short, conflicts_with = "instances")]
    all: bool,
    /// Names, or ids or beginnings of them.
    #[arg(required_unless_present = "all", value_name = "INSTANCE")]
    instances: Vec<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<ExitCode> {
    let catalogue = Catalogue::open_default()?;
    let mut names = chosen(&catalogue, &args.instances, args.all, |_| true)?;
    if args.force {
        names.retain(|name| match catalogue.find(name) {
            Err(error @ InstanceError::NoSuchInstance(_)) => {
                failure::tell(&error);
                false
            }
            _ => true,
        });
    }
    with_each(&catalogue, &names, |instance| {
        catalogue.remove(instance, args.force)?;
        match instance.config.as_ref().filter(|_| args.volumes) {
            Some(config) => Ok(config.request.filesystem.remove_anonymous()?),
            None => Ok(()),
        }
    })
}
