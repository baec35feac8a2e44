//! `isolab completions`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};
use isolab_command::logging::Logging;
use isolab_command::program::become_program;

/// Print a script that completes isolab's commands and options in a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab completions bash >/etc/bash_completion.d/isolab\n  \
    isolab completions fish | source")]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Fish,
    Zsh,
}

/// Runs the command, which is another executable's: here it would be carried through each start.
pub fn run(args: &Completions, logging: &Logging) -> Result<ExitCode> {
    let shell = match args.shell {
        Shell::Bash => "bash",
        Shell::Fish => "fish",
        Shell::Zsh => "zsh",
    };
    let arguments = [logging.to_arguments(), vec!["completions".into(), shell.into()]].concat();
    become_program("isolab-manual", &arguments)
}
