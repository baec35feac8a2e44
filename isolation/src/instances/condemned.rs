//! Folders that nobody owns any more, on their way out: what is in them, and what is left of a run beside them.

use std::fs::File;
use std::path::PathBuf;

use isolab_container::remove_cgroups;
use nix::fcntl::Flock;
use serde::Serialize;

use super::folder::empty;
use super::name::is_hidden;
use super::record::Record;
use crate::error::IsolationError;
use crate::level::Level;

/// What an instance without an owner had left, and that is gone now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leftover {
    /// The instance's name.
    pub name: String,
    /// Its level of isolation.
    pub level: Level,
    /// The process that had waited for its end.
    pub monitor: u32,
    /// The workload's first process, if it still lived and was killed.
    pub killed: Option<i32>,
    /// The directories that were its own in the cgroup tree.
    pub cgroups: Vec<PathBuf>,
    /// Bytes of disk that its folder took.
    pub freed: u64,
}

/// A folder that nobody owns, and that nobody else knows, unless it is kept.
pub(super) struct Condemned {
    pub(super) path: PathBuf,
    pub(super) record: Option<Record>,
    pub(super) lock: Flock<File>,
}

impl Condemned {
    /// Whether the folder is still where it was, and is to stay there.
    pub(super) fn is_kept(&self) -> bool {
        let is_in_place = self.path.file_name().is_some_and(|name| !is_hidden(name));
        is_in_place && self.record.as_ref().is_some_and(|record| record.kept)
    }

    /// Whether something of the instance's run may be left.
    pub(super) fn has_remains(&self) -> bool {
        let has = |record: &Record| record.process.is_some() || !record.cgroups.is_empty();
        self.record.as_ref().is_some_and(has)
    }

    /// Ends what is left of the instance's run.
    pub(super) fn clear(&mut self) -> Result<Option<Leftover>, IsolationError> {
        let io = |action| {
            let path = self.path.clone();
            move |source| IsolationError::Io { action, path, source }
        };
        let has_remains = self.has_remains();
        let Some(record) = &mut self.record else { return Ok(None) };
        let mut killed = None;
        if let Some(process) = &record.process {
            let was_alive = process.kill().map_err(io("kill the process of"))?;
            killed = was_alive.then_some(process.pid);
        }
        remove_cgroups(&record.cgroups).map_err(isolab_container::Error::from)?;
        let leftover = Leftover {
            name: record.name.clone(),
            level: record.level,
            monitor: record.monitor,
            killed,
            cgroups: record.cgroups.clone(),
            freed: 0,
        };
        if record.kept && has_remains {
            (record.process, record.cgroups) = (None, Vec::new());
            record.append(&self.lock).map_err(io("write to"))?;
        }
        Ok(Some(leftover))
    }

    /// Ends what is left of the instance's run, and removes the folder, unless it is kept.
    ///
    /// # Errors
    /// A process does not die, or something cannot be removed.
    pub(super) fn remove(mut self) -> Result<Option<Leftover>, IsolationError> {
        let leftover = self.clear()?;
        if self.is_kept() {
            return Ok(leftover);
        }
        let freed = empty(&self.path).map_err(|source| IsolationError::Io {
            action: "remove",
            path: self.path.clone(),
            source,
        })?;
        Ok(leftover.map(|leftover| Leftover { freed, ..leftover }))
    }
}
