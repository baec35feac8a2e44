//! A listening Unix socket in the file system: the control socket's and vsock's. One that a killed
//! process left behind is replaced, as systemd's and QEMU's are; whatever else has the name is left
//! alone.

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

use super::handover;

/// A socket that cannot be made. `option` is what the operator gave the path to.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another machine's, most likely.
    #[error("{option}: {} is in use by another process; choose another path", path.display())]
    InUse {
        /// Whose path it is.
        option: &'static str,
        /// Path of the socket, as it was given.
        path: PathBuf,
    },
    /// Something else has the name.
    #[error("{option}: {} exists and is not a socket; choose another path", path.display())]
    NotASocket {
        /// Whose path it is.
        option: &'static str,
        /// Path of the socket, as it was given.
        path: PathBuf,
    },
    /// The host refused to bind, or to listen.
    #[error("{option}: cannot make {}", path.display())]
    Host {
        /// Whose path it is.
        option: &'static str,
        /// Path of the socket, as it was given.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// Who may connect, by the socket file's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its owner only: mode 0600.
    Owner,
    /// Whom the process's umask lets.
    Umask,
}

/// A listening socket. Its file goes when it is dropped.
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
    /// [`SocketError`], which names `option`; nothing that exists has been touched.
    pub fn bind(option: &'static str, path: &Path, access: Access) -> Result<Self, SocketError> {
        let is_taken = |error: &SocketError| matches!(error, SocketError::InUse { .. });
        handover::take(|| Self::try_bind(option, path, access), is_taken)
    }

    fn try_bind(option: &'static str, path: &Path, access: Access) -> Result<Self, SocketError> {
        let host = |source: Errno| {
            let source = source.into();
            SocketError::Host { option, path: path.into(), source }
        };
        let listener = match bind_as(path, access) {
            Err(Errno::EADDRINUSE) => {
                remove_abandoned(option, path)?;
                bind_as(path, access).map_err(host)?
            }
            other => other.map_err(host)?,
        };
        let file = identity(path).ok();
        Ok(Self { listener, path: path.into(), file })
    }

    /// Where the socket is, as the operator named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening socket, to accept connections from.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if identity(&self.path).ok() == self.file {
            // It may be gone already; then there is nothing to remove.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

fn new_socket(flags: SockFlag) -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)
}

fn bind_as(path: &Path, access: Access) -> Result<UnixListener, Errno> {
    let address = UnixAddr::new(path)?;
    let fd = new_socket(SockFlag::empty())?;
    if access == Access::Owner {
        // Before it is bound: Linux gives the file the socket's mode, so nobody else can connect
        // even for a moment.
        fchmod(fd.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    }
    bind(fd.as_raw_fd(), &address)?;
    listen(&fd, Backlog::new(64)?)?;
    Ok(fd.into())
}

/// Removes a socket that a process left behind when it was killed.
fn remove_abandoned(option: &'static str, path: &Path) -> Result<(), SocketError> {
    let host = |source: io::Error| SocketError::Host { option, path: path.into(), source };
    let found = fs::symlink_metadata(path).map_err(host)?;
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket { option, path: path.into() });
    }
    let connected = UnixAddr::new(path).and_then(|address| {
        // Not blocking, lest a stranger's full backlog holds us up.
        let fd = new_socket(SockFlag::SOCK_NONBLOCK)?;
        connect(fd.as_raw_fd(), &address)
    });
    // Another process may have replaced it since, by the same way as we are about to.
    let is_same = identity(path).is_ok_and(|now| now == (found.dev(), found.ino()));
    match connected {
        Err(Errno::ECONNREFUSED) if is_same => fs::remove_file(path).map_err(host),
        _ => Err(SocketError::InUse { option, path: path.into() }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn bind(path: &Path) -> Result<Socket, SocketError> {
        Socket::bind("test-socket", path, Access::Owner)
    }

    #[test]
    fn only_the_owner_may_connect_and_the_file_goes_with_the_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        let socket = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());

        let umask = Socket::bind("test-socket", &path, Access::Umask).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(umask.path()) & 0o777 & !0o111, mode(&file) & 0o777);
    }

    #[test]
    fn what_is_in_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        let _first = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(SocketError::InUse { .. })));
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(bind(&file), Err(SocketError::NotASocket { .. })));
        assert_eq!(fs::read(&file).unwrap(), b"precious");
        let long = dir.path().join("x".repeat(200));
        assert!(matches!(bind(&long), Err(SocketError::Host { .. })));
    }

    #[test]
    fn an_abandoned_socket_is_replaced_and_a_strangers_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let socket = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _stranger = UnixListener::bind(&path).unwrap();
        drop(socket);
        assert!(path.exists(), "the file was not ours any more");
    }
}
