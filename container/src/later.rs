//! Starting a container from another process than the one that made it.
//!
//! Its first process waits with a listening socket in place of its end of the channel. Whoever connects takes the
//! maker's place: gives the word, and hears what became of it. One that goes away without a word changes nothing.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use oci_spec::runtime::Process;

use crate::channel::{self, Command, Report};
use crate::error::{Error, Result};
use crate::explain;
use crate::process::plan::ProcessPlan;

/// The socket of a container that is to be started later; its name at `path`, which must not exist and has 107 bytes
/// at most (unix(7)).
///
/// # Errors
/// The path is too long or taken, or cannot be written to.
pub fn start_socket(path: &Path) -> Result<OwnedFd> {
    let made = || {
        let socket = new_socket()?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&socket, Backlog::new(1)?)?;
        Ok(socket)
    };
    made().map_err(|errno: Errno| Error::host(format!("listen at {}", path.display()), errno))
}

/// Starts the container that waits at `path`. `process`: what it was made with.
///
/// # Errors
/// As [`Instance::start`](crate::Instance::start); nobody waits there.
pub fn start_at(id: &str, path: &Path, process: &Process) -> Result<()> {
    let plan = ProcessPlan::new(process, true)?;
    let connected = || {
        let socket = new_socket()?;
        connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        channel::send(&socket, Command::Start)?;
        Ok(socket)
    };
    let failed = |errno: Errno| Error::host(format!("start container {id}"), errno);
    let socket = connected().map_err(failed)?;
    match channel::receive(&socket).map_err(failed)? {
        Report::Closed => Ok(()),
        Report::Failed(failure) => Err(explain::setup(id, &plan, failure)),
        _ => Err(failed(Errno::EPROTO)),
    }
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

/// Child: waits for somebody who starts it, and puts them at the other end of the channel. A maker that is killed before
/// others know of the container takes it along.
pub(crate) fn await_start(listener: &OwnedFd, child_end: RawFd) -> Result<(), Errno> {
    channel::await_command(child_end, Command::Known)?;
    loop {
        let flags = libc::SOCK_CLOEXEC;
        // SAFETY: without an address the kernel writes none.
        let accepted = unsafe {
            libc::accept4(listener.as_raw_fd(), std::ptr::null_mut(), std::ptr::null_mut(), flags)
        };
        let connection = match Errno::result(accepted) {
            Err(Errno::EINTR | Errno::ECONNABORTED) => continue,
            // SAFETY: a new descriptor that nobody else owns.
            accepted => unsafe { OwnedFd::from_raw_fd(accepted?) },
        };
        // SAFETY: the child's end of the channel, which is its own and stays open, now as another file.
        let moved = unsafe { libc::dup3(connection.as_raw_fd(), child_end, libc::O_CLOEXEC) };
        Errno::result(moved)?;
        drop(connection);
        match channel::await_command(child_end, Command::Start) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => {}
            other => return other,
        }
    }
}
