//! The commands on instances: those that run, and those that are kept.

mod attach;
mod create;
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
mod restart;
mod rm;
mod start;
mod stats;
mod stop;
mod summary;
mod terminal;
mod top;
mod wait;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;
use isolab_command::failure;
use isolab_command::format::EXIT_OWN_FAILURE;
use isolab_command::logging::Logging;
use isolab_instances::{Catalogue, Instance, InstanceError};

pub use create::create;
pub use terminal::{Attached, DetachKeys};

/// What can be done with instances.
#[derive(Subcommand)]
pub enum Command {
    Attach(attach::Args),
    Create(Box<create::Args>),
    Exec(exec::Args),
    Inspect(inspect::Args),
    Kill(kill::Args),
    Logs(logs::Args),
    Pause(pause::Pause),
    Port(port::Args),
    Ps(ps::Args),
    Rename(rename::Args),
    Restart(restart::Args),
    Rm(rm::Args),
    Start(start::Args),
    Stats(stats::Args),
    Stop(stop::Args),
    Top(top::Args),
    Unpause(pause::Unpause),
    Wait(wait::Args),
}

/// Runs a command, and tells a failure: at `exec` and the like the codes below 125 are the process's own.
///
/// # Errors
/// None is left to tell.
pub fn run(command: Command, logging: &Logging) -> Result<ExitCode> {
    let result = match command {
        Command::Attach(args) => attach::run(&args),
        Command::Create(args) => create::run(*args, logging),
        Command::Exec(args) => exec::run(args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Kill(args) => kill::run(&args),
        Command::Logs(args) => logs::run(&args),
        Command::Pause(args) => pause::pause(&args),
        Command::Port(args) => port::run(&args),
        Command::Ps(args) => ps::run(&args),
        Command::Rename(args) => rename::run(&args),
        Command::Restart(args) => restart::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Start(args) => start::run(&args),
        Command::Stats(args) => stats::run(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Unpause(args) => pause::unpause(&args),
        Command::Wait(args) => wait::run(&args),
    };
    result.or_else(|error| {
        failure::tell(error.as_ref());
        Ok(ExitCode::from(code_of(&error)))
    })
}

/// What is told of a failure to start an instance, by the process that failed at it.
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref() {
        // With the guest's last words, and hints.
        Some(InstanceError::Isolation(error)) => failure::describe(error),
        Some(InstanceError::Image(error)) => failure::describe(error),
        _ => failure::describe(error),
    }
}

/// The code that says what kind of failure it is.
pub fn code_of(error: &anyhow::Error) -> u8 {
    error.downcast_ref().map_or(EXIT_OWN_FAILURE, InstanceError::exit_code)
}

/// Does `act` with each of the instances, goes on after a failure, which is told, and prints the names
/// of those with whom it went well, as they were given.
fn with_each(
    catalogue: &Catalogue,
    names: &[String],
    mut act: impl FnMut(&Instance) -> Result<(), InstanceError>,
) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match catalogue.find(name).and_then(|instance| act(&instance)) {
            Ok(()) => println!("{name}"),
            Err(error) => {
                failure::tell(&error);
                code = ExitCode::from(error.exit_code());
            }
        }
    }
    Ok(code)
}

/// The instances that are named, or that `is_meant` where all are.
fn chosen(
    catalogue: &Catalogue,
    names: &[String],
    all: bool,
    is_meant: impl Fn(&Instance) -> bool,
) -> Result<Vec<String>> {
    if !all {
        return Ok(names.to_vec());
    }
    let meant = catalogue.all()?.into_iter().filter(|instance| is_meant(instance));
    Ok(meant.map(|instance| instance.name().to_owned()).collect())
}
