//! Listening on an instance's socket.
//!
//! Each client has a thread, of which there are so many and no more. None is waited for: what a client
//! does not read or send in time is the end of its connection.

use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{Backlog, UnixAddr, bind, getsockopt, listen, sockopt};
use nix::sys::stat::Mode;

use super::served::Served;
use crate::error::InstanceError;
use crate::protocol::{Channel, Envelope, Reply, VERSION, new_socket};

/// In the instance's folder.
pub(crate) const SOCKET: &str = "socket";
/// How many clients there may be at once.
const MAX_CLIENTS: usize = 64;
/// How long a client may take to say what it wants, and to take an answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Listens on the socket in `folder`, on a thread of its own.
///
/// # Errors
/// The socket cannot be made.
pub(super) fn serve(folder: &Path, served: &Served) -> Result<(), InstanceError> {
    let path = folder.join(SOCKET);
    let io = |errno: Errno| InstanceError::Io {
        action: "listen on",
        path: path.clone(),
        source: errno.into(),
    };
    // The lock is ours, and so is what a killed owner left. Where it cannot be removed, bind(2) says so.
    let _ = fs::remove_file(&path);
    let socket = new_socket().map_err(io)?;
    // A path may be longer than an address is; the folder's is short this way.
    let opened = open(folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(io)?;
    let short = format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd());
    // Nobody but us enters the folder (0700) before the socket's own mode is set.
    bind(socket.as_raw_fd(), &UnixAddr::new(short.as_str()).map_err(io)?).map_err(io)?;
    let mode = fs::set_permissions(&path, Permissions::from_mode(0o600));
    mode.map_err(|source| InstanceError::Io { action: "protect", path: path.clone(), source })?;
    listen(&socket, Backlog::new(16).map_err(io)?).map_err(io)?;
    let served = served.clone();
    let thread = thread::Builder::new().name("server".to_owned());
    let thread = thread.spawn(move || accept(&UnixListener::from(socket), &served));
    thread.map(drop).map_err(InstanceError::host("start a thread"))
}

/// Takes clients until the process ends. std's listener asks for no kind of socket, and makes what it accepts
/// close-on-exec.
fn accept(listener: &UnixListener, served: &Served) {
    let clients = Arc::new(AtomicUsize::new(0));
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => OwnedFd::from(client),
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                // Out of descriptors: some of the clients will go.
                Some(Errno::EMFILE | Errno::ENFILE) => {
                    thread::sleep(Duration::from_millis(100));
                    continue;
                }
                Some(Errno::ECONNABORTED) => continue,
                _ => return,
            },
        };
        if !is_ours(&client) {
            continue;
        }
        let channel = Channel::new(client);
        if channel.set_timeouts(Some(TIMEOUT), Some(TIMEOUT)).is_err() {
            continue;
        }
        let place = Place::take(&clients);
        if place.number > MAX_CLIENTS {
            let why = format!("{MAX_CLIENTS} commands are at it already");
            channel.reply(&Reply::Failed { code: 125, why }, &[]);
            continue;
        }
        let served = served.clone();
        let body = move || {
            answer(&channel, &served);
            drop(place);
        };
        // Without a thread for it, the client hears that its connection is closed.
        drop(thread::Builder::new().name("client".to_owned()).spawn(body));
    }
}

/// One of the clients that there are at once, until it is dropped.
struct Place {
    clients: Arc<AtomicUsize>,
    number: usize,
}

impl Place {
    fn take(clients: &Arc<AtomicUsize>) -> Self {
        let number = clients.fetch_add(1, Ordering::SeqCst) + 1;
        Self { clients: Arc::clone(clients), number }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::SeqCst);
    }
}

fn answer(channel: &Channel, served: &Served) {
    let failed = |why: String| channel.reply(&Reply::Failed { code: 125, why }, &[]);
    match channel.receive::<Envelope>() {
        Ok(Some((Envelope { version: VERSION, request }, fds))) => {
            served.answer(channel, request, fds);
        }
        Ok(Some((Envelope { version, .. }, _))) => {
            failed(format!("a request of version {version}, not {VERSION}"));
        }
        Ok(None) => {}
        Err(error) => failed(format!("a malformed request: {error}")),
    }
}

/// Whether a client is us, or root: the socket's mode says so already.
fn is_ours(client: &OwnedFd) -> bool {
    let uid = getsockopt(client, sockopt::PeerCredentials).map(|credentials| credentials.uid());
    uid.is_ok_and(|uid| uid == 0 || uid == nix::unistd::geteuid().as_raw())
}
