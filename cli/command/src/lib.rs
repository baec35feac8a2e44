//! What isolab's executables do alike: print, read options that several of them take, hear signals,
//! end, and find each other.
//!
//! `isolab` is the run path, small and quick. `isolab image` and `isolab bench` are the executables
//! `isolab-image` and `isolab-bench`, which [`program`] finds.

#[macro_use]
pub mod output;
pub mod description;
pub mod failure;
pub mod fetch;
pub mod format;
pub mod logging;
pub mod program;
pub mod signals;

use std::process::{self, ExitCode};

use anyhow::Result;

use format::EXIT_OWN_FAILURE;

/// Prepares the process, before any thread exists. Where another executable, or who makes a package, asks
/// what the command line is, the answer is all that it does.
pub fn start(command: fn() -> clap::Command) {
    signals::hear_of_children();
    match description::answer(command) {
        Ok(false) => {}
        Ok(true) => process::exit(0),
        Err(error) => {
            eprintln!("isolab: {error:#}");
            process::exit(EXIT_OWN_FAILURE.into());
        }
    }
}

/// Tells what is wrong with the arguments, or the help that was asked for.
pub fn refuse(error: &clap::Error) -> ExitCode {
    // Where nobody reads it, nobody can be told.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_OWN_FAILURE))
}

/// Tells what failed, if something did, and gives the code to end with.
pub fn end(result: Result<ExitCode>) -> ExitCode {
    let code = result.unwrap_or_else(|error| {
        failure::tell(error.as_ref());
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
