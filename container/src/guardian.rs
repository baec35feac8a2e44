//! The guardian of a container: a process of ours outside of it, which ends the container when the runtime that made
//! it is no more.
//!
//! PR_SET_PDEATHSIG alone does not do: the program can clear it (prctl(2)), and lives on when the runtime is killed.
//! The guardian has nothing that the program could change. It is in a session of its own, blocks every signal that can
//! be blocked, and has a name of its own, so that what ends the runtime by its group or name leaves it alone. It
//! holds no stream of the caller, and sleeps until the runtime ends; a runtime that is done takes it along.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, getpid};

use crate::cgroup::remove_cgroups;
use crate::descriptors;
use crate::error::{Error, Result};
use crate::pidfd;

/// Its name in ps(1). Without "isolab": `pkill isolab` takes a part of a name for a match.
const NAME: &std::ffi::CStr = c"guardian";

/// How often it tries to remove a cgroup that has processes which SIGKILL does not end at once.
const ATTEMPTS: u32 = 60;

/// What is ended and removed when the caller is killed.
pub(crate) struct Ward<'a> {
    /// The container's first process, a pidfd.
    pub process: BorrowedFd<'a>,
    pub cgroups: Vec<PathBuf>,
    /// Kept open, for its lock.
    pub lock: Option<BorrowedFd<'a>>,
}

/// A running guardian. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Guardian {
    pidfd: OwnedFd,
}

impl Guardian {
    /// Forks the guardian. `ward.process` must not have begun its program yet.
    pub(crate) fn start(ward: Ward) -> Result<Self> {
        let attempt = |attempt: &'static str| move |errno: Errno| Error::host(attempt, errno);
        let runtime =
            pidfd::open(getpid()).map_err(attempt("open our own process (pidfd_open)"))?;
        let null = File::options().read(true).write(true).open("/dev/null");
        let null = null.map_err(|source| Error::host("open /dev/null", source))?;
        // No signal handler of ours may run in it, and none that comes may end it.
        let mut mask = SigSet::empty();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut mask))
            .map_err(attempt("block signals"))?;
        // SAFETY: the C library's fork leaves its allocator usable in the child of a process with threads. `guard` takes
        // no other lock of this process: it uses its own stack and heap, system calls and files; and it never returns.
        let forked = unsafe { fork() };
        if let Ok(ForkResult::Child) = forked {
            guard(&ward, runtime.as_fd(), &null);
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None)
            .map_err(attempt("restore the signal mask"))?;
        match forked.map_err(attempt("fork the container's guardian"))? {
            ForkResult::Parent { child } => {
                let pidfd =
                    pidfd::open(child).map_err(attempt("open the guardian (pidfd_open)"))?;
                Ok(Guardian { pidfd })
            }
            // Above.
            ForkResult::Child => Err(Error::host("guard the container", Errno::ECHILD)),
        }
    }
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // It cannot refuse, and its exit says nothing. A caller that ignores SIGCHLD has nothing to reap.
        if pidfd::send(&self.pidfd, libc::SIGKILL).is_ok() {
            while let Err(Errno::EINTR) =
                waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED)
            {}
        }
    }
}

/// The guardian's whole life.
fn guard(ward: &Ward, runtime: BorrowedFd, null: &File) -> ! {
    // What fails here leaves less than there might be, and nobody is left to be told.
    let _ = nix::unistd::setsid();
    let _ = prctl::set_name(NAME);
    let _ = dup2_stdin(null).and_then(|()| dup2_stdout(null)).and_then(|()| dup2_stderr(null));
    let kept = [Some(runtime), Some(ward.process), ward.lock];
    let mut keep: Vec<RawFd> = kept.iter().flatten().map(AsRawFd::as_raw_fd).collect();
    keep.sort_unstable();
    let _ = descriptors::close_all_but(&keep);
    // Neither the folder nor its file system is held.
    let _ = nix::unistd::chdir("/");

    let _ = pidfd::wait(runtime, PollTimeout::NONE);
    let _ = pidfd::send(ward.process, libc::SIGKILL);
    for _ in 0..ATTEMPTS {
        if remove_cgroups(&ward.cgroups).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    // Until then the lock says that the container has an owner.
    let _ = pidfd::wait(ward.process, PollTimeout::NONE);
    // SAFETY: ends this process without running what the runtime wants to be run at its own end.
    unsafe { libc::_exit(0) }
}
