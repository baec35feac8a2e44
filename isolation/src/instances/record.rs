//! What is written down of an instance, so that others find what it left when its monitor was killed:
//! lines of JSON in the file that is its lock, of which the last counts. A line more is one system call,
//! and there is a whole one at any time.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use isolab_container::{pidfd, processes};
use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::level::Level;

/// The file that is locked, and holds the record.
pub(super) const LOCK: &str = "lock";
const VERSION: u32 = 1;
/// From this length on, in bytes, a record takes the place of all before it. An instance that is started
/// again and again writes one each time.
const MAX_LENGTH: u64 = 64 << 10;
/// How long a process may take to die of SIGKILL, in milliseconds. One in an uninterruptible sleep
/// may take for ever.
const KILL_TIMEOUT: u16 = 5000;

/// The record of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    version: u32,
    pub(super) name: String,
    /// 64 hexadecimal digits.
    #[serde(default)]
    pub(super) id: String,
    pub(super) level: Level,
    /// Whether the folder stays when its owner is gone.
    #[serde(default)]
    pub(super) kept: bool,
    /// The process that waits for the instance's end.
    pub(super) monitor: u32,
    /// Directories of the cgroup tree that are the instance's own.
    pub(super) cgroups: Vec<PathBuf>,
    /// The workload's first process; guests' are in their machine.
    pub(super) process: Option<ProcessId>,
}

impl Record {
    pub(super) fn new(name: &str, id: &str, level: Level) -> Self {
        let (name, id, monitor) = (name.to_owned(), id.to_owned(), std::process::id());
        let (kept, cgroups, process) = (false, Vec::new(), None);
        Self { version: VERSION, name, id, level, kept, monitor, cgroups, process }
    }

    /// Writes the record as a line behind those that it replaces.
    pub(super) fn append(&self, mut file: &File) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        if file.seek(SeekFrom::End(0))? < MAX_LENGTH {
            return file.write_all(&line);
        }
        // Between the two the last whole line is an older one still.
        file.write_all_at(&line, 0)?;
        file.set_len(line.len() as u64)
    }

    /// The last line that is whole; None where there is no record that we understand.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        let mut text = Vec::new();
        open_lock(folder, Access::Read)?.read_to_end(&mut text).ok()?;
        let mut lines = text.rsplit(|byte| *byte == b'\n');
        let record: Self = lines.find_map(|line| serde_json::from_slice(line).ok())?;
        (record.version == VERSION).then_some(record)
    }
}

/// What a lock is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    /// To add records as well.
    Append,
}

/// The lock of an instance's folder; None where there is none of ours.
pub(super) fn open_lock(folder: &Path, access: Access) -> Option<File> {
    // Neither a link nor something that blocks or acts when it is opened.
    let mut options = File::options();
    options.read(true).write(access == Access::Append);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let lock = options.open(folder.join(LOCK)).ok()?;
    let is_lock = |metadata: fs::Metadata| metadata.is_file() && is_ours(&metadata);
    lock.metadata().is_ok_and(is_lock).then_some(lock)
}

pub(super) fn is_ours(metadata: &fs::Metadata) -> bool {
    metadata.uid() == nix::unistd::geteuid().as_raw()
}

/// A process, told apart from all that will ever have its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessId {
    /// Its number while it lives.
    pub pid: i32,
    /// In clock ticks since the host's start (proc_pid_stat(5), field 22).
    start_time: u64,
    boot: String,
    /// Numbers of another pid namespace are not ours.
    pid_namespace: u64,
}

impl ProcessId {
    /// None if it is gone.
    pub fn of(pid: i32) -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let pid_namespace = fs::metadata("/proc/self/ns/pid").ok()?.ino();
        let start_time = processes::alive_since_ticks(Pid::from_raw(pid))?;
        Some(Self { pid, start_time, boot, pid_namespace })
    }

    /// Whether the process still lives.
    pub fn lives(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }

    /// Kills the process if it still lives, and says whether it did.
    ///
    /// # Errors
    /// We may not, or it does not die.
    pub fn kill(&self) -> io::Result<bool> {
        // In this order: what is looked at behind the descriptor cannot become another process.
        let process = match pidfd::open(Pid::from_raw(self.pid)) {
            Err(Errno::ESRCH | Errno::EINVAL) => return Ok(false),
            process => process?,
        };
        if Self::of(self.pid).as_ref() != Some(self) {
            return Ok(false);
        }
        pidfd::send(&process, libc::SIGKILL)?;
        match pidfd::wait(&process, PollTimeout::from(KILL_TIMEOUT))? {
            true => Ok(true),
            false => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not die of SIGKILL")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn the_last_whole_record_is_read_and_nothing_else_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let read = || Record::read(folder.path());
        assert_eq!(read(), None);
        let file = File::create(folder.path().join(LOCK)).unwrap();
        let append = |text: &str| (&file).write_all(text.as_bytes()).unwrap();
        for strange in ["", "\n", "{}\n", "[1]\n", "{\"version\":1,\"name\":\"x\"}\n"] {
            append(strange);
            assert_eq!(read(), None, "{strange}");
        }
        let mut record = Record::new("web", "1234", Level::Container);
        record.append(&file).unwrap();
        record.cgroups = vec!["/sys/fs/cgroup/isolab-web".into()];
        record.process = ProcessId::of(std::process::id() as i32);
        assert!(record.process.is_some());
        record.append(&file).unwrap();
        assert_eq!(read(), Some(record.clone()));
        // As a kill, or a full disk, leaves it.
        append("{\"version\":1,\"na");
        assert_eq!(read(), Some(record.clone()));
        append("\n");
        record.version = 2;
        record.append(&file).unwrap();
        assert_eq!(read(), None);
    }

    #[test]
    fn only_the_process_itself_is_killed() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        let others = [
            ProcessId { start_time: id.start_time + 1, ..id.clone() },
            ProcessId { boot: "another".to_owned(), ..id.clone() },
            ProcessId { pid_namespace: 1, ..id.clone() },
        ];
        for other in others {
            assert!(!other.kill().unwrap(), "{other:?}");
        }
        assert!(child.try_wait().unwrap().is_none());
        assert!(id.kill().unwrap());
        // It has ended, although we have not heard of it yet.
        assert!(!id.kill().unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        assert!(!id.kill().unwrap());
    }
}
