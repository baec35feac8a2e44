//! Our standard input on its way to a machine's workload.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::thread;

use isolab_guest::control::Sender;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::read;

use crate::error::IsolationError;

/// A thread that passes standard input on. It ends at the end of the input, when the workload takes
/// no more, and when this is dropped.
pub(super) struct Feed {
    /// The thread polls its other end.
    _dropped: PipeWriter,
}

impl Feed {
    pub(super) fn start(sender: Sender) -> Result<Self, IsolationError> {
        let (dropped, writer) = io::pipe().map_err(IsolationError::host("make a pipe"))?;
        let thread = thread::Builder::new().name("stdin".to_owned());
        thread
            .spawn(move || {
                // Whatever fails here, the workload finds its input at its end.
                if feed(&sender, &dropped).is_ok() {
                    let _ = sender.end_stdin();
                }
            })
            .map_err(IsolationError::host("start a thread"))?;
        Ok(Self { _dropped: writer })
    }
}

/// # Errors
/// The workload takes no more, or nobody wants it to.
fn feed(sender: &Sender, dropped: &PipeReader) -> io::Result<()> {
    let stdin = io::stdin();
    let mut buffer = [0; 4096];
    loop {
        wait(stdin.as_fd(), dropped)?;
        // Not by std, in whose buffer input could be that poll does not see.
        match read(&stdin, &mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => sender.stdin(&buffer[..count])?,
            Err(Errno::EINTR) => {}
            Err(_) => return Ok(()),
        }
    }
}

/// Waits until there is input, or `dropped` is closed.
fn wait(stdin: impl AsFd, dropped: &PipeReader) -> io::Result<()> {
    let fds = [stdin.as_fd(), dropped.as_fd()];
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
