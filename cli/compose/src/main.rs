//! The `isolab-compose` executable, which `isolab compose` becomes: projects of several services.

#[macro_use]
extern crate isolab_command;

mod config;
mod down;
mod exec;
mod images;
mod lifecycle;
mod logs;
mod news;
mod port;
mod ps;
mod scope;
mod top;
mod up;

use std::error::Error;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use isolab_command::logging::Logging;
use isolab_command::{Executable, failure};
use isolab_compose::ComposeError;
use isolab_instances::InstanceError;
use isolab_link as _;

use crate::scope::Scope;

/// Bring up the services of a compose file, at any level of isolation, and look after them.
///
/// The files are those of the Compose Specification (compose.yaml, in this folder or above). A service's level is that
/// of --isolation, of `x-isolation` in the file, or container. What isolab cannot do is refused with its file and
/// line. Nothing is remembered of a project but by its instances, which have Docker's names and labels.
#[derive(Parser)]
#[command(
    name = "isolab-compose",
    bin_name = "isolab compose",
    version,
    after_help = "Examples:\n  isolab compose up -d --wait\n  isolab compose up --isolation paravirt --isolation db=container\n  isolab compose -f compose.yaml -f test.yaml --profile debug up --build --scale app=3\n  isolab compose logs -f web && isolab compose exec db psql\n  isolab compose down -v"
)]
struct Compose {
    #[command(flatten)]
    logging: Logging,
    #[command(flatten)]
    scope: Scope,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(images::Build),
    Config(config::Config),
    Down(down::Down),
    Exec(exec::Exec),
    Kill(lifecycle::Kill),
    Logs(logs::Logs),
    Port(port::Port),
    Ps(ps::Ps),
    Pull(images::Pull),
    Restart(lifecycle::Restart),
    Start(lifecycle::Start),
    Stats(top::Stats),
    Stop(lifecycle::Stop),
    Top(top::Top),
    Up(Box<up::Up>),
}

fn main() -> ExitCode {
    isolab_command::run::<Compose>()
}

impl Executable for Compose {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        let (scope, logging) = (&self.scope, &self.logging);
        match self.command {
            Command::Build(args) => images::build(scope, &args, logging),
            Command::Config(args) => config::run(scope, &args),
            Command::Down(args) => down::run(scope, &args),
            Command::Exec(args) => exec::run(scope, args),
            Command::Kill(args) => lifecycle::kill(scope, &args),
            Command::Logs(args) => logs::run(scope, &args),
            Command::Port(args) => port::run(scope, &args),
            Command::Ps(args) => ps::run(scope, &args),
            Command::Pull(args) => images::pull(scope, &args, logging),
            Command::Restart(args) => lifecycle::restart(scope, &args),
            Command::Start(args) => lifecycle::start(scope, &args),
            Command::Stats(args) => top::stats(scope, &args),
            Command::Stop(args) => lifecycle::stop(scope, &args),
            Command::Top(args) => top::top(scope, &args),
            Command::Up(args) => up::run(scope, &args, logging),
        }
    }

    /// A transparent error stands for what it wraps, which is not in the chain then.
    fn hint(error: &(dyn Error + 'static)) -> Option<String> {
        if let Some(ComposeError::NoFile(_)) = error.downcast_ref() {
            return Some("-f names a file, -p a project that runs".to_owned());
        }
        match error.downcast_ref()? {
            InstanceError::Isolation(error) => failure::hint(error),
            InstanceError::Image(error) => failure::hint(error),
            _ => None,
        }
    }
}

/// What is told of a failure to start an instance, by the process that failed at it.
fn describe(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref() {
        // With the guest's last words, and hints.
        Some(InstanceError::Isolation(error)) => failure::describe(error),
        Some(InstanceError::Image(error)) => failure::describe(error),
        _ => failure::describe(error),
    }
}
