//! When an instance reached which point, so that a start-up can be taken apart.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use tracing::info;

/// A point in an instance's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Milestone {
    /// `main` of the isolab command began.
    CommandStarted,
    /// All resources of the instance exist.
    Created,
    /// VM levels: the first KVM_RUN.
    GuestEntered,
    /// VM levels: the guest kernel started our init.
    GuestInit,
    /// The workload's process is started: execve, at VM levels by init.
    WorkloadStarted,
    /// The workload ended.
    WorkloadEnded,
}

/// Milestones with their times on CLOCK_MONOTONIC, in nanoseconds, which compare with those of
/// any other process on this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Milestones(BTreeMap<Milestone, u64>);

/// Now, on CLOCK_MONOTONIC, in nanoseconds.
pub fn now() -> u64 {
    // CLOCK_MONOTONIC exists on every Linux, and the time since boot is not negative.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

impl Milestones {
    /// Notes that `milestone` was reached at `time`; the first time counts.
    pub fn reach(&mut self, milestone: Milestone, time: u64) {
        self.0.entry(milestone).or_insert(time);
    }

    /// When `milestone` was reached, if it was.
    pub fn at(&self, milestone: Milestone) -> Option<u64> {
        self.0.get(&milestone).copied()
    }

    /// Logs each point that was reached, in milliseconds since the first of them.
    pub fn log(&self) {
        let first = self.0.values().min().copied().unwrap_or(0);
        for (milestone, time) in &self.0 {
            let milliseconds = (time - first) as f64 / 1e6;
            info!(?milestone, milliseconds, "reached");
        }
    }

    /// Writes them to `path`, as JSON.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec(self)?)
    }

    /// Reads what [`Milestones::save`] wrote.
    ///
    /// # Errors
    /// The file cannot be read or has none.
    pub fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_counts_and_survives_a_file() {
        let mut milestones = Milestones::default();
        milestones.reach(Milestone::GuestInit, 5);
        milestones.reach(Milestone::GuestInit, 9);
        let file = tempfile::NamedTempFile::new().unwrap();
        milestones.save(file.path()).unwrap();
        let loaded = Milestones::load(file.path()).unwrap();
        assert_eq!(loaded.at(Milestone::GuestInit), Some(5));
        assert_eq!(loaded.at(Milestone::Created), None);
    }
}
