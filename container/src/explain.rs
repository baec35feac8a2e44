//! What failed between clone and execve, from the child's numbers to an operator's words.

use nix::errno::Errno;
use nix::sched::CloneFlags;

use crate::error::Error;
use crate::step::{Failure, Parts, Step};

/// The error that a failure of the child is to the caller.
pub(crate) fn setup(id: &str, plan: &impl Parts, failure: Failure) -> Error {
    let part = plan.part(failure.step, failure.index as usize);
    match (failure.step, failure.errno) {
        (Step::Exec, Errno::ENOENT | Errno::ENOTDIR) => Error::CommandNotFound { command: part },
        (Step::Exec, errno) => Error::CommandNotExecutable { command: part, source: errno.into() },
        // Of a change of propagation, EINVAL says just that (mount(2)).
        (Step::Propagation, Errno::EINVAL) => Error::RootNotMounted { id: id.to_owned() },
        (step, errno) => Error::Setup {
            id: id.to_owned(),
            attempt: step.attempt(failure.index, &part),
            source: errno.into(),
        },
    }
}

/// The error that a failed clone is, with what an operator can do about it.
pub(crate) fn clone(errno: Errno, namespaces: CloneFlags) -> Error {
    let hint = match errno {
        Errno::EPERM if namespaces.contains(CloneFlags::CLONE_NEWUSER) => {
            " (are unprivileged user namespaces allowed here? see sysctl kernel.unprivileged_userns_clone, \
             kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces)"
        }
        Errno::EPERM => " (run as root, or configure a user namespace)",
        Errno::ENOSPC => " (a limit of user.max_*_namespaces is reached)",
        Errno::EAGAIN => " (a process limit is reached)",
        _ => "",
    };
    Error::host(format!("clone a process into new namespaces {namespaces:?}{hint}"), errno)
}
