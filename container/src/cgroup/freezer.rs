//! Making all processes of a cgroup stand still (cgroup-v2.rst, "cgroup.freeze"; freezer-subsystem.rst for version 1).
//!
//! Version 2's freezer needs no controller: it works in the version 2 hierarchy of a hybrid host, too, in which every
//! container is that can be.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{CgroupError, files};

/// How long processes may take to stand still. They do so when they next leave the kernel, which one that waits for a
/// disk or a network file system may not do for long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at version 1's state, of which there is no event.
const INTERVAL: Duration = Duration::from_millis(2);

pub(super) fn freeze_v2(directory: &Path, frozen: bool) -> Result<(), CgroupError> {
    files::write(directory, "cgroup.freeze", if frozen { "1" } else { "0" })?;
    let wanted = if frozen { "frozen 1" } else { "frozen 0" };
    if wait_for_event(directory, wanted, TIMEOUT).map_err(|error| failed(directory, error))? {
        return Ok(());
    }
    give_up(directory, frozen, || files::write(directory, "cgroup.freeze", "0"))
}

pub(super) fn freeze_v1(directory: &Path, frozen: bool) -> Result<(), CgroupError> {
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    let deadline = Instant::now() + TIMEOUT;
    loop {
        // Written again each time: a process that forks meanwhile can keep the whole at FREEZING.
        files::write(directory, "freezer.state", wanted)?;
        if files::read(directory, "freezer.state").is_some_and(|state| state.trim() == wanted) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return give_up(directory, frozen, || {
                files::write(directory, "freezer.state", "THAWED")
            });
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Waits until `cgroup.events` has this line. Ok(false): it has not, and the time is over.
///
/// # Errors
/// The file cannot be read: most likely the cgroup is gone.
pub(super) fn wait_for_event(directory: &Path, line: &str, timeout: Duration) -> io::Result<bool> {
    let mut events = File::open(directory.join("cgroup.events"))?;
    let deadline = Instant::now() + timeout;
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|known| known == line) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        // A change of the file is signalled as POLLPRI (cgroup-v2.rst, "[Un]populated Notification").
        let mut watch = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        let _ = poll(&mut watch, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
    }
}

/// Who asked for a pause and does not get it finds everything running.
fn give_up(
    directory: &Path,
    frozen: bool,
    thaw: impl FnOnce() -> Result<(), CgroupError>,
) -> Result<(), CgroupError> {
    if frozen {
        thaw()?;
    }
    Err(failed(directory, io::ErrorKind::TimedOut.into()))
}

fn failed(directory: &Path, source: io::Error) -> CgroupError {
    CgroupError::io("freeze or thaw cgroup", directory, source)
}
