//! The host's side: a Unix socket on which programs say `CONNECT port`, and sockets of theirs
//! that the guest's connections are passed to, as Firecracker and Cloud Hypervisor have it; or a peer
//! in this process, which has no name that others could find.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use crate::backend::unix_socket::{Access, Socket, SocketError};
use crate::eintr::retry;

/// Who gives the path.
const OPTION: &str = "vsock";

/// The longest line: `CONNECT 4294967295`, and some blanks.
const MAX_LINE: usize = 32;

/// The socket that programs of the host connect to. Removed with it.
pub struct Listener(Socket);

impl Listener {
    /// Makes the socket.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let socket = Socket::bind(OPTION, path, Access::Umask)?;
        socket.listener().set_nonblocking(true).map_err(|source| SocketError::Host {
            option: OPTION,
            path: path.to_owned(),
            source,
        })?;
        Ok(Self(socket))
    }

    pub fn fd(&self) -> RawFd {
        self.0.listener().as_raw_fd()
    }

    /// The next program that connected; `None` when there is none for now.
    pub fn accept(&self) -> Option<UnixStream> {
        // ECONNABORTED and the like concern that program only.
        let (stream, _) = self.0.listener().accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    }

    /// Connects to the program that serves `port`, at the listener's path with `_port` behind.
    ///
    /// # Errors
    /// Nobody is there, or it has no room: the guest must not wait for it.
    pub fn connect(&self, port: u32) -> io::Result<UnixStream> {
        let mut path = OsString::from(self.0.path());
        path.push(format!("_{port}"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(Path::new(&path))?)?;
        Ok(fd.into())
    }
}

/// What serves one port of the host from within this process, for one connection.
pub struct Peer {
    /// The port.
    pub port: u32,
    /// Where the connection leads.
    pub stream: UnixStream,
}

/// Whom the guest can talk to.
pub struct Host {
    listener: Option<Listener>,
    /// Until the guest has connected.
    peer: Option<Peer>,
}

impl Host {
    /// Programs that know of `listener`, and `peer`.
    ///
    /// # Errors
    /// The peer's stream cannot be made non-blocking.
    pub fn new(listener: Option<Listener>, peer: Option<Peer>) -> io::Result<Self> {
        peer.iter().try_for_each(|peer| peer.stream.set_nonblocking(true))?;
        Ok(Self { listener, peer })
    }

    /// What to watch for callers, where there can be any.
    pub fn fd(&self) -> Option<RawFd> {
        self.listener.as_ref().map(Listener::fd)
    }

    /// See [`Listener::accept`].
    pub fn accept(&self) -> Option<UnixStream> {
        self.listener.as_ref()?.accept()
    }

    /// The peer if the port is its own, else as [`Listener::connect`].
    ///
    /// # Errors
    /// Nobody serves the port.
    pub fn connect(&mut self, port: u32) -> io::Result<UnixStream> {
        if let Some(peer) = self.peer.take_if(|peer| peer.port == port) {
            return Ok(peer.stream);
        }
        let listener = self.listener.as_ref().ok_or(io::ErrorKind::ConnectionRefused)?;
        listener.connect(port)
    }
}

/// A program that has connected and not yet said where to.
pub struct Caller {
    stream: UnixStream,
    line: Vec<u8>,
}

/// What came from a [`Caller`].
pub enum Received {
    /// The line is not complete.
    Waiting(Caller),
    /// Where to, and what came behind the line.
    Connect(u32, UnixStream, Vec<u8>),
    /// Nonsense, or gone.
    Nothing,
}

impl Caller {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, line: Vec::new() }
    }

    /// Reads what is there.
    pub fn receive(mut self) -> Received {
        loop {
            let mut bytes = [0; MAX_LINE];
            match retry(|| self.stream.read(&mut bytes)) {
                Ok(0) => return Received::Nothing,
                Ok(length) => self.line.extend(&bytes[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Received::Waiting(self);
                }
                Err(_) => return Received::Nothing,
            }
            if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                let early = self.line.split_off(end + 1);
                return match parse(&self.line[..end]) {
                    Some(port) => Received::Connect(port, self.stream, early),
                    None => Received::Nothing,
                };
            }
            if self.line.len() > MAX_LINE {
                return Received::Nothing;
            }
        }
    }
}

fn parse(line: &[u8]) -> Option<u32> {
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    let known = words.next()?.eq_ignore_ascii_case("connect");
    let port = words.next()?.parse().ok()?;
    (known && words.next().is_none()).then_some(port)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn say(text: &[u8]) -> Received {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.write_all(text).unwrap();
        Caller::new(ours).receive()
    }

    #[test]
    fn a_line_names_a_port_and_what_follows_is_data() {
        for (text, port, rest) in [
            (&b"CONNECT 52\n"[..], 52, &b""[..]),
            (b"connect 4294967295 \r\nhello", u32::MAX, b"hello"),
        ] {
            let Received::Connect(named, _, early) = say(text) else { panic!("{text:?}") };
            assert_eq!((named, &early[..]), (port, rest));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let endless = [b'x'; 100];
        for text in [
            &b"\n"[..],
            b"CONNECT\n",
            b"CONNECT x\n",
            b"CONNECT -1\n",
            b"CONNECT 4294967296\n",
            b"CONNECT 1 2\n",
            b"GET / HTTP/1.1\n",
            b"\xFF\xFE 1\n",
            &endless,
        ] {
            assert!(matches!(say(text), Received::Nothing), "{text:?}");
        }
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut caller = Caller::new(ours);
        for piece in [&b"CON"[..], b"NECT ", b"5"] {
            theirs.write_all(piece).unwrap();
            let Received::Waiting(waiting) = caller.receive() else { panic!("{piece:?}") };
            caller = waiting;
        }
        theirs.write_all(b"2\nx").unwrap();
        assert!(matches!(caller.receive(), Received::Connect(52, _, early) if early == b"x"));
    }

    #[test]
    fn a_peer_is_reached_once_and_by_its_port_only() {
        let (stream, mut theirs) = UnixStream::pair().unwrap();
        let mut host = Host::new(None, Some(Peer { port: 7, stream })).unwrap();
        assert!(host.fd().is_none() && host.accept().is_none());
        assert_eq!(host.connect(8).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let mut stream = host.connect(7).unwrap();
        stream.write_all(b"x").unwrap();
        theirs.read_exact(&mut [0]).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(host.connect(7).is_err());
    }

    #[test]
    fn the_socket_is_made_once_and_removed_and_an_abandoned_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("v.sock");
        drop(UnixListener::bind(&path).unwrap());
        let listener = Listener::bind(&path).unwrap();
        assert!(matches!(Listener::bind(&path), Err(SocketError::InUse { option: "vsock", .. })));
        assert!(listener.connect(1).is_err());
        let _server = UnixListener::bind(directory.path().join("v.sock_1")).unwrap();
        assert!(listener.connect(1).is_ok());
        drop(listener);
        assert!(!path.exists());
    }
}
