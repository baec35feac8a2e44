//! One stream between a port of the guest and a Unix socket of the host: its state, its buffer
//! and both sides' credit (virtio 1.2, 5.10.6.3).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::ahead::Ahead;
use super::packet::{Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND};
use crate::eintr::retry;

/// What we buffer of a guest's data while the host's socket is full.
pub const BUFFER_SIZE: u32 = 256 << 10;

/// The two ports; both ends of the guest's and the host's context ids are fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ports {
    pub host: u32,
    pub guest: u32,
}

/// Why a connection ends at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// A connection between a port of the guest and a socket of the host.
pub struct Connection {
    pub ports: Ports,
    stream: UnixStream,
    /// The guest's RESPONSE is still to come; nothing else may be sent.
    awaiting_response: bool,
    /// What to tell the guest as soon as it has a buffer.
    request_due: bool,
    response_due: bool,
    credit_due: bool,
    credit_request_due: bool,
    /// The guest was asked for credit since the last data.
    asked: bool,
    /// The socket may have something; false once it said that it has not.
    readable: bool,
    /// The host's end said that no more comes; whether the guest knows.
    host_finished: bool,
    shutdown_due: bool,
    /// SHUTDOWN flags of the guest so far.
    guest_shutdown: u32,
    to_host: VecDeque<u8>,
    /// Read from the socket, with the CONNECT line or since.
    to_guest: Ahead,
    /// Guest's data passed on to the socket, and what the guest was last told of that.
    forwarded: u32,
    advertised: u32,
    /// Data sent to the guest, and the guest's words on its buffer.
    sent: u32,
    peer_buffer: u32,
    peer_forwarded: u32,
    /// This connection waits for its turn to send.
    pub queued: bool,
}

/// What a connection has to send.
pub struct Outgoing {
    pub operation: Operation,
    pub flags: u32,
    /// Bytes put into the payload buffer.
    pub length: usize,
}

impl Connection {
    /// A connection that the host asked for; `early` is what it sent already.
    pub fn from_host(ports: Ports, stream: UnixStream, early: Vec<u8>) -> Self {
        let mut connection = Self::new(ports, stream);
        connection.awaiting_response = true;
        connection.request_due = true;
        connection.to_guest = Ahead::from(early);
        connection
    }

    /// A connection that the guest asked for with `request`.
    pub fn from_guest(ports: Ports, stream: UnixStream, request: &Header) -> Self {
        let mut connection = Self::new(ports, stream);
        connection.response_due = true;
        connection.note_credit(request);
        connection
    }

    fn new(ports: Ports, stream: UnixStream) -> Self {
        Self {
            ports,
            stream,
            awaiting_response: false,
            request_due: false,
            response_due: false,
            credit_due: false,
            credit_request_due: false,
            asked: false,
            readable: true,
            host_finished: false,
            shutdown_due: false,
            guest_shutdown: 0,
            to_host: VecDeque::new(),
            to_guest: Ahead::default(),
            forwarded: 0,
            advertised: 0,
            sent: 0,
            peer_buffer: 0,
            peer_forwarded: 0,
            queued: false,
        }
    }

    /// The least that is sent to a guest with little room: not every byte that it frees, or both
    /// sides end up with packets of a few bytes (RFC 9293, 3.8.6.2.1). A guest that holds nothing
    /// of ours has told all there is to tell.
    fn worthwhile(&self, wanted: usize) -> usize {
        match self.sent == self.peer_forwarded {
            true => 1,
            false => wanted.min(self.peer_buffer as usize / 4).max(1),
        }
    }

    /// Takes note of the guest's credit, which every packet carries.
    pub fn note_credit(&mut self, header: &Header) {
        self.peer_buffer = header.buffer_size;
        self.peer_forwarded = header.forwarded;
    }

    /// Bytes the guest can take.
    fn credit(&self) -> u32 {
        let outstanding = self.sent.wrapping_sub(self.peer_forwarded);
        self.peer_buffer.saturating_sub(outstanding)
    }

    /// The guest accepted our request: the host's program hears the host-side port.
    pub fn accepted(&mut self) -> Result<(), Broken> {
        if !std::mem::take(&mut self.awaiting_response) || self.request_due {
            return Err(Broken);
        }
        let line = format!("OK {}\n", self.ports.host);
        // The socket's buffer is empty, so a line fits or the other end is gone.
        self.stream.write_all(line.as_bytes()).map_err(|_| Broken)
    }

    /// The guest asks how much it may send.
    pub fn owe_credit(&mut self) {
        self.credit_due = true;
    }

