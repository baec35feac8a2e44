//! To hear of processes that are killed because of their cgroup's memory limit: by an eventfd of version 1's
//! `memory.oom_control` (memory.rst, "OOM Control"), or by version 2's `memory.events`, which poll(2) watches.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::members::Memberships;
use super::{CgroupError, files};

/// Tells of kills from its making on.
#[derive(Debug)]
pub struct OomWatch {
    source: Source,
    seen: u64,
}

#[derive(Debug)]
enum Source {
    /// Counts the times that the limit was hit beyond help.
    EventFd(File),
    Events(File),
}

impl Memberships {
    /// A watch. None where no controller limits memory.
    ///
    /// # Errors
    /// The cgroup has gone, or is not ours to watch.
    pub fn watch_oom(&self) -> Result<Option<OomWatch>, CgroupError> {
        if let Some(directory) = self.version_1("memory") {
            let source = Source::EventFd(event_descriptor(directory)?.into());
            return Ok(Some(OomWatch { source, seen: 0 }));
        }
        let Some(path) = self.unified().map(|unified| unified.join("memory.events")) else {
            return Ok(None);
        };
        match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CgroupError::io("open", &path, source)),
            Ok(events) => {
                let mut watch = OomWatch { source: Source::Events(events), seen: 0 };
                // What was before is not told.
                watch.kills();
                Ok(Some(watch))
            }
        }
    }
}

impl OomWatch {
    /// What to wait for, and by which events of poll(2).
    pub fn poll(&self) -> (BorrowedFd<'_>, PollFlags) {
        match &self.source {
            Source::EventFd(eventfd) => (eventfd.as_fd(), PollFlags::POLLIN),
            Source::Events(events) => (events.as_fd(), PollFlags::POLLPRI),
        }
    }

    /// How many there were since the last call. A cgroup that is removed meanwhile tells of none.
    pub fn kills(&mut self) -> u64 {
        match &mut self.source {
            Source::EventFd(eventfd) => {
                let mut count = [0; 8];
                eventfd.read(&mut count).map_or(0, |_| u64::from_ne_bytes(count))
            }
            Source::Events(events) => {
                let mut text = String::new();
                let read = events.rewind().and_then(|()| events.read_to_string(&mut text));
                let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
                let count = count.and_then(|count| count.trim().parse().ok());
                let (Ok(_), Some(count)) = (read, count) else { return 0 };
                count - std::mem::replace(&mut self.seen, count).min(count)
            }
        }
    }
}

fn event_descriptor(directory: &Path) -> Result<OwnedFd, CgroupError> {
    // SAFETY: plain integers.
    let eventfd =
        Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) });
    let path = directory.join("memory.oom_control");
    let failed = |source: io::Error| CgroupError::io("watch", &path, source);
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    let eventfd = unsafe { OwnedFd::from_raw_fd(eventfd.map_err(|errno| failed(errno.into()))?) };
    let control = File::open(&path).map_err(failed)?;
    let words = format!("{} {}", eventfd.as_raw_fd(), control.as_raw_fd());
    files::write(directory, "cgroup.event_control", &words)?;
    // The registration keeps what it needs.
    Ok(eventfd)
}
