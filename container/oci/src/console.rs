//! Terminals: their masters go to the caller over a Unix socket (runc's docs/terminals.md), as SCM_RIGHTS.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

/// Whether there is a terminal has to agree with whether somebody takes it.
pub fn check(terminal: bool, socket: Option<&PathBuf>) -> Result<()> {
    match (terminal, socket) {
        (true, None) => bail!("process.terminal needs --console-socket, which takes its master"),
        (false, Some(_)) => bail!("--console-socket needs process.terminal"),
        _ => Ok(()),
    }
}

/// Sends a terminal's master.
pub fn send(socket: &Path, master: OwnedFd) -> Result<()> {
    let words = || format!("cannot send the terminal to {}", socket.display());
    let stream = UnixStream::connect(socket).with_context(words)?;
    // What the message says is for people; runc sends the slave's name.
    let parts = [IoSlice::new(b"/dev/pts/ptmx")];
    let descriptors = [master.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(stream.as_raw_fd(), &parts, &rights, flags, None).with_context(words)?;
    Ok(())
}