    /// Data from the guest.
    pub fn data(&mut self, payload: &[u8]) -> Result<(), Broken> {
        let buffered = self.to_host.len() + payload.len();
        let finished = self.guest_shutdown & SHUTDOWN_SEND != 0;
        if self.awaiting_response || finished || buffered > BUFFER_SIZE as usize {
            return Err(Broken);
        }
        let mut payload = payload;
        if self.to_host.is_empty() {
            let written = self.write(payload)?;
            payload = &payload[written..];
        }
        self.to_host.extend(payload);
        Ok(())
    }

    /// Writes what the socket takes.
    fn write(&mut self, mut data: &[u8]) -> Result<usize, Broken> {
        let mut written = 0;
        while !data.is_empty() {
            match retry(|| self.stream.write(data)) {
                Ok(0) => return Err(Broken),
                Ok(length) => {
                    data = &data[length..];
                    written += length;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return Err(Broken),
            }
        }
        // At most BUFFER_SIZE at a time.
        self.forwarded = self.forwarded.wrapping_add(written as u32);
        // Not for every byte: when the guest believes that half of the buffer is full.
        if self.forwarded.wrapping_sub(self.advertised) >= BUFFER_SIZE / 2 {
            self.credit_due = true;
        }
        Ok(written)
    }

    /// The socket can take more.
    pub fn flush(&mut self) -> Result<(), Broken> {
        while !self.to_host.is_empty() {
            let (front, _) = self.to_host.as_slices();
            let front = front.to_vec();
            let written = self.write(&front)?;
            self.to_host.drain(..written);
            if written < front.len() {
                return Ok(());
            }
        }
        if self.guest_shutdown & SHUTDOWN_SEND != 0 {
            // Fails when the other end is gone already.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// The socket has something, or has ended.
    pub fn became_readable(&mut self) {
        self.readable = true;
    }

    /// The guest closes one or both directions.
    pub fn shut_down(&mut self, flags: u32) -> Result<(), Broken> {
        self.guest_shutdown |= flags & (SHUTDOWN_RECEIVE | SHUTDOWN_SEND);
        self.flush()
    }

    /// Both directions are closed and everything is passed on; the guest awaits a RST.
    pub fn is_over(&self) -> bool {
        let receives_no_more = self.guest_shutdown & SHUTDOWN_RECEIVE != 0 || self.host_finished;
        let sends_no_more = self.guest_shutdown & SHUTDOWN_SEND != 0 && self.to_host.is_empty();
        receives_no_more && sends_no_more && !self.shutdown_due
    }

    /// The next packet for the guest, with its payload in `payload`.
    pub fn next(&mut self, payload: &mut [u8]) -> Result<Option<Outgoing>, Broken> {
        let packet = |operation| Ok(Some(Outgoing { operation, flags: 0, length: 0 }));
        if std::mem::take(&mut self.request_due) {
            return packet(Operation::Request);
        }
        if self.awaiting_response {
            return Ok(None);
        }
        if std::mem::take(&mut self.response_due) {
            return packet(Operation::Response);
        }
        if std::mem::take(&mut self.credit_due) {
            return packet(Operation::CreditUpdate);
        }
        let length = self.read(payload)?;
        if length > 0 {
            self.sent = self.sent.wrapping_add(length as u32);
            return Ok(Some(Outgoing { operation: Operation::Data, flags: 0, length }));
        }
        if std::mem::take(&mut self.shutdown_due) {
            let flags = SHUTDOWN_SEND;
            return Ok(Some(Outgoing { operation: Operation::Shutdown, flags, length: 0 }));
        }
        if std::mem::take(&mut self.credit_request_due) {
            return packet(Operation::CreditRequest);
        }
        Ok(None)
    }

    /// Data from the socket, as much as the guest can take.
    fn read(&mut self, payload: &mut [u8]) -> Result<usize, Broken> {
        if self.guest_shutdown & SHUTDOWN_RECEIVE != 0 || self.host_finished {
            return Ok(0);
        }
        let room = payload.len().min(self.credit() as usize);
        if room < self.worthwhile(payload.len()) {
            // The guest tells of new credit by itself; asking helps one that waits to be asked.
            let waits = self.readable || !self.to_guest.is_empty();
            self.credit_request_due |= waits && !std::mem::replace(&mut self.asked, true);
            return Ok(0);
        }
        self.asked = false;
        if self.to_guest.is_empty() && self.readable {
            self.read_ahead()?;
        }
        Ok(self.to_guest.take(&mut payload[..room]))
    }

    /// Reads what the guest has room for, since its buffers are of a page each: not a system call for each.
    fn read_ahead(&mut self) -> Result<(), Broken> {
        let most = self.credit() as usize;
        let (stream, to_guest) = (&self.stream, &mut self.to_guest);
        match retry(|| to_guest.fill(stream, most)) {
            Ok(0) => {
                self.host_finished = true;
                self.shutdown_due = true;
                self.readable = false;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(_) => return Err(Broken),
        }
        Ok(())
    }

    /// Fills in what every packet to the guest says of this side's buffer.
    pub fn sign(&mut self, header: &mut Header) {
        header.source_port = self.ports.host;
        header.destination_port = self.ports.guest;
        header.buffer_size = BUFFER_SIZE;
        header.forwarded = self.forwarded;
        self.advertised = self.forwarded;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const PORTS: Ports = Ports { host: 7, guest: 9 };

    fn header(buffer_size: u32, forwarded: u32) -> Header {
        Header { buffer_size, forwarded, ..Header::default() }
    }

    fn established(buffer_size: u32) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut connection = Connection::from_guest(PORTS, ours, &header(buffer_size, 0));
        let mut payload = [0; 16];
        let first = connection.next(&mut payload).unwrap().unwrap();
        assert_eq!(first.operation, Operation::Response);
        (connection, theirs)
    }

    fn next(connection: &mut Connection) -> Option<(Operation, Vec<u8>)> {
        let mut payload = [0; 64];
        let out = connection.next(&mut payload).unwrap()?;
        Some((out.operation, payload[..out.length].to_vec()))
    }

    #[test]
    fn no_more_is_sent_than_the_guest_has_room_for() {
        let (mut connection, mut host) = established(4);
        host.write_all(b"abcdef").unwrap();
        assert_eq!(next(&mut connection), Some((Operation::Data, b"abcd".to_vec())));
        assert_eq!(next(&mut connection), Some((Operation::CreditRequest, vec![])));
        // It is asked once, whatever it answers.
        connection.note_credit(&header(4, 0));
        assert_eq!(next(&mut connection), None);
        connection.note_credit(&header(4, 1));
        assert_eq!(next(&mut connection), Some((Operation::Data, b"e".to_vec())));
        // Nonsense of the guest: more forwarded than was sent.
        connection.note_credit(&header(4, 1000));
        assert!(next(&mut connection).is_none_or(|(operation, _)| operation != Operation::Data));
    }

    #[test]
    fn a_guest_that_overruns_our_buffer_is_cut_off() {
        let (mut connection, _host) = established(4);
        let chunk = vec![0; 64 << 10];
        let mut sent = 0;
        while connection.data(&chunk).is_ok() {
            sent += chunk.len();
            assert!(sent < 64 << 20, "the buffer has no end");
        }
        assert!(connection.to_host.len() <= BUFFER_SIZE as usize);
    }

    #[test]
    fn credit_is_advertised_by_halves_of_the_buffer() {
        let (mut connection, mut host) = established(4);
        connection.data(&[1; 1000]).unwrap();
        assert_eq!(next(&mut connection), None);
        let mut data = vec![0; 1000];
        host.read_exact(&mut data).unwrap();
        for _ in 0..BUFFER_SIZE / 2 / 1000 {
            connection.data(&data).unwrap();
            host.read_exact(&mut data).unwrap();
        }
        assert_eq!(next(&mut connection), Some((Operation::CreditUpdate, vec![])));
        let mut header = Header::default();
        connection.sign(&mut header);
        assert_eq!(header.forwarded, 1000 + BUFFER_SIZE / 2 / 1000 * 1000);
        assert_eq!((header.source_port, header.destination_port), (7, 9));
    }

    #[test]
    fn each_direction_closes_on_its_own() {
        let (mut connection, mut host) = established(100);
        host.write_all(b"last").unwrap();
        host.shutdown(Shutdown::Write).unwrap();
        assert_eq!(next(&mut connection), Some((Operation::Data, b"last".to_vec())));
        assert_eq!(next(&mut connection), Some((Operation::Shutdown, vec![])));
        assert!(!connection.is_over());
        connection.data(b"answer").unwrap();
        connection.shut_down(SHUTDOWN_SEND).unwrap();
        assert!(connection.is_over());
        assert_eq!(connection.data(b"more"), Err(Broken));
        let mut answer = String::new();
        host.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }

    #[test]
    fn a_host_that_is_gone_breaks_the_connection() {
        let (mut connection, host) = established(100);
        drop(host);
        assert_eq!(connection.data(b"x"), Err(Broken));
    }

    #[test]
    fn a_response_nobody_asked_for_breaks_the_connection() {
        let (mut connection, _host) = established(100);
        assert_eq!(connection.accepted(), Err(Broken));
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut early = Connection::from_host(PORTS, ours, vec![]);
        assert_eq!(early.data(b"x"), Err(Broken));
        assert_eq!(early.accepted(), Err(Broken));
    }
}
