//! Network namespaces (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::process;

use nix::sched::{CloneFlags, setns, unshare};

use crate::error::NetworkError;
use crate::link::Links;

/// net/net_namespace.h: the first link of each namespace.
const LOOPBACK: u32 = 1;

/// Runs `act` in a network namespace, where nobody but the calling thread is meanwhile.
///
/// # Errors
/// The namespace cannot be entered, which takes CAP_SYS_ADMIN, or what `act` says.
pub fn in_namespace<T>(
    namespace: impl AsFd,
    act: impl FnOnce() -> Result<T, NetworkError>,
) -> Result<T, NetworkError> {
    let entered = Away::by(|| setns(namespace, CloneFlags::CLONE_NEWNET));
    let _away = entered?.map_err(NetworkError::kernel("enter", "a network namespace"))?;
    act()
}

/// Brings up the loopback interface of a network namespace that somebody else has made.
///
/// # Errors
/// As [`in_namespace`], or the kernel's.
pub fn bring_up_loopback(namespace: impl AsFd) -> Result<(), NetworkError> {
    in_namespace(namespace, || Links::new().bring_up(LOOPBACK, "lo"))
}

/// A new network namespace, with a loopback interface that is up. It exists as long as the descriptor,
/// or who is in it.
///
/// # Errors
/// It takes CAP_SYS_ADMIN.
pub fn new_namespace() -> Result<OwnedFd, NetworkError> {
    let made = Away::by(|| unshare(CloneFlags::CLONE_NEWNET));
    let _away = made?.map_err(NetworkError::kernel("make", "a network namespace"))?;
    Links::new().bring_up(LOOPBACK, "lo")?;
    own_namespace()
}

fn own_namespace() -> Result<OwnedFd, NetworkError> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map(OwnedFd::from).map_err(NetworkError::io("open", path))
}

/// The calling thread is in another network namespace, until this is dropped. A thread made for it would cost a start
/// a quarter of a millisecond.
struct Away {
    home: OwnedFd,
    /// Another thread is not away.
    _not_send: PhantomData<*const ()>,
}

impl Away {
    /// Leaves by `leave`, which says whether it did.
    fn by(leave: impl FnOnce() -> nix::Result<()>) -> Result<io::Result<Self>, NetworkError> {
        let home = own_namespace()?;
        // Root of a user namespace that has no network namespace of its own could not come back.
        setns(&home, CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(NetworkError::kernel("enter", "our own network namespace"))?;
        Ok(leave().map_err(io::Error::from).map(|()| Self { home, _not_send: PhantomData }))
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        // It was tried. Should it fail all the same, no code of ours goes on elsewhere by mistake.
        if setns(&self.home, CloneFlags::CLONE_NEWNET).is_err() {
            process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn here() -> u64 {
        std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
    }

    #[test]
    fn as_root_whoever_was_away_is_back_home_whatever_happened() {
        let home = here();
        let made = new_namespace().unwrap();
        assert_eq!(here(), home);
        let there = in_namespace(&made, || Ok(here())).unwrap();
        assert_ne!(there, home);
        assert_eq!(there, File::from(made.try_clone().unwrap()).metadata().unwrap().ino());
        let failed = || Links::new().bring_up(77, "nobody");
        assert!(in_namespace(&made, failed).is_err());
        assert_eq!(here(), home);
        let panicked = std::panic::catch_unwind(|| {
            in_namespace(&made, || -> Result<(), NetworkError> { panic!("away") })
        });
        assert!(panicked.is_err());
        assert_eq!(here(), home);
    }
}
