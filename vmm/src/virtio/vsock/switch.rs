//! The thread that moves packets between the guest's queues and the host's sockets.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;

use vmm_sys_util::epoll::EventSet;

use super::connection::{Broken, Connection, Ports};
use super::host::{Caller, Host, Received};
use super::packet::{HEADER_LENGTH, HOST_CID, Header, MAX_PAYLOAD, Operation, STREAM};
use crate::segments;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step, serve, unless_broken};
use crate::virtio::worker::{EventHandler, EventSources};

/// Connections at a time; more are refused.
pub const MAX_CONNECTIONS: usize = 1023;
/// Programs that have connected and not said where to; more wait in the kernel.
const MAX_CALLERS: usize = 64;
/// Refusals that wait for a receive buffer of the guest; it cannot expect more.
const MAX_REFUSALS: usize = 1024;
/// Ports of the host's end of connections that it asks for, as Firecracker has them: above what
/// programs listen on.
const FIRST_HOST_PORT: u32 = 1 << 30;
/// Packets taken from the guest, or given to it, before others have their turn.
const BUDGET: usize = 128;

const RECEIVE: u32 = 0;
const TRANSMIT: u32 = 1;
const LISTENER: u32 = 2;
/// Tokens of callers and connections, from here up.
const FIRST_PEER: u32 = 16;

/// Leads packets between the guest's queues and the host's sockets.
pub struct Switch {
    cid: u64,
    pub host: Host,
    receive: DeviceQueue,
    transmit: DeviceQueue,
    /// Held so that its ring stays known; nothing is ever sent on it (5.10.6.7 is for migration).
    _events: DeviceQueue,
    callers: BTreeMap<u32, Caller>,
    connections: BTreeMap<u32, Connection>,
    by_ports: BTreeMap<Ports, u32>,
    /// Connections with something to send.
    ready: VecDeque<u32>,
    refusals: VecDeque<Header>,
    next_token: u32,
    next_port: u32,
    listening: bool,
    payload: Vec<u8>,
}

impl Switch {
    /// A switch for the guest `cid` with its three queues.
    pub fn new(
        cid: u64,
        host: Host,
        receive: DeviceQueue,
        transmit: DeviceQueue,
        events: DeviceQueue,
    ) -> Self {
        Self {
            cid,
            host,
            receive,
            transmit,
            _events: events,
            callers: BTreeMap::new(),
            connections: BTreeMap::new(),
            by_ports: BTreeMap::new(),
            ready: VecDeque::new(),
            refusals: VecDeque::new(),
            next_token: FIRST_PEER,
            next_port: FIRST_HOST_PORT,
            listening: false,
            payload: vec![0; MAX_PAYLOAD],
        }
    }

    fn token(&mut self) -> u32 {
        loop {
            let token = self.next_token;
            self.next_token = token.checked_add(1).unwrap_or(FIRST_PEER);
            let taken = self.callers.contains_key(&token) || self.connections.contains_key(&token);
            if !taken {
                return token;
            }
        }
    }

    // The host's side.

    /// Watches the listener only while there is room for callers.
    fn listen(&mut self, sources: &EventSources) -> io::Result<()> {
        let Some(listener) = self.host.fd() else { return Ok(()) };
        let wanted = self.callers.len() < MAX_CALLERS;
        if wanted && !self.listening {
            sources.watch(listener, EventSet::IN, LISTENER)?;
        } else if !wanted && self.listening {
            sources.unwatch(listener)?;
        }
        self.listening = wanted;
        Ok(())
    }

    fn accept(&mut self, sources: &EventSources) {
        while self.callers.len() < MAX_CALLERS {
            let Some(stream) = self.host.accept() else { return };
            let token = self.token();
            if watch(sources, stream.as_raw_fd(), token).is_ok() {
                self.callers.insert(token, Caller::new(stream));
            }
        }
    }

    fn caller_event(&mut self, token: u32, caller: Caller) {
        match caller.receive() {
            Received::Waiting(caller) => {
                self.callers.insert(token, caller);
            }
            // Dropping the stream closes it, which ends its being watched.
            Received::Nothing => {}
            Received::Connect(guest, stream, early) => {
                if let Some(host) = self.host_port(guest) {
                    let ports = Ports { host, guest };
                    self.add(token, Connection::from_host(ports, stream, early));
                }
            }
        }
    }

    /// A port of ours that is not in use with the guest's port `guest`.
    fn host_port(&mut self, guest: u32) -> Option<u32> {
        if self.connections.len() >= MAX_CONNECTIONS {
            return None;
        }
        loop {
            let host = self.next_port;
            self.next_port = host.checked_add(1).unwrap_or(FIRST_HOST_PORT);
            if !self.by_ports.contains_key(&Ports { host, guest }) {
                return Some(host);
            }
        }
    }

    fn add(&mut self, token: u32, connection: Connection) {
        self.by_ports.insert(connection.ports, token);
        self.connections.insert(token, connection);
        self.enqueue(token);
    }

