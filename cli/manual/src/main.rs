//! The `isolab-manual` executable: what shells and man(1) are to know of isolab, written from what the
//! package's executables tell of their command lines. `isolab completions` becomes it, and
//! `scripts/package` runs it.

#[macro_use]
extern crate isolab_command;

mod man;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use isolab_command::elsewhere::ELSEWHERE;
use isolab_command::logging::Logging;
use isolab_command::{Executable, description};
use isolab_link as _;

/// Write shell completions and man pages of isolab, all its executables as one command.
#[derive(Parser)]
#[command(name = "isolab-manual", version)]
struct Manual {
    #[command(flatten)]
    logging: Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print a script that completes isolab's commands and options in a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write a man page for each command.
    Man {
        /// The folder to write them to.
        folder: PathBuf,
    },
}

fn main() -> ExitCode {
    isolab_command::run::<Manual>()
}

impl Executable for Manual {
    fn logging(&self) -> &Logging {
        &self.logging
    }

    fn act(self) -> Result<ExitCode> {
        let mut all = isolab()?;
        match self.command {
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut all, "isolab", &mut script);
                print!("{}", String::from_utf8_lossy(&script));
            }
            Command::Man { folder } => {
                man::write(all, &folder)?;
                // No command of isolab's, and no executable that carries what describes those.
                man::write(isolab_oci::options::Options::command(), &folder)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// `isolab` with the commands of the other executables in place of their names.
fn isolab() -> Result<clap::Command> {
    let mut all = description::of_program("isolab")?.into_command("isolab");
    for command in ELSEWHERE {
        let name = command.name;
        let mut theirs = description::of_program(command.executable)?;
        if !command.is_whole() {
            let below = theirs.into_subcommand(name);
            theirs = below.with_context(|| format!("{} has no {name}", command.executable))?;
        }
        all = all.mut_subcommand(name, |_| theirs.into_command(name));
    }
    Ok(all)
}
