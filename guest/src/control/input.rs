//! Standard input on its way to a process of the guest.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};

use isolab_protocol::ProcessId;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;

use super::session::Session;
use crate::threads;

/// Bytes read at a time.
const PIECE: usize = 32 << 10;

/// A thread that passes standard input on. It ends at the end of the input, when the process takes no
/// more, and when this is dropped.
#[derive(Debug)]
pub(super) struct Input {
    /// The thread polls its other end.
    _dropped: PipeWriter,
}

impl Input {
    pub fn start(session: Session, process: ProcessId, source: OwnedFd) -> io::Result<Self> {
        let (dropped, writer) = io::pipe()?;
        let feed = move || {
            // Whatever fails here, the process finds its input at its end.
            if feed(&session, process, &source, &dropped).is_ok() {
                let _ = session.end_stdin(process);
            }
        };
        threads::builder("stdin").spawn(feed)?;
        Ok(Self { _dropped: writer })
    }
}

/// # Errors
/// The process takes no more, or nobody wants it to.
fn feed(
    session: &Session,
    process: ProcessId,
    source: &OwnedFd,
    dropped: &PipeReader,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        wait(source, dropped)?;
        match read(source, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => session.stdin(process, &buffer[..count])?,
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Waits until there is input, or `dropped` is closed.
fn wait(source: impl AsFd, dropped: &PipeReader) -> io::Result<()> {
    let fds = [source.as_fd(), dropped.as_fd()];
    let mut fds = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) if fds[1].any() == Some(true) => return Err(io::ErrorKind::BrokenPipe.into()),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
