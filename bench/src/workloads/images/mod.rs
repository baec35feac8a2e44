//! `isolab bench image`: what an image costs before its first command runs.
//!
//! [`first_use`] goes from an archive and an empty store to the first line of output at each
//! level, and again with all that is kept; [`stores`] compares taking in a large image with
//! other engines, and the room that it then takes.

pub(super) mod archive;
pub mod first_use;
mod sample;
pub mod stores;

use std::io;
use std::process::{Command, ExitStatus};

/// Why a measurement cannot go on: half a comparison is none.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A program or a file.
    #[error("cannot {action} for {subject}")]
    Host {
        /// What was attempted: a verb, for example `start`.
        action: &'static str,
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A command of isolab or of another engine failed.
    #[error("`{command}` ended with {status} for {subject}; it said: {said}")]
    Command {
        /// The command, as a shell would take it.
        command: String,
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// Its exit status, which is not success.
        status: ExitStatus,
        /// What it wrote to standard error.
        said: String,
    },
    /// An `isolab run` failed, or printed nothing.
    #[error(transparent)]
    Run(#[from] super::startup::StartupError),
}

/// Runs a command to its end, which has to be a good one; gives its standard output.
fn run(command: &mut Command, subject: &str) -> Result<String, ImagesError> {
    let output = command.output().map_err(|source| ImagesError::Host {
        action: "run a command",
        subject: subject.to_owned(),
        source,
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let words = command.get_args().map(|word| word.to_string_lossy().into_owned());
    Err(ImagesError::Command {
        command: [program].into_iter().chain(words).collect::<Vec<_>>().join(" "),
        subject: subject.to_owned(),
        status: output.status,
        said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
