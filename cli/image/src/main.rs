//! The `isolab-image` executable, which `isolab image` becomes.

#[macro_use]
extern crate isolab_command;

mod archive;
mod build;
mod hint;
mod manage;
mod registry;
mod secret;
mod show;

use std::error::Error;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_images::Store;
use isolab_link as _;

/// Manage the images in the local store.
#[derive(Parser)]
#[command(name = "isolab-image", bin_name = "isolab image", version)]
struct Image {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pull(registry::Pull),
    Push(registry::Push),
    Login(registry::Login),
    Build(build::Build),
    Load(archive::Load),
    Save(archive::Save),
    Ls(show::Ls),
    Inspect(show::Inspect),
    History(show::History),
    Tag(manage::Tag),
    Rm(manage::Rm),
    Prune(manage::Prune),
}

fn main() -> ExitCode {
    isolab_command::run::<Image>()
}

impl Executable for Image {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        if let Command::Login(login) = &self.command {
            registry::login(login)?;
            return Ok(ExitCode::SUCCESS);
        }
        let store = Store::open_default()?;
        match self.command {
            Command::Pull(args) => registry::pull(&store, &args)?,
            Command::Push(args) => registry::push(&store, &args)?,
            Command::Login(_) => {}
            Command::Build(args) => return build::build(&store, args),
            Command::Load(args) => archive::load(&store, &args)?,
            Command::Save(args) => archive::save(&store, &args)?,
            Command::Ls(args) => show::list(&store.list()?, args.format)?,
            Command::Inspect(args) => show::inspect(&store, &args)?,
            Command::History(args) => show::history(&store, &args)?,
            Command::Tag(args) => manage::tag(&store, &args)?,
            Command::Rm(args) => manage::remove(&store, &args)?,
            Command::Prune(args) => manage::prune(&store, &args)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn hint(error: &(dyn Error + 'static)) -> Option<String> {
        hint::hint(error)
    }
}
