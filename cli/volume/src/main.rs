//! The `isolab-volume` executable, which `isolab volume` becomes: what volumes there are.

#[macro_use]
extern crate isolab_command;

mod create;
mod facts;
mod inspect;
mod ls;
mod remove;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_instances::Catalogue;
use isolab_isolation::housekeeping;
use isolab_isolation::volumes::Volumes;
use isolab_link as _;

/// Make volumes for instances, and list them.
///
/// A volume keeps its files when an instance goes. It is a folder of the host, which any number of instances at
/// process, container and paravirt share; or a disk with a file system, which one virtual machine has at a time, and
/// which is all that fullvirt takes: no PC hardware shares a folder. Its first use decides which, unless --opt does.
#[derive(Parser)]
#[command(
    name = "isolab-volume",
    bin_name = "isolab volume",
    version,
    after_help = "Examples:\n  isolab volume create data\n  isolab run -v data:/var/lib/db busybox touch /var/lib/db/file\n  isolab volume create --opt type=disk --opt size=2G pcdata\n  isolab volume ls --format json"
)]
struct Volume {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(create::Create),
    Ls(ls::Ls),
    Inspect(inspect::Inspect),
    Rm(remove::Remove),
    Prune(remove::Prune),
}

fn main() -> ExitCode {
    isolab_command::run::<Volume>()
}

impl Executable for Volume {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        let (volumes, catalogue) = (Volumes::open_default()?, Catalogue::open_default()?);
        // What was to go with an instance whose `isolab` was killed is gone before anybody is told of it.
        housekeeping::sweep_volumes(&catalogue.instances)?;
        match &self.command {
            Command::Create(args) => create::run(&volumes, args),
            Command::Ls(args) => ls::run(&volumes, &catalogue, args),
            Command::Inspect(args) => inspect::run(&volumes, &catalogue, args),
            Command::Rm(args) => remove::run(&volumes, &catalogue, args),
            Command::Prune(args) => remove::prune(&catalogue, args),
        }
    }
}