    fn enqueue(&mut self, token: u32) {
        if let Some(connection) = self.connections.get_mut(&token)
            && !std::mem::replace(&mut connection.queued, true)
        {
            self.ready.push_back(token);
        }
    }

    /// Closes a connection; with `refuse`, tells the guest.
    fn remove(&mut self, token: u32, refuse: bool) {
        let Some(mut connection) = self.connections.remove(&token) else { return };
        self.by_ports.remove(&connection.ports);
        if refuse {
            let mut header = Header::default();
            connection.sign(&mut header);
            self.refuse(header, HOST_CID);
        }
    }

    /// Sends a RST with the ports of `header` as soon as the guest has a buffer.
    fn refuse(&mut self, header: Header, source_cid: u64) {
        if self.refusals.len() == MAX_REFUSALS {
            self.receive.counters().error();
            return;
        }
        let operation = Operation::Reset as u16;
        self.refusals.push_back(Header { source_cid, operation, ..header });
    }

    fn connection_event(&mut self, token: u32, events: EventSet) {
        let Some(connection) = self.connections.get_mut(&token) else { return };
        let flushed = if events.contains(EventSet::OUT) { connection.flush() } else { Ok(()) };
        connection.became_readable();
        self.conclude(token, flushed);
    }

    /// After anything that happened to a connection: it goes on, or it ends.
    fn conclude(&mut self, token: u32, result: Result<(), Broken>) {
        let over = self.connections.get(&token).is_some_and(Connection::is_over);
        if result.is_err() || over { self.remove(token, true) } else { self.enqueue(token) }
    }

    // From the guest.

    fn packet(&mut self, chain: &Chain, sources: &EventSources) {
        let mut bytes = [0; HEADER_LENGTH];
        let memory = self.transmit.memory();
        let read = segments::read(memory, &chain.readable, 0, &mut bytes);
        let header = Header::from_bytes(&bytes);
        let length = header.length as usize;
        let whole = read == Some(HEADER_LENGTH)
            && chain.fault.is_none()
            && length <= MAX_PAYLOAD
            && chain.readable_length() >= (HEADER_LENGTH + length) as u64
            && header.source_cid == self.cid;
        let mut payload = std::mem::take(&mut self.payload);
        let copied = if whole {
            let behind = HEADER_LENGTH as u64;
            segments::read(memory, &chain.readable, behind, &mut payload[..length])
        } else {
            None
        };
        if copied == Some(length) {
            self.transmit.counters().request(length as u64);
            self.dispatch(&header, &payload[..length], sources);
        } else {
            self.transmit.counters().error();
        }
        self.payload = payload;
    }

    fn dispatch(&mut self, header: &Header, payload: &[u8], sources: &EventSources) {
        let operation = Operation::from_number(header.operation);
        let ports = Ports { host: header.destination_port, guest: header.source_port };
        let known = self.by_ports.get(&ports).copied();
        let ours = header.destination_cid == HOST_CID && header.socket_type == STREAM;
        let result = match (operation, known) {
            // Never an answer to a RST.
            (Some(Operation::Reset), Some(token)) if ours => {
                self.remove(token, false);
                return;
            }
            (Some(Operation::Reset), _) => return,
            (Some(Operation::Request), None) if ours => {
                self.connect(ports, header, sources);
                return;
            }
            (Some(operation), Some(token)) if ours => {
                let Some(connection) = self.connections.get_mut(&token) else { return };
                connection.note_credit(header);
                let result = match operation {
                    Operation::Response => connection.accepted(),
                    Operation::Data => connection.data(payload),
                    Operation::Shutdown => connection.shut_down(header.flags),
                    Operation::CreditUpdate => Ok(()),
                    Operation::CreditRequest => {
                        connection.owe_credit();
                        Ok(())
                    }
                    // A second one for a connection that exists.
                    Operation::Request | Operation::Reset => Err(Broken),
                };
                self.conclude(token, result);
                return;
            }
            _ => self.answer_to(header),
        };
        self.refuse(result, header.destination_cid);
    }

    /// A packet that goes back where `header` came from.
    fn answer_to(&self, header: &Header) -> Header {
        Header {
            source_port: header.destination_port,
            destination_port: header.source_port,
            socket_type: header.socket_type,
            ..Header::default()
        }
    }

    fn connect(&mut self, ports: Ports, request: &Header, sources: &EventSources) {
        let stream = match self.connections.len() < MAX_CONNECTIONS {
            true => self.host.connect(ports.host).ok(),
            false => None,
        };
        let token = self.token();
        match stream {
            Some(stream) if watch(sources, stream.as_raw_fd(), token).is_ok() => {
                self.add(token, Connection::from_guest(ports, stream, request));
            }
            _ => self.refuse(self.answer_to(request), HOST_CID),
        }
    }

    // To the guest.

    /// Sends what is due, as long as the guest has buffers.
    fn receive(&mut self, sources: &EventSources) -> Result<(), BrokenQueue> {
        serve(&mut ToGuest(self), sources).map(drop)
    }

