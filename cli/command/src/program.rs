//! Becoming another executable of the package.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use isolab_guest::package;

/// Becomes the executable `name` of this package, with these arguments. It returns when that failed.
///
/// # Errors
/// There is no such executable, or it cannot be executed.
pub fn become_program<A: AsRef<OsStr>>(name: &str, arguments: &[A]) -> Result<ExitCode> {
    let path = package::executable(name)?;
    let error: io::Error = Command::new(&path).args(arguments).exec();
    Err(error).with_context(|| format!("cannot execute {}", path.display()))
}
