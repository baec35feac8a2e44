//! Network namespaces (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::NetworkError;
use crate::link::Links;

/// net/net_namespace.h: the first link of each namespace.
const LOOPBACK: u32 = 1;

/// Runs `act` in a network namespace: on a thread of its own, which ends in there, so that no other code
/// of ours is ever in it by mistake.
///
/// # Errors
/// The namespace cannot be entered, which takes CAP_SYS_ADMIN, or what `act` says.
pub fn in_namespace<T: Send>(
    namespace: impl AsFd,
    act: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    let namespace = namespace.as_fd();
    on_thread(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(NetworkError::kernel("enter", "a network namespace"))?;
        act()
    })
}

/// A new network namespace, with a loopback interface that is up. It exists as long as the descriptor,
/// or who is in it.
///
/// # Errors
/// It takes CAP_SYS_ADMIN.
pub fn new_namespace() -> Result<OwnedFd, NetworkError> {
    on_thread(|| {
        let made = unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        made.map_err(NetworkError::kernel("make", "a network namespace"))?;
        Links::new().bring_up(LOOPBACK, "lo")?;
        let path = "/proc/thread-self/ns/net";
        File::open(path).map(OwnedFd::from).map_err(NetworkError::io("open", path))
    })
}

fn on_thread<T: Send>(
    act: impl FnOnce() -> Result<T, NetworkError> + Send,
) -> Result<T, NetworkError> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, act);
        let thread = thread.map_err(NetworkError::kernel("start", "a thread"))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
