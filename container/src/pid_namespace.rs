//! Being born in a pid namespace that exists, as is the only way into one by one clone: a process cannot change its
//! own, but where its children are, for a moment. What is in there may be hostile, and sees the clone at once.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;

use crate::error::{Error, Result};

/// While it lives, this process is not dumpable, and its clones never were.
pub(crate) struct Hidden {
    was_dumpable: bool,
    _alone: MutexGuard<'static, ()>,
}

/// What is true of the whole process is changed and restored by one thread at a time.
static HIDING: Mutex<()> = Mutex::new(());

impl Hidden {
    pub(crate) fn new() -> Result<Self> {
        let alone = HIDING.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |errno: Errno| Error::host("hide from ptrace (PR_SET_DUMPABLE)", errno);
        let was_dumpable = prctl::get_dumpable().map_err(failed)?;
        prctl::set_dumpable(false).map_err(failed)?;
        Ok(Hidden { was_dumpable, _alone: alone })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if self.was_dumpable {
            // It was allowed before.
            let _ = prctl::set_dumpable(true);
        }
    }
}

/// While it lives, the calling thread's children are in another pid namespace.
pub(crate) struct ChildrenIn {
    own: File,
}

impl ChildrenIn {
    /// `namespace`: a namespace's file, or a process in it.
    pub(crate) fn new(namespace: BorrowedFd) -> Result<Self> {
        let path = "/proc/thread-self/ns/pid";
        let own = File::open(path).map_err(|source| Error::host(format!("open {path}"), source))?;
        setns(namespace, CloneFlags::CLONE_NEWPID)
            .map_err(|errno| Error::host("enter the container's pid namespace (setns)", errno))?;
        Ok(ChildrenIn { own })
    }
}

impl Drop for ChildrenIn {
    fn drop(&mut self) {
        // To go back to one's own is always allowed to who was allowed to leave (pid_namespaces(7)).
        let _ = setns(&self.own, CloneFlags::CLONE_NEWPID);
    }
}
