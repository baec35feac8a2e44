//! Which levels a benchmark is of, and their guests: the same options for each.

use std::ffi::OsString;

use anyhow::{Result, bail};
use clap::Args;
use isolab_bench::subjects::{self, Peer};
use isolab_command::format::parse_size;
use isolab_isolation::Level;

use super::duplicate;

/// Which levels, with what guests.
#[derive(Debug, Args)]
pub struct Levels {
    /// Levels, separated by commas; by default all of them.
    #[arg(long, value_name = "LEVEL,...", value_delimiter = ',')]
    isolation: Vec<Level>,
    /// Guest kernel: slim, stock, cloud, or a file; by default the first of these that exists.
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    /// Memory of every instance.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    pub memory: u64,
}

/// Who takes part, and the guest kernels' names for the report, if there are guests.
type Subjects = (Vec<subjects::Level>, Option<String>);

impl Levels {
    /// The levels as subjects; with `self_test`, the first is one twice.
    ///
    /// # Errors
    /// A level is named twice, or there is no such kernel.
    pub fn subjects(&self, self_test: bool) -> Result<Subjects> {
        Ok(subjects::levels(chosen(&self.isolation)?, self.kernel(), self_test)?)
    }

    /// The levels that are measured beside `peers`: those that are named, and all of them only where there are no peers.
    ///
    /// # Errors
    /// As of [`subjects`](Self::subjects), and where a peer is named twice.
    pub fn beside(&self, peers: &[Peer]) -> Result<Option<Subjects>> {
        if let Some(twice) = duplicate(peers) {
            bail!("{twice} is named twice");
        }
        match self.isolation.is_empty() && !peers.is_empty() {
            true => Ok(None),
            false => self.subjects(false).map(Some),
        }
    }

    /// The guest kernel that is asked for.
    pub fn kernel(&self) -> Option<&str> {
        self.kernel.as_deref()
    }

    /// What `isolab run` is told of every instance.
    pub fn options(&self) -> Vec<OsString> {
        vec!["--memory".into(), self.memory.to_string().into()]
    }
}

/// The levels that are named, each once, or all.
///
/// # Errors
/// A level is named twice.
pub fn chosen(named: &[Level]) -> Result<&[Level]> {
    match duplicate(named) {
        Some(twice) => bail!("{twice} is named twice"),
        None if named.is_empty() => Ok(&Level::ALL),
        None => Ok(named),
    }
}
