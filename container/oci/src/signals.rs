//! Signals to a runtime that waits are the container's.

use std::os::fd::AsFd;

use anyhow::{Context, Result};
use isolab_container::Handle;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// What a runtime learns about itself and its own children is not passed on.
const OURS: [Signal; 6] = [
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGABRT,
];

/// Signals that wait.
pub struct Blocked(SignalFd);

/// Has signals wait from here on.
pub fn block() -> Result<Blocked> {
    let mut set = SigSet::all();
    OURS.into_iter().for_each(|signal| set.remove(signal));
    set.thread_block().context("cannot block signals")?;
    let waiting = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK);
    waiting.map(Blocked).context("cannot wait for signals")
}

impl Blocked {
    /// Sends them to the container, those that wait first, until its first process has ended.
    pub fn pass_on(self, handle: &Handle) -> Result<()> {
        loop {
            let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
            match poll(&mut [watch(handle.pidfd()), watch(self.0.as_fd())], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno).context("cannot wait for the container"),
            }
            while let Some(signal) = self.0.read_signal().context("cannot read a signal")? {
                // One that finds nobody came too late.
                let _ = handle.signal(signal.ssi_signo as i32);
            }
            if handle.has_ended() {
                return Ok(());
            }
        }
    }
}
