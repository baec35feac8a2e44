//! Logging: nothing by default, to standard error where the operator asks for it.
//!
//! Where it is off, no subscriber is installed, and a span or event of the libraries costs one
//! load and a branch.

use std::ffi::OsString;
use std::io::{self, Write};

use anyhow::{Context, Result, anyhow};
use clap::{ArgAction, Args, ValueEnum};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;

/// What is logged, as targets: `debug`, or `isolab_vmm=debug,isolab_images=info`.
const VARIABLE: &str = "ISOLAB_LOG";

/// What the targets of our own crates begin with.
const OURS: &str = "isolab";

/// What is logged, and how.
#[derive(Debug, Args)]
pub struct Logging {
    /// Log what is done and how long it took, to standard error; -vv with more of it, -vvv with
    /// all. The variable ISOLAB_LOG says it for each part: ISOLAB_LOG=isolab_vmm=debug.
    #[arg(long, short, action = ArgAction::Count)]
    verbose: u8,
    /// How a line of the log is written.
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

impl Logging {
    /// The arguments that say the same to another executable of ours.
    pub fn to_arguments(&self) -> Vec<OsString> {
        let format = (self.log_format == LogFormat::Json).then_some("--log-format=json");
        (0..self.verbose).map(|_| "--verbose").chain(format).map(OsString::from).collect()
    }

    /// Starts to log, if anything is to be logged.
    ///
    /// # Errors
    /// The variable does not parse.
    pub fn start(&self) -> Result<()> {
        let variable = std::env::var(VARIABLE).unwrap_or_default();
        let Some(targets) = targets(self.verbose, &variable)? else { return Ok(()) };
        // A span that closes says how long it was.
        let lines = tracing_subscriber::fmt::layer()
            .with_span_events(FmtSpan::CLOSE)
            .with_writer(|| StandardError);
        let registry = tracing_subscriber::registry();
        // Only one of these is ever called, and once: no other subscriber is there.
        match self.log_format {
            LogFormat::Text => registry.with(lines.with_filter(targets)).try_init(),
            LogFormat::Json => registry.with(lines.json().with_filter(targets)).try_init(),
        }
        .context("cannot start the log")
    }
}

/// What -v, given so many times, and the variable ask for. None for nothing.
fn targets(verbose: u8, variable: &str) -> Result<Option<Targets>> {
    // The parser's text has its source's in it.
    let given =
        || variable.parse::<Targets>().map_err(|error| anyhow!("{VARIABLE}={variable}: {error}"));
    let targets = match variable {
        "" => Targets::new(),
        _ => given()?,
    };
    let level = match verbose {
        0 if variable.is_empty() => return Ok(None),
        0 => return Ok(Some(targets)),
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    Ok(Some(targets.with_target(OURS, level)))
}

/// Takes everything. A log that nobody reads any more is no failure of what is logged, and the
/// subscriber would tell a failure on standard error.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // A line at once, so that lines of threads do not mix.
        let _ = io::stderr().lock().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn nothing_is_logged_unless_asked_for() {
        assert!(targets(0, "").unwrap().is_none());
        let one = targets(1, "").unwrap().unwrap();
        assert!(one.would_enable("isolab_vmm::machine", &Level::INFO));
        assert!(!one.would_enable("isolab_vmm::machine", &Level::DEBUG));
        assert!(!one.would_enable("hyper", &Level::ERROR));
        assert!(targets(9, "").unwrap().unwrap().would_enable("isolab", &Level::TRACE));
        let both = targets(2, "isolab_vmm=error,hyper=info").unwrap().unwrap();
        assert!(both.would_enable("isolab_images", &Level::DEBUG));
        assert!(!both.would_enable("isolab_vmm::machine", &Level::INFO));
        assert!(both.would_enable("hyper", &Level::INFO));
        let error = format!("{:#}", targets(0, "isolab=loud").unwrap_err());
        assert!(error.starts_with("ISOLAB_LOG=isolab=loud: "), "{error}");
    }
}
