//! `isolab completions`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;
use isolab_command::description;

/// Print a script that completes isolab's commands and options in a shell.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    isolab completions bash >/etc/bash_completion.d/isolab\n  \
    isolab completions fish | source")]
pub struct Completions {
    /// The shell.
    shell: Known,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Known {
    Bash,
    Fish,
    Zsh,
}

/// Runs the command: `own` with the commands of the executables `elsewhere` in place of their names.
pub fn run(args: &Completions, own: Command, elsewhere: &[&str]) -> Result<ExitCode> {
    let mut all = own;
    for name in elsewhere {
        let theirs = description::of_program(&format!("isolab-{name}"))?.into_command(name);
        all = all.mut_subcommand(name, |_| theirs);
    }
    let shell = match args.shell {
        Known::Bash => Shell::Bash,
        Known::Fish => Shell::Fish,
        Known::Zsh => Shell::Zsh,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut all, "isolab", &mut script);
    print!("{}", String::from_utf8_lossy(&script));
    Ok(ExitCode::SUCCESS)
}
