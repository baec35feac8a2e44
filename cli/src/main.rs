//! The `isolab` command: parse, call a library, print.
//!
//! This executable is the run path and stays small (`tests/tests/host/executables.rs`): a start waits
//! for it, and a supervisor is a copy of it. What starts nothing, or needs registries, TLS, the Dockerfile
//! builder or the benchmarks, is an executable of its own, which this one becomes ([`elsewhere`]).

#[macro_use]
extern crate isolab_command;

mod completions;
mod create;
mod elsewhere;
mod health;
mod restart;
mod run;
mod start;
mod vm;
mod workload;
mod workload_terminal;

use std::env;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use isolab_command::logging::Logging;
use isolab_command::{Executable, executable};
use isolab_link as _;

use self::elsewhere::Elsewhere;

/// One OCI image at four levels of isolation: process, container, paravirt and fullvirt.
#[derive(Parser)]
#[command(name = "isolab", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
#[command(next_display_order = None)]
enum Command {
    Completions(completions::Completions),
    Create(Box<create::Args>),
    Restart(restart::Args),
    Run(Box<run::Args>),
    Start(start::Args),
    Vm(vm::Vm),
    #[command(flatten)]
    Elsewhere(Elsewhere),
    /// Print this message or the help of the given command.
    #[command(display_order = 1000)]
    Help {
        /// The command, with those below it.
        command: Vec<OsString>,
    },
}

/// [`Cli`] with one command, whose start is waited for. To build all the others' options, which are not
/// asked for, takes longer than all else that is done before an instance is made.
#[derive(Parser)]
#[command(name = "isolab", version, disable_help_subcommand = true)]
struct Only<C: Subcommand> {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: C,
}

#[derive(Subcommand)]
enum RunCommand {
    Run(Box<run::Args>),
}

#[derive(Subcommand)]
enum VmCommand {
    Vm(vm::Vm),
}

impl<C: Subcommand + Into<Command>> Only<C> {
    /// None for help and for what is wrong: both are told by the one that knows all commands.
    fn read() -> Option<Cli> {
        let Self { logging, command } = Self::try_parse().ok()?;
        Some(Cli { logging, command: command.into() })
    }
}

impl From<RunCommand> for Command {
    fn from(RunCommand::Run(args): RunCommand) -> Self {
        Self::Run(args)
    }
}

impl From<VmCommand> for Command {
    fn from(VmCommand::Vm(vm): VmCommand) -> Self {
        Self::Vm(vm)
    }
}

fn main() -> ExitCode {
    isolab_command::run::<Cli>()
}

impl Executable for Cli {
    const STARTERS: &[&str] = &["create", "run", "start"];

    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn read() -> Result<Self, clap::Error> {
        let word = env::args_os().nth(1);
        let quickly = match word.as_ref().and_then(|word| word.to_str()) {
            Some("run") => Only::<RunCommand>::read(),
            Some("vm") => Only::<VmCommand>::read(),
            _ => None,
        };
        quickly.map_or_else(Self::try_parse, Ok)
    }

    fn act(self) -> Result<ExitCode> {
        act(self.command, &self.logging)
    }
}

fn act(command: Command, logging: &Logging) -> Result<ExitCode> {
    match command {
        Command::Completions(args) => completions::run(&args, logging),
        Command::Create(args) => create::run(*args, logging),
        Command::Elsewhere(command) => command.run(logging),
        Command::Restart(args) => restart::run(&args),
        Command::Run(args) => run::run(*args, logging),
        Command::Start(args) => start::run(&args),
        Command::Vm(vm) => vm::run(vm),
        Command::Help { command } => {
            let words = ["isolab".into()].into_iter().chain(command).chain(["--help".into()]);
            match Cli::try_parse_from(words) {
                // Whoever is elsewhere tells it there.
                Ok(cli) => act(cli.command, logging),
                Err(help) => Ok(executable::refuse::<Cli>(&help)),
            }
        }
    }
}
