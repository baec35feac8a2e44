//! The machine's side of the control socket: a thread that accepts, and one for each of a few
//! connections.
//!
//! Whoever connects can at worst keep other clients out for [`IDLE_LIMIT`]; the machine itself
//! never waits for a client, and memory and threads are bounded.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{Shutdown as Stop, shutdown};
use serde_json::Value;

use super::protocol::{MAX_REQUEST, Reply, Request};
use crate::backend::unix_socket::{Access, Socket, SocketError};
use crate::eintr::retry;
use crate::poison::unpoisoned;
use crate::threads;

/// Who gives the path.
const OPTION: &str = "api-socket";
/// Connections at a time; further ones are told so and closed.
pub const MAX_CONNECTIONS: usize = 8;
/// How long a client may take to send a request.
pub const IDLE_LIMIT: Duration = Duration::from_secs(30);
/// How long a client may take to make room for an answer.
const WRITE_LIMIT: Duration = Duration::from_secs(1);
/// Before another attempt to accept when the host has run out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Does what a request asks for. Called from several threads, also at the same time.
pub type Handler = dyn Fn(Request) -> Result<Value, String> + Send + Sync;

/// Serves a control socket until dropped.
pub struct Server {
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    socket: Socket,
    handler: Box<Handler>,
    idle_limit: Duration,
    stopping: AtomicBool,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

impl Server {
    /// Makes the socket at `path` and answers with `handler`.
    ///
    /// # Errors
    /// The path is taken, or the host refused.
    pub fn start(
        path: &Path,
        handler: impl Fn(Request) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Result<Self, SocketError> {
        Self::with_idle_limit(path, handler, IDLE_LIMIT)
    }

    fn with_idle_limit(
        path: &Path,
        handler: impl Fn(Request) -> Result<Value, String> + Send + Sync + 'static,
        idle_limit: Duration,
    ) -> Result<Self, SocketError> {
        let shared = Arc::new(Shared {
            socket: Socket::bind(OPTION, path, Access::Owner)?,
            handler: Box::new(handler),
            idle_limit,
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accept = {
            let shared = Arc::clone(&shared);
            move || shared.accept()
        };
        let acceptor = threads::builder("api").spawn(accept);
        let acceptor = acceptor.map_err(|source| SocketError::Host {
            option: OPTION,
            path: path.into(),
            source,
        })?;
        Ok(Self { shared, acceptor: Some(acceptor) })
    }
}

impl Drop for Server {
    /// Lets requests under way finish; answers that nobody takes are given up.
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Ends the accept under way. It cannot fail on a listening socket.
        let _ = shutdown(self.shared.socket.listener().as_raw_fd(), Stop::Both);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
        let connections = std::mem::take(&mut *self.shared.connections());
        for connection in &connections {
            // Ends the read under way, not an answer. Fails when the client has gone.
            let _ = connection.stream.shutdown(Shutdown::Read);
        }
        for connection in connections {
            let _ = connection.thread.join();
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, Vec<Connection>> {
        // Only whole connections are added and taken.
        unpoisoned(self.connections.lock())
    }

    fn accept(self: Arc<Self>) {
        while !self.stopping.load(Ordering::SeqCst) {
            match self.socket.listener().accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(_) if self.stopping.load(Ordering::SeqCst) => return,
                Err(_) => thread::sleep(ACCEPT_RETRY),
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: UnixStream) {
        let mut connections = self.connections();
        connections.retain(|connection| !connection.thread.is_finished());
        // Of no use without: then a client could hold its thread for ever.
        if stream.set_write_timeout(Some(WRITE_LIMIT)).is_err() {
            return;
        }
        if connections.len() >= MAX_CONNECTIONS {
            return refuse(&stream, "too many connections to this machine; try again later");
        }
        let Ok(theirs) = stream.try_clone() else { return };
        let shared = Arc::clone(self);
        let serve = move || shared.serve(theirs);
        match threads::builder("api-client").spawn(serve) {
            Ok(thread) => connections.push(Connection { stream, thread }),
            Err(_) => refuse(&stream, "the host refused a thread for this connection"),
        }
    }

    fn serve(&self, stream: UnixStream) {
        let mut lines = Lines { stream: &stream, pending: Vec::new(), limit: self.idle_limit };
        loop {
            let reply = match lines.next() {
                Ok(Line::Request(line)) => self.answer(&line),
                Ok(Line::TooLong) => {
                    let message = format!("the request is longer than {MAX_REQUEST} bytes");
                    let _ = send(&stream, &Reply::Error(message));
                    break;
                }
                // The client has gone, or was idle for too long.
                Ok(Line::End) | Err(_) => break,
            };
            if send(&stream, &reply).is_err() {
                break;
            }
        }
        // The clone that `connections` holds would keep the client waiting.
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn answer(&self, line: &[u8]) -> Reply<Value> {
        match serde_json::from_slice(line) {
            Ok(request) => match (self.handler)(request) {
                Ok(answer) => Reply::Ok(answer),
                Err(message) => Reply::Error(message),
            },
            Err(error) => Reply::Error(format!("the request is not understood: {error}")),
        }
    }
}

fn refuse(stream: &UnixStream, message: &str) {
    // The client may have gone.
    let _ = send(stream, &Reply::Error(message.into()));
    let _ = stream.shutdown(Shutdown::Both);
}

fn send(mut stream: &UnixStream, reply: &Reply<Value>) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

enum Line {
    Request(Vec<u8>),
    TooLong,
    End,
}

/// A client's requests, each within `limit`.
struct Lines<'a> {
    stream: &'a UnixStream,
    /// Received beyond the last request; at most [`MAX_REQUEST`] and one read.
    pending: Vec<u8>,
    limit: Duration,
}

impl Lines<'_> {
    fn next(&mut self) -> io::Result<Line> {
        let started = Instant::now();
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let rest = self.pending.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.truncate(end);
                return Ok(if line.len() > MAX_REQUEST {
                    Line::TooLong
                } else {
                    Line::Request(line)
                });
            }
            if self.pending.len() > MAX_REQUEST {
                return Ok(Line::TooLong);
            }
            // Zero would mean for ever.
            let left = self.limit.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
            self.stream.set_read_timeout(Some(left))?;
            let mut bytes = [0; 1024];
            match retry(|| self.stream.read(&mut bytes)) {
                // A last request may lack its line end.
                Ok(0) if self.pending.is_empty() => return Ok(Line::End),
                Ok(0) => return Ok(Line::Request(std::mem::take(&mut self.pending))),
                Ok(length) => self.pending.extend_from_slice(&bytes[..length]),
                Err(error) => return Err(error),
            }
            if started.elapsed() >= self.limit {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

#[cfg(test)]
mod tests;
