//! The standard streams of a workload that is not root.
//!
//! `/dev/stdout` is a link to a descriptor's file in /proc, and to open it takes a right to the file
//! itself: an image that logs to `/dev/stdout` as another user than the one who made the pipe fails.
//! runc gives the files to the container's user (`fixStdioPermissions`); podman has pipes of its own
//! for all of them. Here:
//!
//! - An anonymous pipe is given to the workload's user. It has no name by which its new owner could
//!   reach it, and ends with its last descriptor.
//! - What has a name is the caller's: a file, a terminal, a FIFO. A change of its owner would stay
//!   when the container is gone, and open it to a user of the host who has the same number. The
//!   workload gets a pipe, and what comes out of it is copied. Who types to the workload on a terminal
//!   keeps that, by its descriptor only: a shell behind a pipe shows no prompt.

use std::fs::File;
use std::io::{self, IsTerminal, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};

use isolab_container::{Stdio, Stream};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::fstatfs;
use nix::unistd::{Gid, Uid, dup, fchown, geteuid};

use crate::error::IsolationError;

/// linux/magic.h
const PIPEFS_MAGIC: i64 = 0x5049_5045;

/// Gives an anonymous pipe to the workload's user; anything else is left alone. Root opens it as it is.
pub(crate) fn give(stream: impl AsFd, uid: u32) {
    if uid != 0 && is_anonymous_pipe(stream.as_fd()) {
        // As runc does: where we may not, the workload can do without.
        let _ = fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>);
    }
}

/// Our own streams, as they are.
pub(crate) fn own(uid: u32, stdin: bool) -> Stdio {
    for stream in [io::stdin().as_fd(), io::stdout().as_fd(), io::stderr().as_fd()] {
        give(stream, uid);
    }
    let stdin = if stdin { Stream::Inherit } else { Stream::Null };
    Stdio { stdin, ..Stdio::default() }
}

/// Streams that the caller has made for the workload.
pub(crate) fn given(uid: u32, stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd) -> Stdio {
    for stream in stdin.iter().chain([&stdout, &stderr]) {
        give(stream, uid);
    }
    Stdio {
        stdin: stdin.map_or(Stream::Null, Stream::Descriptor),
        stdout: Stream::Descriptor(stdout),
        stderr: Stream::Descriptor(stderr),
        further: 0,
    }
}

/// The streams of a container whose user is `uid`, and the copying they need.
pub(crate) fn for_user(uid: u32, stdin: bool) -> Result<(Stdio, Copies), IsolationError> {
    let mut stdio = Stdio::default();
    let mut copies = Copies::default();
    if stdin {
        give(io::stdin(), uid);
    } else {
        stdio.stdin = Stream::Null;
    }
    // Without root, the user is the caller.
    if uid == 0 || !geteuid().is_root() {
        return Ok((stdio, copies));
    }
    let failed = |action| move |error: io::Error| IsolationError::host(action)(error);
    let (stdout, stderr) = (io::stdout(), io::stderr());
    let is_typed_to = stdin && io::stdin().is_terminal();
    let mut shared: Option<OwnedFd> = None;
    for (ours, theirs) in [(stdout.as_fd(), &mut stdio.stdout), (stderr.as_fd(), &mut stdio.stderr)]
    {
        give(ours, uid);
        if can_be_opened(ours, uid) || is_typed_to && ours.is_terminal() {
            continue;
        }
        if let Some(pipe) = shared.as_ref().filter(|_| same_file(stdout.as_fd(), ours)) {
            // One pipe, so that what is written to both stays in order.
            let copy = pipe.try_clone().map_err(failed("duplicate a pipe"))?;
            *theirs = Stream::Descriptor(copy);
            continue;
        }
        let (reader, writer) = io::pipe().map_err(failed("make a pipe"))?;
        give(&writer, uid);
        let target = dup(ours).map_err(io::Error::from);
        let target = target.map_err(failed("duplicate a standard stream"))?;
        copies.waiting.push((reader, File::from(target)));
        let writer = OwnedFd::from(writer);
        if shared.is_none() {
            shared = Some(writer.try_clone().map_err(failed("duplicate a pipe"))?);
        }
        *theirs = Stream::Descriptor(writer);
    }
    Ok((stdio, copies))
}

/// Streams that are copied from pipes of ours to the caller's files.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    waiting: Vec<(PipeReader, File)>,
    running: Vec<JoinHandle<()>>,
}

impl Copies {
    /// Starts the threads that copy between the workload's pipes and our streams.
    pub(crate) fn start(&mut self) -> Result<(), IsolationError> {
        for (mut from, mut to) in self.waiting.drain(..) {
            let copy = move || {
                // A failure closes the pipe, which tells the workload, as the file itself would.
                let _ = io::copy(&mut from, &mut to);
            };
            let thread = thread::Builder::new().name("stdio".to_owned()).spawn(copy);
            self.running.push(thread.map_err(IsolationError::host("start a thread"))?);
        }
        Ok(())
    }

    /// Waits until everything is copied: the container's last process has ended.
    pub(crate) fn finish(&mut self) {
        for thread in self.running.drain(..) {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

fn is_anonymous_pipe(stream: BorrowedFd) -> bool {
    fstatfs(stream).is_ok_and(|fs| fs.filesystem_type().0 == PIPEFS_MAGIC)
}

/// Whether the workload's user has no trouble with the stream: it is theirs or everybody's, or
/// nothing that can be opened at all, such as a socket.
fn can_be_opened(stream: BorrowedFd, uid: u32) -> bool {
    let Ok(status) = fstat(stream) else { return true };
    let kind = SFlag::from_bits_truncate(status.st_mode & SFlag::S_IFMT.bits());
    let named = [SFlag::S_IFREG, SFlag::S_IFCHR, SFlag::S_IFIFO].contains(&kind);
    !named || status.st_uid == uid || status.st_mode & 0o002 != 0
}

fn same_file(one: BorrowedFd, other: BorrowedFd) -> bool {
    match (fstat(one), fstat(other)) {
        (Ok(one), Ok(other)) => (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn only_pipes_without_a_name_change_their_owner() {
        if !geteuid().is_root() {
            return; // nothing can be given away
        }
        let owner = |stream: BorrowedFd| fstat(stream).unwrap().st_uid;
        let (mut reader, writer) = io::pipe().unwrap();
        give(&writer, 1234);
        assert_eq!(owner(writer.as_fd()), 1234);
        assert!(can_be_opened(writer.as_fd(), 1234) && !can_be_opened(writer.as_fd(), 1235));
        drop(writer);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);

        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = File::options().read(true).write(true).open(fifo).unwrap();
        let file = File::create(dir.path().join("file")).unwrap();
        let null = File::open("/dev/null").unwrap();
        for (stream, opens) in [(&fifo, false), (&file, false), (&null, true)] {
            let before = owner(stream.as_fd());
            give(stream, 1234);
            assert_eq!(stream.metadata().unwrap().uid(), before);
            assert_eq!(can_be_opened(stream.as_fd(), 1234), opens);
        }
        assert!(same_file(file.as_fd(), file.try_clone().unwrap().as_fd()));
        assert!(!same_file(file.as_fd(), null.as_fd()));
    }
}
