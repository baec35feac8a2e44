//! The `isolab-instance` executable, which `isolab ps`, `isolab logs` and others become: what is asked of instances
//! that are there, and done with them, and what they and the store keep on this host.
//!
//! Nothing here starts an instance: a supervisor is a copy of `isolab` itself.

#[macro_use]
extern crate isolab_command;

mod attach;
mod check;
mod chosen;
mod exec;
mod format;
mod inspect;
mod kill;
mod logs;
mod networks;
mod pause;
mod port;
mod ps;
mod rename;
mod rm;
mod stats;
mod stop;
mod summary;
mod system;
mod top;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use isolab_command::Executable;
use isolab_command::logging::Logging;
use isolab_link as _;

/// Look at instances, talk to them, end and remove them.
#[derive(Parser)]
#[command(name = "isolab-instance", bin_name = "isolab", version, disable_help_subcommand = true)]
struct Instance {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Attach(attach::Args),
    Check(check::Args),
    Exec(exec::Args),
    Inspect(inspect::Args),
    Kill(kill::Args),
    Logs(logs::Args),
    Pause(pause::Pause),
    Port(port::Args),
    Ps(ps::Args),
    Rename(rename::Args),
    Rm(rm::Args),
    Stats(stats::Args),
    Stop(stop::Args),
    System(system::System),
    Top(top::Args),
    Unpause(pause::Unpause),
    Wait(wait::Args),
}

fn main() -> ExitCode {
    isolab_command::run::<Instance>()
}

impl Executable for Instance {
    const STARTERS: &[&str] = &["exec"];

    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        match self.command {
            Command::Attach(args) => attach::run(&args),
            Command::Check(args) => check::run(&args),
            Command::Exec(args) => exec::run(args),
            Command::Inspect(args) => inspect::run(&args),
            Command::Kill(args) => kill::run(&args),
            Command::Logs(args) => logs::run(&args),
            Command::Pause(args) => pause::pause(&args),
            Command::Port(args) => port::run(&args),
            Command::Ps(args) => ps::run(&args),
            Command::Rename(args) => rename::run(&args),
            Command::Rm(args) => rm::run(&args),
            Command::Stats(args) => stats::run(&args),
            Command::Stop(args) => stop::run(&args),
            Command::System(system) => system::run(system),
            Command::Top(args) => top::run(&args),
            Command::Unpause(args) => pause::unpause(&args),
            Command::Wait(args) => wait::run(&args),
        }
    }
}
