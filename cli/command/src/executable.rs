//! The life of an executable of ours, which all of them have alike: arguments, log, work, failure,
//! exit code.

use std::error::Error;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::format::EXIT_OWN_FAILURE;
use crate::logging::Logging;
use crate::{description, failure, home, output, signals};

/// An executable: its command line, and what it does.
pub trait Executable: Parser {
    /// What it is to log.
    fn logging(&self) -> &Logging;

    /// Does what the command line asks for, and gives the code to end with.
    ///
    /// # Errors
    /// What failed: it is told, and the code is [`EXIT_OWN_FAILURE`].
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

    /// Tells what is wrong with the arguments, or the help that was asked for, and gives the code to
    /// end with.
    fn refuse(error: &clap::Error) -> ExitCode {
        refuse(error)
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
        Err(error) => return E::refuse(&error),
    };
    let result = executable.logging().start().and_then(|()| executable.act());
    let code = result.unwrap_or_else(|error| {
        failure::tell_with(error.as_ref(), E::hint);
        ExitCode::from(EXIT_OWN_FAILURE)
    });
    match output::failure() {
        Some(error) => {
            eprintln!("isolab: cannot write to standard output: {error}");
            ExitCode::from(EXIT_OWN_FAILURE)
        }
        None => code,
    }
}

/// Tells what is wrong with the arguments, or the help that was asked for, and gives clap's code for it.
pub fn refuse(error: &clap::Error) -> ExitCode {
    // Where nobody reads it, nobody can be told.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_OWN_FAILURE))
}
