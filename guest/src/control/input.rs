//! Standard input on its way to a process of the guest.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;

use crate::threads;

/// Bytes read at a time.
const PIECE: usize = 64 << 10;

/// Where an input goes.
pub(super) trait Taker: Send + 'static {
    /// Takes a piece of it, waiting for room.
    ///
    /// # Errors
    /// Nobody takes any more.
    fn take(&self, piece: &[u8]) -> io::Result<()>;

    /// Hears that it has ended.
    fn end(&self);
}

/// A thread that passes standard input on. It ends at the end of the input, when nobody takes any
/// more, and when this is dropped.
#[derive(Debug)]
pub(super) struct Input {
    /// The thread polls its other end.
    _dropped: PipeWriter,
}

impl Input {
    pub fn start(source: OwnedFd, taker: impl Taker) -> io::Result<Self> {
        let (dropped, writer) = io::pipe()?;
        let feed = move || {
            // Whatever fails here, the process finds its input at its end.
            if feed(&source, &taker, &dropped).is_ok() {
                taker.end();
            }
        };
        threads::builder("stdin").spawn(feed)?;
        Ok(Self { _dropped: writer })
    }
}

/// # Errors
/// Nobody takes any more, or nobody wants anybody to.
fn feed(source: &OwnedFd, taker: &impl Taker, dropped: &PipeReader) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        wait(source, dropped)?;
        match read(source, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => taker.take(&buffer[..count])?,
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
