//! What became of an instance: `state.json` in its folder.

use std::fmt;
use std::path::Path;

use isolab_isolation::ProcessId;
use serde::{Deserialize, Serialize};

use crate::document::{self, Durability};
use crate::error::InstanceError;
use crate::networking::Attachment;
use crate::time::Timestamp;

const NAME: &str = "state.json";
const VERSION: u32 = 1;
/// The exit code of a workload whose supervisor was killed: it went the same way.
pub(crate) const KILLED: i32 = 128 + libc::SIGKILL;

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It has not been started yet.
    #[default]
    Created,
    /// Its workload runs.
    Running,
    /// Its workload stands still.
    Paused,
    /// Its workload has ended, and is started again after a while.
    Restarting,
    /// Its workload has ended.
    Exited,
}

impl Status {
    /// The word for it, which is podman's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    /// Whether there is a workload now.
    pub fn is_running(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether somebody has to look after it.
    pub fn is_active(self) -> bool {
        self.is_running() || self == Self::Restarting
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The state of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    pub(crate) version: u32,
    /// Where it is in its life.
    pub status: Status,
    /// Who looks after it, or last did, in the background.
    pub supervisor: Option<ProcessId>,
    /// The workload's first process, where it is one of the host's.
    pub process: Option<ProcessId>,
    /// When its workload was last started.
    pub started_at: Option<Timestamp>,
    /// When its workload last ended.
    pub finished_at: Option<Timestamp>,
    /// How its workload last ended: its code, or 128 and the signal's number.
    pub exit_code: i32,
    /// Whether the kernel killed one of its processes because its memory was used up.
    pub oom_killed: bool,
    /// What went wrong last, beside the workload's own end.
    pub error: String,
    /// The last lines of its guest's console, where the guest came to a bad end. They come from the guest.
    #[serde(default)]
    pub console: String,
    /// How often its workload was started again.
    pub restarts: u32,
    /// Whether it is well, where somebody looks.
    pub health: Option<Health>,
    /// Its places on networks, while it runs.
    #[serde(default)]
    pub networks: Vec<Attachment>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            status: Status::Created,
            supervisor: None,
            process: None,
            started_at: None,
            finished_at: None,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            console: String::new(),
            restarts: 0,
            health: None,
            networks: Vec::new(),
        }
    }
}

impl State {
    pub(crate) fn write(&self, folder: &Path) -> Result<(), InstanceError> {
        // A running instance does not outlive the host's crash, so that this need not either.
        let durability = match self.status {
            Status::Running | Status::Paused | Status::Restarting => Durability::UntilCrash,
            Status::Created | Status::Exited => Durability::Synced,
        };
        document::write(folder, NAME, self, durability)
    }

    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, InstanceError> {
        document::read(folder, NAME, VERSION)
    }

    /// What is true of it when nobody looks after the instance any more.
    pub(crate) fn without_supervisor(mut self) -> Self {
        if self.status.is_active() {
            if self.status.is_running() {
                self.exit_code = KILLED;
                self.finished_at = Some(Timestamp::now());
            }
            self.status = Status::Exited;
            self.process = None;
            self.networks.clear();
            self.error = "its supervisor was killed".to_owned();
        }
        self
    }
}

/// How well a workload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// Not known yet.
    #[default]
    Starting,
    /// The last check was good.
    Healthy,
    /// As many checks as count have failed in a row.
    Unhealthy,
}

impl HealthStatus {
    /// The word for it, which is podman's.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// What checks have found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// What follows from them.
    pub status: HealthStatus,
    /// How many have failed in a row.
    pub failing_streak: u32,
    /// The last ones, the oldest first.
    pub log: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its exit code; -1 if it was not in time or could not be made.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_supervisor_nothing_runs() {
        let dir = tempfile::tempdir().unwrap();
        for (status, becomes, code) in [
            (Status::Created, Status::Created, 7),
            (Status::Running, Status::Exited, KILLED),
            (Status::Paused, Status::Exited, KILLED),
            (Status::Restarting, Status::Exited, 7),
            (Status::Exited, Status::Exited, 7),
        ] {
            let state = State { status, exit_code: 7, ..State::default() };
            state.write(dir.path()).unwrap();
            assert_eq!(State::read(dir.path()).unwrap(), Some(state.clone()));
            let corrected = state.without_supervisor();
            assert_eq!((corrected.status, corrected.exit_code), (becomes, code), "{status}");
        }
    }
}
