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
enum UsualRunCommand {
    Run(Box<run::Usual>),
}

#[derive(Subcommand)]
enum VmCommand {
    Vm(vm::Vm),
}

/// A command that is read without the others.
trait One: Subcommand {
    /// None where it might mean something else to the one that knows all options.
    fn complete(self) -> Option<Command>;
}

impl<C: One> Only<C> {
    /// None for help and for what is wrong: both are told by the one that knows all commands.
    fn read() -> Option<Cli> {
        Self::read_from(env::args_os())
    }

    fn read_from(words: impl IntoIterator<Item = OsString>) -> Option<Cli> {
        let Self { logging, command } = Self::try_parse_from(words).ok()?;
        Some(Cli { logging, command: command.complete()? })
    }
}

impl One for UsualRunCommand {
    fn complete(self) -> Option<Command> {
        let Self::Run(usual) = self;
        usual.complete().map(|args| Command::Run(Box::new(args)))
    }
}

impl One for RunCommand {
    fn complete(self) -> Option<Command> {
        let Self::Run(args) = self;
        Some(Command::Run(args))
    }
}

impl One for VmCommand {
    fn complete(self) -> Option<Command> {
        let Self::Vm(vm) = self;
        Some(Command::Vm(vm))
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
            // The first does not know all options, and takes a command line as the second would, or not at all.
            Some("run") => Only::<UsualRunCommand>::read().or_else(Only::<RunCommand>::read),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read<C: One>(words: &[&str]) -> Option<String> {
        let words = ["isolab", "run"].iter().chain(words).map(OsString::from);
        match Only::<C>::read_from(words)?.command {
            Command::Run(args) => Some(format!("{args:?}")),
            _ => None,
        }
    }

    #[test]
    fn a_command_line_of_usual_options_is_read_as_among_all() {
        let usual: &[&[&str]] = &[
            &["busybox"],
            &["busybox", "sh", "-c", "--cap-add ALL"],
            &["--isolation", "paravirt", "--memory=128M", "--cpus", "2", "busybox", "echo", "-n"],
            &["-dit", "--rm", "--name", "web", "-e", "A=1", "-eB", "-w/", "-u", "1:2", "x", "y"],
            &[
                "--network",
                "a,ip=10.0.0.2",
                "-p",
                "80:80",
                "--network-alias",
                "b",
                "-v",
                "/a:/b",
                "x",
            ],
            &[
                "--timings",
                "/t",
                "--kernel",
                "slim",
                "--entrypoint",
                "[\"a\"]",
                "--",
                "x",
                "y",
                "--rm",
            ],
        ];
        for words in usual {
            let read_quickly = read::<UsualRunCommand>(words);
            assert!(read_quickly.is_some(), "{words:?}");
            assert_eq!(read_quickly, read::<RunCommand>(words), "{words:?}");
        }
    }

    #[test]
    fn what_is_not_usual_is_left_to_the_one_that_knows_all_options() {
        for (words, is_right) in [
            (&["--cap-add", "ALL", "busybox"][..], true),
            (&["--rm", "--health-cmd", "true", "busybox"], true),
            (&["-q", "busybox"], true),
            (&["-l", "a=b", "busybox"], true),
            (&["--hostname", "x", "busybox", "sh"], true),
            // An option that is not known here is no command's name.
            (&["busybox", "--cap-add", "ALL", "sh"], true),
            (&["busybox", "-q"], true),
            // Wrong, whoever reads it.
            (&["--detach", "--timings", "/t", "busybox"], false),
            (&["--rm", "--restart", "always", "busybox"], false),
            (&["--help"], false),
            (&[], false),
        ] {
            assert_eq!(read::<UsualRunCommand>(words), None, "{words:?}");
            assert_eq!(read::<RunCommand>(words).is_some(), is_right, "{words:?}");
        }
    }
}
