//! Queries over UDP and TCP.
//!
//! What the network's names answer is answered at once. Who has to ask others has a thread, of which there
//! are so many and no more, for all clients together: a client who asks without end is told that nobody
//! knows, and costs nothing else.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::answer::{Disposition, PLAIN_UDP, answer, no_such_name, nobody_knows};
use crate::elsewhere::zone_of;
use crate::forward::{by_datagram, by_stream, read_message, resolvers, write_message};
use crate::zone::Names;

/// Questions of datagrams that are asked elsewhere, and streams, at a time.
const MAX_AT_ONCE: usize = 64;
/// How long a stream may say nothing (RFC 7766, 6.2.3), and take no answer.
const IDLE: Duration = Duration::from_secs(10);
/// Queries of one stream.
const MAX_QUERIES: usize = 1000;
/// A query is a name and some options.
const MAX_QUERY: usize = 4096;
/// Nothing of ours is deep.
const STACK: usize = 128 << 10;

/// What answers are made of.
pub struct Service {
    pub names: Names,
    /// Our own addresses.
    pub own: Vec<IpAddr>,
    /// The network has no way out: nobody else is asked, whom what is in it could reach by questions.
    pub internal: bool,
    busy: AtomicUsize,
}

impl Service {
    pub fn new(names: Names, own: Vec<IpAddr>, internal: bool) -> Self {
        Self { names, own, internal, busy: AtomicUsize::new(0) }
    }

    /// Does `work` on a thread of its own, unless there are too many.
    fn try_beside(self: &Arc<Self>, work: impl FnOnce(&Arc<Self>) + Send + 'static) -> bool {
        if self.busy.fetch_add(1, Ordering::Relaxed) >= MAX_AT_ONCE {
            self.busy.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let service = Arc::clone(self);
        let started = thread::Builder::new().stack_size(STACK).spawn(move || {
            work(&service);
            service.busy.fetch_sub(1, Ordering::Relaxed);
        });
        if started.is_err() {
            self.busy.fetch_sub(1, Ordering::Relaxed);
        }
        started.is_ok()
    }

    /// What is no name of the network: one of the client's other networks, or somebody else's to answer.
    fn ask(
        &self,
        query: &[u8],
        client: IpAddr,
        limit: usize,
        how: impl FnOnce(&[u8], &[SocketAddr]) -> Option<Vec<u8>>,
    ) -> Disposition {
        let elsewhere = zone_of(self.names.folder(), &self.names.now(), client);
        match elsewhere.map_or(Disposition::Ask, |zone| answer(query, &zone, limit)) {
            Disposition::Ask if self.internal => return no_such_name(query),
            Disposition::Ask => {}
            known => return known,
        }
        match how(query, &resolvers(&self.own)) {
            Some(reply) => Disposition::Answer(reply),
            None => nobody_knows(query),
        }
    }
}

/// Answers datagrams, for ever.
pub fn datagrams(service: &Arc<Service>, socket: &Arc<UdpSocket>) {
    let mut buffer = [0; MAX_QUERY];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer) else {
            // An earlier answer's client is gone, for example. Anything that stays would make us spin.
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        let query = &buffer[..length];
        let outcome = match answer(query, &service.names.now(), PLAIN_UDP) {
            Disposition::Ask => {
                let (query, socket) = (query.to_vec(), Arc::clone(socket));
                let asked = query.clone();
                let beside = service.try_beside(move |service| {
                    reply(
                        &socket,
                        client,
                        service.ask(&query, client.ip(), PLAIN_UDP, by_datagram),
                    );
                });
                if beside { Disposition::Ignore } else { nobody_knows(&asked) }
            }
            outcome => outcome,
        };
        reply(socket, client, outcome);
    }
}

fn reply(socket: &UdpSocket, client: SocketAddr, outcome: Disposition) {
    if let Disposition::Answer(bytes) = outcome {
        // A client that is gone needs none.
        let _ = socket.send_to(&bytes, client);
    }
}

/// Answers streams, for ever.
pub fn streams(service: &Arc<Service>, listener: &TcpListener) {
    loop {
        match listener.accept() {
            // One too many is closed, which tells its client to come back.
            Ok((stream, _)) => {
                service.try_beside(move |service| {
                    // It ends with its client, or with whatever is wrong with it.
                    let _ = converse(service, stream);
                });
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn converse(service: &Service, mut stream: TcpStream) -> io::Result<()> {
    let (client, limit) = (stream.peer_addr()?.ip(), usize::from(u16::MAX));
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(IDLE))?;
    for _ in 0..MAX_QUERIES {
        let query = read_message(&mut stream)?;
        let outcome = match answer(&query, &service.names.now(), limit) {
            Disposition::Ask => service.ask(&query, client, limit, by_stream),
            outcome => outcome,
        };
        match outcome {
            Disposition::Answer(bytes) => write_message(&mut stream, &bytes)?,
            _ => break,
        }
    }
    Ok(())
}
