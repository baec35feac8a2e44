//! The control socket in the file system.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{Mode, fchmod};

/// A socket that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another machine's, most likely.
    #[error("api-socket: {0} is in use by another process; choose another path")]
    InUse(PathBuf),
    /// Something else has the name.
    #[error("api-socket: {0} exists and is not a socket; choose another path")]
    NotASocket(PathBuf),
    /// The host refused.
    #[error("api-socket: cannot make {path}")]
    Host {
        /// Where.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// A listening socket that only its owner can connect to. Its file goes when it is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: what is removed must be what was made.
    file: Option<(u64, u64)>,
}

impl Socket {
    /// Makes the socket at `path`, in place of one that nobody listens on any more.
    ///
    /// # Errors
    /// [`SocketError`]; nothing that exists has been touched.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let host = |source: Errno| SocketError::Host { path: path.into(), source: source.into() };
        let listener = match bind_private(path) {
            Err(Errno::EADDRINUSE) => {
                remove_abandoned(path)?;
                bind_private(path).map_err(host)?
            }
            other => other.map_err(host)?,
        };
        let file = fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
        Ok(Self { listener, path: path.into(), file })
    }

    /// Accepts connections.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let file = fs::symlink_metadata(&self.path).map(|meta| (meta.dev(), meta.ino())).ok();
        if file == self.file {
            // It may be gone already; then there is nothing to remove.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn new_socket(flags: SockFlag) -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)
}

fn bind_private(path: &Path) -> Result<UnixListener, Errno> {
    let address = UnixAddr::new(path)?;
    let fd = new_socket(SockFlag::empty())?;
    // Before it is bound: Linux gives the file the socket's mode, so nobody else can connect even
    // for a moment.
    fchmod(fd.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &address)?;
    listen(&fd, Backlog::new(64)?)?;
    Ok(fd.into())
}

/// Removes a socket that a process left behind when it was killed.
fn remove_abandoned(path: &Path) -> Result<(), SocketError> {
    let host = |source: io::Error| SocketError::Host { path: path.into(), source };
    let is_socket = fs::symlink_metadata(path).map_err(host)?.file_type().is_socket();
    if !is_socket {
        return Err(SocketError::NotASocket(path.into()));
    }
    let connected = UnixAddr::new(path).and_then(|address| {
        // Not blocking, lest a stranger's full backlog holds us up.
        let fd = new_socket(SockFlag::SOCK_NONBLOCK)?;
        connect(fd.as_raw_fd(), &address)
    });
    match connected {
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(host),
        _ => Err(SocketError::InUse(path.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn only_the_owner_may_connect_and_the_file_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        let socket = Socket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        let _first = Socket::bind(&path).unwrap();
        assert!(matches!(Socket::bind(&path), Err(SocketError::InUse(_))));
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(Socket::bind(&file), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        let long = dir.path().join("x".repeat(200));
        assert!(matches!(Socket::bind(&long), Err(SocketError::Host { .. })));
    }

    #[test]
    fn an_abandoned_socket_is_replaced_and_a_strangers_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = Socket::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _stranger = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists(), "the file was not ours any more");
    }
}
