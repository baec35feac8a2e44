//! The `isolab-network` executable, which `isolab network` becomes: what networks there are.

#[macro_use]
extern crate isolab_command;

mod create;
mod inspect;
mod ls;
mod remove;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_guest::package;
use isolab_link as _;
use isolab_network::{Folders, Networks};

/// Make networks for instances, and list them.
///
/// A network is a bridge of the host with addresses of its own, an entrance to the world (NAT), and a name
/// service for the instances on it. It takes nothing of the host until an instance uses it, and gives
/// everything back after the last one. Networks do not reach each other. `isolab0`, the default network, is
/// made at its first use.
#[derive(Parser)]
#[command(
    name = "isolab-network",
    bin_name = "isolab network",
    version,
    after_help = "Examples:\n  isolab network create --subnet 10.9.0.0/24 backend\n  isolab network create --ipv6 --label team=web web\n  isolab network inspect backend | jq '.[].host'\n  isolab network rm backend web"
)]
struct Network {
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
    isolab_command::run::<Network>()
}

impl Executable for Network {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        act(&self.command)
    }
}

fn act(command: &Command) -> Result<ExitCode> {
    let folders = Folders::of(&isolab_images::data_dir());
    let networks = Networks::open(folders, package::executable("isolab-dns")?)?;
    // What a killed instance left is gone before anybody is told of it. Who may not remove it may still look.
    let swept = networks.sweep();
    match command {
        Command::Create(args) => create::run(&networks, args),
        Command::Ls(args) => ls::run(&networks, args),
        Command::Inspect(args) => inspect::run(&networks, args),
        Command::Rm(args) => remove::run(&networks, args),
        Command::Prune(args) => {
            swept.context("cannot remove what killed instances left")?;
            remove::prune(&networks, args)
        }
    }
}