    /// The next packet, its payload (at most `room`) in the payload buffer.
    fn next_packet(&mut self, room: usize) -> Option<Header> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some(refusal);
        }
        while let Some(token) = self.ready.pop_front() {
            let Some(connection) = self.connections.get_mut(&token) else { continue };
            connection.queued = false;
            let room = room.min(MAX_PAYLOAD);
            match connection.next(&mut self.payload[..room]) {
                Ok(Some(out)) => {
                    let mut header = Header {
                        source_cid: HOST_CID,
                        operation: out.operation as u16,
                        flags: out.flags,
                        length: out.length as u32,
                        ..Header::default()
                    };
                    connection.sign(&mut header);
                    self.conclude(token, Ok(()));
                    return Some(header);
                }
                Ok(None) if connection.is_over() => self.remove(token, true),
                Ok(None) => {}
                Err(Broken) => self.remove(token, true),
            }
            if let Some(refusal) = self.refusals.pop_front() {
                return Some(refusal);
            }
        }
        None
    }

    fn deliver(&mut self, chain: Chain, header: Header) -> Result<(), BrokenQueue> {
        // Answers to packets of another type keep that type.
        let socket_type = if header.socket_type == 0 { STREAM } else { header.socket_type };
        let header = Header { destination_cid: self.cid, socket_type, ..header };
        let memory = self.receive.memory();
        let length = header.length as usize;
        let payload = &self.payload[..length];
        let written = segments::write(memory, &chain.writable, 0, &header.to_bytes())
            .and_then(|behind| segments::write(memory, &chain.writable, behind as u64, payload));
        match written {
            Some(_) => {
                self.receive.counters().request(length as u64);
                self.receive.push(chain, (HEADER_LENGTH + length) as u32)
            }
            // The driver offered a buffer outside RAM; the packet is lost, as is the stream.
            None => Err(self.receive.broken("a receive buffer lies outside RAM")),
        }
    }

    fn work(
        &mut self,
        token: u32,
        events: EventSet,
        sources: &EventSources,
    ) -> Result<(), BrokenQueue> {
        match token {
            RECEIVE => self.receive.notified(),
            TRANSMIT => {
                self.transmit.notified();
                serve(&mut FromGuest { switch: self, sources }, sources)?;
            }
            LISTENER => self.accept(sources),
            token => match self.callers.remove(&token) {
                Some(caller) => self.caller_event(token, caller),
                None => self.connection_event(token, events),
            },
        }
        self.receive(sources)
    }
}

/// Edge-triggered: both ends note what the socket last said.
fn watch(sources: &EventSources, fd: i32, token: u32) -> io::Result<()> {
    sources.watch(fd, EventSet::IN | EventSet::OUT | EventSet::EDGE_TRIGGERED, token)
}

impl EventHandler for Switch {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.receive.notify_fd(), RECEIVE)?;
        sources.watch_event(self.transmit.notify_fd(), TRANSMIT)?;
        self.listen(sources)
    }

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        let taken = serve(&mut FromGuest { switch: self, sources }, sources);
        unless_broken(taken.and_then(|_| self.receive(sources)))
    }

    fn handle(&mut self, token: u32, events: EventSet, sources: &EventSources) -> ControlFlow<()> {
        unless_broken(self.work(token, events, sources))?;
        // An epoll that fails leaves nothing to wait for.
        if self.listen(sources).is_err() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

/// The transmit queue: one packet of the guest a step.
struct FromGuest<'a> {
    switch: &'a mut Switch,
    sources: &'a EventSources,
}

impl Service for FromGuest<'_> {
    const BUDGET: usize = BUDGET;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.switch.transmit
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        let Some(chain) = self.switch.transmit.pop()? else {
            return Ok(Step::Empty);
        };
        self.switch.packet(&chain, self.sources);
        self.switch.transmit.push(chain, 0)?;
        Ok(Step::Done)
    }
}

/// The receive queue: one packet to the guest a step.
struct ToGuest<'a>(&'a mut Switch);

impl Service for ToGuest<'_> {
    const BUDGET: usize = BUDGET;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.0.receive
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        let switch = &mut *self.0;
        if switch.refusals.is_empty() && switch.ready.is_empty() {
            return Ok(Step::Waiting);
        }
        let Some(chain) = switch.receive.pop()? else {
            return Ok(Step::Empty);
        };
        let usable = chain.fault.is_none()
            && chain.readable.is_empty()
            && chain.writable_length() > HEADER_LENGTH as u64;
        if !usable {
            switch.receive.counters().error();
            switch.receive.push(chain, 0)?;
            return Ok(Step::Done);
        }
        match switch.next_packet(chain.writable_length() as usize - HEADER_LENGTH) {
            Some(header) => switch.deliver(chain, header)?,
            None => switch.receive.undo_pop(chain),
        }
        Ok(Step::Done)
    }
}
