//! Programs of the host that kernels are unpacked and built with.

use std::io::stderr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use isolab_guest::programs;

/// A program, or a file of a library, and Debian's package that it is in.
pub struct Need(pub &'static str, pub &'static str);

/// Finds out whether all of them are there.
///
/// # Errors
/// Which are not, and how to install them on Debian.
pub fn require(needs: &[Need]) -> Result<()> {
    let is_missing = |Need(name, package): &&Need| match Path::new(name).is_absolute() {
        true => !Path::new(name).exists(),
        false => programs::find(name, package).is_err(),
    };
    let missing: Vec<&Need> = needs.iter().filter(is_missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |word: fn(&Need) -> &'static str| {
        missing.iter().map(|need| word(need)).collect::<Vec<_>>().join(" ")
    };
    let (names, packages) = (list(|need| need.0), list(|need| need.1));
    bail!("not installed: {names} (on Debian: apt-get install {packages})")
}

/// A program whose messages go to our standard error.
///
/// # Errors
/// It is not installed.
pub fn command(name: &str, package: &str) -> Result<Command> {
    let mut command = Command::new(programs::find(name, package)?);
    command.stdin(Stdio::null()).stdout(stderr());
    Ok(command)
}

/// Runs it to its end.
///
/// # Errors
/// It cannot be started, or failed; what it said of that is on standard error.
pub fn run(mut command: Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let status = command.status().with_context(|| format!("cannot run {name}"))?;
    if !status.success() {
        bail!("{name} failed ({status}); its messages are above");
    }
    Ok(())
}
