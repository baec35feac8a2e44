//! The life of an executable of ours, which all of them have alike: arguments, log, work, failure,
//! exit code.

use std::env;
use std::error::Error;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::format::EXIT_OWN_FAILURE;
use crate::logging::Logging;
use crate::{description, failure, home, output, signals};

/// An executable: its command line, and what it does.
pub trait Executable: Parser {
    /// Its commands that start a process, whose exit codes below 125 are the process's own.
    const STARTERS: &[&str] = &[];

    /// What it is to log.
    fn logging(&self) -> &Logging;

    /// Does what the command line asks for, and gives the code to end with.
    ///
    /// # Errors
    /// What failed: it is told, and the code is [`failure::exit_code`].
    fn act(self) -> Result<ExitCode>;

    /// What the operator can do about an error of a library that other executables do not have
    /// ([`failure`] knows the rest).
    fn hint(_error: &(dyn Error + 'static)) -> Option<String> {
        None
    }

    /// The command line that this process was given.
    ///
    /// # Errors
    /// What is wrong with it, or the help that was asked for.
    fn read() -> Result<Self, clap::Error> {
        Self::try_parse()
    }
}

/// All that `main` of an executable does.
pub fn run<E: Executable>() -> ExitCode {
    // Before any thread exists.
    signals::hear_of_children();
    home::complete();
    // Where another executable, or who makes a package, asks what the command line is, the answer is all
    // that is done.
    match description::answer(E::command) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isolab: {error:#}");
            return ExitCode::from(EXIT_OWN_FAILURE);
        }
    }
    let executable = match E::read() {
        Ok(executable) => executable,
        Err(error) => return refuse::<E>(&error),
    };
    let result = executable.logging().start().and_then(|()| executable.act());
    let code = result.unwrap_or_else(|error| {
        failure::tell_with(error.as_ref(), E::hint);
        ExitCode::from(failure::exit_code(&error))
    });
    match output::failure() {
        Some(error) => {
            eprintln!("isolab: cannot write to standard output: {error}");
            ExitCode::from(EXIT_OWN_FAILURE)
        }
        None => code,
    }
}

/// Tells what is wrong with the arguments, or the help that was asked for, and gives the code to end with: clap's, but
/// [`EXIT_OWN_FAILURE`] where that could be a process's.
pub fn refuse<E: Executable>(error: &clap::Error) -> ExitCode {
    // Where nobody reads it, nobody can be told.
    let _ = error.print();
    if error.exit_code() == 0 {
        return ExitCode::SUCCESS;
    }
    let commands = E::command();
    let command = env::args_os().skip(1).find(|word| commands.find_subcommand(word).is_some());
    let starts = command.is_some_and(|word| E::STARTERS.iter().any(|&starter| word == starter));
    match starts {
        true => ExitCode::from(EXIT_OWN_FAILURE),
        false => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_OWN_FAILURE)),
    }
}
