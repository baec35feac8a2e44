//! Making a supervisor: a copy of this process that nothing of its caller's holds.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};

use super::life::{self, Describe};
use crate::error::InstanceError;
use crate::protocol::Channel;

/// The file in the instance's folder that a supervisor's own errors go to.
const ERRORS: &str = "supervisor.log";
/// The first descriptor that is not a standard stream.
const FIRST: RawFd = 3;

/// Starts a supervisor for the instance `name`, whose folder is `folder`; `channel` is its end of the
/// connection to whoever wants the instance started.
///
/// # Errors
/// The host refused a process.
///
/// # Panics
/// Never; but it must not be called when this process has other threads, whose locks the copy would
/// inherit.
pub(crate) fn spawn(
    folder: &Path,
    name: &str,
    channel: Channel,
    describe: Describe,
) -> Result<(), InstanceError> {
    // SAFETY: this process has one thread (our caller's promise), so that no lock is held by another.
    match unsafe { fork() }.map_err(InstanceError::host("make a process"))? {
        ForkResult::Parent { child } => {
            // It ends at once: what is to live is no child of ours.
            waitpid(child, None).map(drop).map_err(InstanceError::host("wait for a process"))
        }
        ForkResult::Child => {
            let code = match detach(folder, channel) {
                Ok(None) => 0,
                Ok(Some(channel)) => life::run(name, channel, describe),
                Err(error) => {
                    // Without it, whoever waits at the other end hears that the supervisor has gone.
                    let _ = writeln!(io::stderr(), "isolab: the supervisor of {name}: {error}");
                    125
                }
            };
            // Neither what our caller would do at its end nor what it still holds is ours.
            // SAFETY: _exit(2) takes a number.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Leaves the caller's session, files and working directory behind. None: the process in between.
fn detach(folder: &Path, channel: Channel) -> io::Result<Option<Channel>> {
    // Before the second fork, so that whoever waits for the first knows that it is done.
    setsid()?;
    // SAFETY: there is one thread still.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        return Ok(None);
    }
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    let mut options = OpenOptions::new();
    let options = options.create(true).append(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let errors = options.open(folder.join(ERRORS))?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&errors)?;
    let socket = OwnedFd::from(channel);
    // What they own is closed below, with the rest.
    std::mem::forget((null, errors));
    close_all_but(socket.as_raw_fd());
    chdir("/")?;
    Ok(Some(Channel::new(socket)))
}

/// Closes what the caller had open, but for the standard streams and `kept`.
fn close_all_but(kept: RawFd) {
    for (first, last) in [(FIRST, kept - 1), (kept + 1, RawFd::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: whoever owned these in the caller's process never runs here: `spawn` does not return in the copy.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if closed < 0 && Errno::last() == Errno::ENOSYS {
            // Before Linux 5.9.
            for descriptor in first..=last.min(1023) {
                // SAFETY: as above.
                unsafe { libc::close(descriptor) };
            }
        }
    }
}
