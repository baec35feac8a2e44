//! Reading and writing control files, making and removing cgroup directories.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::CgroupError;

/// How long a cgroup may take to become empty after its processes were killed.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes a value in one write(2), as control files want it.
pub(super) fn write(directory: &Path, file: &str, value: &str) -> Result<(), CgroupError> {
    let path = directory.join(file);
    let written = fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut f| f.write_all(value.as_bytes()));
    written.map_err(|source| match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => CgroupError::io("write", &path, source),
        _ => CgroupError::Refused { value: value.to_owned(), path, source },
    })
}

pub(super) fn read(directory: &Path, file: &str) -> Option<String> {
    fs::read_to_string(directory.join(file)).ok()
}

pub(super) fn read_number(directory: &Path, file: &str) -> Option<u64> {
    read(directory, file)?.trim().parse().ok()
}

/// Reads `key N` out of a file of such lines.
pub(super) fn read_keyed(directory: &Path, file: &str, key: &str) -> Option<u64> {
    let text = read(directory, file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

pub(super) fn read_pids(directory: &Path) -> Vec<Pid> {
    let text = read(directory, "cgroup.procs").unwrap_or_default();
    // 0 stands for a process of another pid namespace, which we cannot name; kill(0) would hit ourselves.
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .map(Pid::from_raw)
        .collect()
}

/// Makes `leaf` and its missing parents below `base`.
///
/// A leaf that is left over from a runtime that was killed is empty and is made anew; one with processes is in use.
pub(super) fn make(base: &Path, leaf: &Path) -> Result<(), CgroupError> {
    let failed = |path: &Path, source| CgroupError::io("create cgroup", path, source);
    // Somebody may remove a parent at the same time: a few attempts.
    for _ in 0..8 {
        make_parents(base, leaf)?;
        match fs::create_dir(leaf) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                match fs::remove_dir(leaf) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        return Err(CgroupError::InUse { path: leaf.to_path_buf() });
                    }
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(failed(leaf, error));
                    }
                    _ => {}
                }
            }
            Err(error) => return Err(failed(leaf, error)),
        }
    }
    Err(failed(leaf, io::Error::from_raw_os_error(libc::EAGAIN)))
}

fn make_parents(base: &Path, leaf: &Path) -> Result<(), CgroupError> {
    for parent in parents(base, leaf).into_iter().rev() {
        match fs::create_dir(&parent) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Its own parent was just removed; the caller tries again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(CgroupError::io("create cgroup", &parent, error)),
        }
    }
    Ok(())
}

/// The directories strictly between `base` and `leaf`, innermost first.
pub(super) fn parents(base: &Path, leaf: &Path) -> Vec<PathBuf> {
    let above = leaf.ancestors().skip(1);
    above
        .take_while(|path| *path != base && path.starts_with(base))
        .map(Path::to_path_buf)
        .collect()
}

/// Removes `leaf` and what the container made below it. Its parents stay: they may be somebody else's.
pub(super) fn remove(leaf: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + REMOVAL_TIMEOUT;
    loop {
        // Nearly always it has no children, and to look for them takes as long as the removal.
        let removed = fs::remove_dir(leaf)
            .or_else(|_| remove_children(leaf).and_then(|()| fs::remove_dir(leaf)));
        match removed {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline =>
            {
                // Killed processes are on their way out; version 1 has no event to wait for.
                super::signal_all(leaf, nix::sys::signal::Signal::SIGKILL);
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(CgroupError::io("remove cgroup", leaf, error)),
        }
    }
}

/// Removes `leaf` if it has neither processes nor children, or will have none in a moment.
pub(super) fn remove_empty(leaf: &Path) {
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Err(error) = fs::remove_dir(leaf) {
        if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Removes cgroups that the container made below its own.
fn remove_children(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            continue;
        }
        // The kernel limits the depth (cgroup.max.depth) no lower than the path length, which PATH_MAX bounds.
        remove_children(&entry.path())?;
        super::signal_all(&entry.path(), nix::sys::signal::Signal::SIGKILL);
        fs::remove_dir(entry.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_stop_at_the_base() {
        let found = parents(Path::new("/cg"), Path::new("/cg/a/b/c"));
        assert_eq!(found, [Path::new("/cg/a/b"), Path::new("/cg/a")]);
        assert!(parents(Path::new("/cg"), Path::new("/cg/a")).is_empty());
        assert!(parents(Path::new("/other"), Path::new("/cg/a/b")).is_empty());
    }

    #[test]
    fn keyed_files_match_whole_keys() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("events"), "oom 3\noom_kill 2\n").unwrap();
        assert_eq!(read_keyed(dir.path(), "events", "oom"), Some(3));
        assert_eq!(read_keyed(dir.path(), "events", "oom_kill"), Some(2));
        assert_eq!(read_keyed(dir.path(), "events", "oo"), None);
    }
}
