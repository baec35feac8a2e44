//! The `isolab` command: parse, call a library, print.
//!
//! This executable is the run path and stays small (`tests/tests/host/executables.rs`): a start waits
//! for it. What needs registries, TLS, the Dockerfile builder or the benchmarks is an executable of its
//! own, which this one becomes.

#[macro_use]
extern crate isolab_command;

mod check;
mod completions;
mod console;
mod health;
mod instances;
mod run;
mod system;
mod terminal;
mod vm;
mod workload;

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use isolab_command::format::EXIT_OWN_FAILURE;
use isolab_command::logging::Logging;
use isolab_command::program::become_program;
use isolab_command::{Executable, executable, failure};
use isolab_instances::InstanceError;
use isolab_link as _;

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
enum Command {
    /// Measure the levels of isolation side by side.
    Bench(Elsewhere),
    Check(check::Args),
    Completions(completions::Completions),
    /// Bring up the services of a compose file, and look after them.
    Compose(Elsewhere),
    /// Copy files into an instance, or out of it.
    Cp(Elsewhere),
    /// Manage the images in the local store.
    Image(Elsewhere),
    /// Bring guest kernels for the VM levels, and list them.
    Kernel(Elsewhere),
    /// Make networks for instances, and list them.
    Network(Elsewhere),
    Run(Box<run::Args>),
    System(system::System),
    Vm(vm::Vm),
    /// Make volumes for instances, and list them.
    Volume(Elsewhere),
    #[command(flatten)]
    Instances(instances::Command),
    /// Print this message or the help of the given command.
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

/// A command that is an executable of its own, which reads its arguments itself, `--help` too.
#[derive(Args)]
#[command(disable_help_flag = true)]
struct Elsewhere {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    arguments: Vec<OsString>,
}

fn main() -> ExitCode {
    isolab_command::run::<Cli>()
}

impl Executable for Cli {
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

    /// A transparent error stands for what it wraps, which is not in the chain then.
    fn hint(error: &(dyn Error + 'static)) -> Option<String> {
        match error.downcast_ref()? {
            InstanceError::Isolation(error) => failure::hint(error),
            InstanceError::Image(error) => failure::hint(error),
            _ => None,
        }
    }

    /// The codes below 125 of `isolab run` are the command's own.
    fn refuse(error: &clap::Error) -> ExitCode {
        let code = executable::refuse(error);
        let isolab = Self::command();
        let command = env::args_os().skip(1).find(|word| isolab.find_subcommand(word).is_some());
        let is_run = command.is_some_and(|word| {
            ["run", "exec", "create", "start"].map(OsString::from).contains(&word)
        });
        if is_run && error.exit_code() != 0 { ExitCode::from(EXIT_OWN_FAILURE) } else { code }
    }
}

fn act(command: Command, logging: &Logging) -> Result<ExitCode> {
    let elsewhere = |name, it: Elsewhere| {
        become_program(name, &[logging.to_arguments(), it.arguments].concat())
    };
    match command {
        Command::Bench(it) => elsewhere("isolab-bench", it),
        Command::Check(args) => check::run(&args),
        Command::Completions(args) => completions::run(&args, logging),
        Command::Compose(it) => elsewhere("isolab-compose", it),
        Command::Cp(it) => elsewhere("isolab-cp", it),
        Command::Image(it) => elsewhere("isolab-image", it),
        Command::Kernel(it) => elsewhere("isolab-kernel", it),
        Command::Instances(command) => instances::run(command, logging),
        Command::Network(it) => elsewhere("isolab-network", it),
        Command::Run(args) => run::run(*args, logging),
        Command::System(system) => system::run(system),
        Command::Vm(vm) => vm::run(vm),
        Command::Volume(it) => elsewhere("isolab-volume", it),
        Command::Help { command } => {
            let words = ["isolab".into()].into_iter().chain(command).chain(["--help".into()]);
            match Cli::try_parse_from(words) {
                // Whoever is elsewhere tells it there.
                Ok(cli) => act(cli.command, logging),
                Err(help) => Ok(Cli::refuse(&help)),
            }
        }
    }
}
