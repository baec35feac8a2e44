//! The whole device: a guest that writes packets into memory, programs of the host on real
//! sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::iter;
use std::os::unix::net::{UnixListener, UnixStream};

use tempfile::TempDir;

use super::connection::BUFFER_SIZE;
use super::packet::*;
use super::*;
use crate::virtio::testing::{
    Buffer, Driver, Inbox, Signal, TIMEOUT, activation, interrupt, memory, readable, writable,
};

const CID: u32 = 42;
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1;
/// Receive buffers of 0x1000 bytes each; packets of the guest are written at TRANSMIT.
const RECEIVE: u64 = 0x10_0000;
const TRANSMIT: u64 = 0x18_0000;

struct Guest {
    device: VirtioVsock,
    receive: Driver,
    transmit: Driver,
    inbox: Inbox,
    directory: TempDir,
    /// Packets that came and no test has looked at.
    arrived: std::collections::VecDeque<(Header, Vec<u8>)>,
}

fn guest() -> Guest {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vsock");
    let mut device = VirtioVsock::open(Some(&VsockOptions { cid: CID, path }), None).unwrap();
    let memory = memory();
    let mut receive = Driver::new(&memory, 0, 16);
    let transmit = Driver::new(&memory, 0x4000, 16);
    let events = Driver::new(&memory, 0x8000, 16);
    for i in 0..16 {
        receive.send(&[writable(RECEIVE + i * 0x1000, 0x1000)]);
    }
    let (interrupt, inbox) = interrupt();
    let queues = [&receive, &transmit, &events];
    let queues = (0..).zip(queues).map(|(i, driver)| driver.queue(i, FEATURES)).collect();
    device.activate(activation(&memory, FEATURES, queues, interrupt)).unwrap();
    Guest { device, receive, transmit, inbox, directory, arrived: Default::default() }
}

impl Guest {
    fn header(&self, operation: Operation, ports: (u32, u32)) -> Header {
        Header {
            source_cid: CID.into(),
            destination_cid: HOST_CID,
            source_port: ports.0,
            destination_port: ports.1,
            socket_type: STREAM,
            operation: operation as u16,
            buffer_size: 1 << 20,
            ..Header::default()
        }
    }

    fn send_raw(&mut self, header: Header, payload: &[u8]) {
        self.transmit.write(TRANSMIT, &header.to_bytes());
        self.transmit.write(TRANSMIT + 44, payload);
        self.transmit
            .send(&[readable(TRANSMIT, 44), readable(TRANSMIT + 44, payload.len() as u32)]);
        let mut used = self.transmit.used();
        while used.is_empty() {
            self.wait();
            used = self.transmit.used();
        }
    }

    fn send(&mut self, operation: Operation, ports: (u32, u32), payload: &[u8]) {
        let length = payload.len() as u32;
        let header = Header { length, ..self.header(operation, ports) };
        self.send_raw(header, payload);
    }

    fn wait(&mut self) {
        assert!(matches!(self.inbox.next(), Signal::Used(_)));
        self.collect();
    }

    fn collect(&mut self) {
        for (head, length) in self.receive.used() {
            let at = RECEIVE + u64::from(head) * 0x1000;
            let bytes = self.receive.read(at, length as usize);
            let header = Header::from_bytes(bytes[..44].try_into().unwrap());
            self.arrived.push_back((header, bytes[44..].to_vec()));
            // Offered again, so that the guest never runs out.
            self.receive.offer(head as u16);
        }
        self.receive.kick();
    }

    /// The next packet for the guest.
    fn next(&mut self) -> (Header, Vec<u8>) {
        self.collect();
        while self.arrived.is_empty() {
            self.wait();
        }
        let (header, payload) = self.arrived.pop_front().unwrap();
        assert_eq!((header.source_cid, header.destination_cid), (HOST_CID, CID.into()));
        assert_eq!(header.length as usize, payload.len());
        (header, payload)
    }

    fn expect(&mut self, operation: Operation, ports: (u32, u32)) -> Header {
        let (header, _) = self.next();
        assert_eq!(Operation::from_number(header.operation), Some(operation));
        assert_eq!((header.destination_port, header.source_port), ports);
        header
    }

    fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.directory.path().join(format!("vsock_{port}"))).unwrap()
    }

    fn call(&self, text: &str) -> UnixStream {
        let mut stream = UnixStream::connect(self.directory.path().join("vsock")).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        stream
    }

    /// A connection from the guest's port 1000 to the host's 52.
    fn connected(&mut self) -> UnixStream {
        let listener = self.listen(52);
        self.send(Operation::Request, (1000, 52), &[]);
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let response = self.expect(Operation::Response, (1000, 52));
        assert_eq!(response.buffer_size, BUFFER_SIZE);
        stream
    }
}

#[test]
fn reserved_ids_and_paths_that_exist_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("v");
    for cid in [0, 1, 2, u32::MAX] {
        let options = VsockOptions { cid, path: path.clone() };
        assert!(matches!(VirtioVsock::open(Some(&options), None), Err(VsockError::Cid { .. })));
    }
    let options = VsockOptions { cid: 3, path };
    let device = VirtioVsock::open(Some(&options), None).unwrap();
    assert!(matches!(VirtioVsock::open(Some(&options), None), Err(VsockError::Socket(_))));
    let mut config = [0xEE; 10];
    device.read_config(0, &mut config);
    assert_eq!(config, [3, 0, 0, 0, 0, 0, 0, 0, 0xEE, 0xEE]);
    drop(device);
    VirtioVsock::open(Some(&options), None).unwrap();
}

#[test]
fn a_connection_of_the_guest_reaches_the_listener_of_that_port() {
    let mut guest = guest();
    let mut host = guest.connected();
    guest.send(Operation::Data, (1000, 52), b"hello");
    let mut data = [0; 5];
    host.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"hello");
    host.write_all(b"world").unwrap();
    let (header, payload) = guest.next();
    assert_eq!((header.operation, &payload[..]), (Operation::Data as u16, &b"world"[..]));
    assert_eq!(header.forwarded, 5);
    // The guest closes: all is passed on, then confirmed.
    let close = Header { flags: 3, ..guest.header(Operation::Shutdown, (1000, 52)) };
    guest.send_raw(close, &[]);
    guest.expect(Operation::Reset, (1000, 52));
    assert_eq!(host.read(&mut data).unwrap(), 0);
}

#[test]
fn a_connection_of_the_host_is_announced_and_confirmed() {
    let mut guest = guest();
    let mut host = guest.call("CONNECT 80\nearly");
    let (request, _) = guest.next();
    assert_eq!(request.operation, Operation::Request as u16);
    assert_eq!(request.destination_port, 80);
    assert!(request.source_port >= 1 << 30);
    let ports = (80, request.source_port);
    guest.send(Operation::Response, ports, &[]);
    let mut line = String::new();
    BufReader::new(&host).read_line(&mut line).unwrap();
    assert_eq!(line, format!("OK {}\n", request.source_port));
    assert_eq!(guest.next().1, b"early");
    guest.send(Operation::Data, ports, b"answer");
    let mut answer = [0; 6];
    host.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    // The host closes.
    drop(host);
    let header = guest.expect(Operation::Shutdown, ports);
    assert_eq!(header.flags, SHUTDOWN_SEND);
    let close = Header { flags: 3, ..guest.header(Operation::Shutdown, ports) };
    guest.send_raw(close, &[]);
    guest.expect(Operation::Reset, ports);
}

#[test]
fn a_guest_that_refuses_ends_the_hosts_stream() {
    let mut guest = guest();
    let mut host = guest.call("CONNECT 81\n");
    let (request, _) = guest.next();
    guest.send(Operation::Reset, (81, request.source_port), &[]);
    assert_eq!(host.read(&mut [0; 16]).unwrap(), 0);
    // Nonsense is closed at once, and the next caller served.
    let mut nonsense = guest.call("HELLO\n");
    assert_eq!(nonsense.read(&mut [0; 16]).unwrap(), 0);
    let _next = guest.call("CONNECT 82\n");
    assert_eq!(guest.next().0.destination_port, 82);
}

#[test]
fn unknown_ports_types_and_operations_are_refused() {
    let mut guest = guest();
    guest.send(Operation::Request, (1000, 99), &[]);
    guest.expect(Operation::Reset, (1000, 99));
    guest.send(Operation::Data, (1000, 52), b"x");
    guest.expect(Operation::Reset, (1000, 52));
    let seqpacket = Header { socket_type: 2, ..guest.header(Operation::Request, (1, 2)) };
    guest.send_raw(seqpacket, &[]);
    assert_eq!(guest.expect(Operation::Reset, (1, 2)).socket_type, 2);
    let unknown = Header { operation: 77, ..guest.header(Operation::Data, (3, 4)) };
    guest.send_raw(unknown, &[]);
    guest.expect(Operation::Reset, (3, 4));
    // A RST is never answered; the next answer is that of the next packet.
    guest.send(Operation::Reset, (5, 6), &[]);
    guest.send(Operation::CreditRequest, (7, 8), &[]);
    guest.expect(Operation::Reset, (7, 8));
}

#[test]
fn a_second_request_breaks_the_connection() {
    let mut guest = guest();
    let mut host = guest.connected();
    guest.send(Operation::Request, (1000, 52), &[]);
    guest.expect(Operation::Reset, (1000, 52));
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_guest_that_asks_hears_of_its_credit() {
    let mut guest = guest();
    let mut host = guest.connected();
    guest.send(Operation::Data, (1000, 52), &[0; 100]);
    host.read_exact(&mut [0; 100]).unwrap();
    guest.send(Operation::CreditRequest, (1000, 52), &[]);
    let header = guest.expect(Operation::CreditUpdate, (1000, 52));
    assert_eq!((header.forwarded, header.buffer_size), (100, BUFFER_SIZE));
}

#[test]
fn much_data_flows_both_ways_within_the_credit() {
    const TOTAL: usize = 1 << 20;
    let mut guest = guest();
    let mut host = guest.connected();
    let echo = std::thread::spawn(move || {
        let mut data = vec![0; TOTAL];
        host.read_exact(&mut data).unwrap();
        host.write_all(&data).unwrap();
        data
    });
    let data: Vec<u8> = (0..TOTAL).map(|i| (i % 249) as u8).collect();
    let mut forwarded = 0;
    let mut sent = 0;
    for chunk in data.chunks(0x4000) {
        while sent - forwarded + chunk.len() > BUFFER_SIZE as usize {
            forwarded = guest.next().0.forwarded as usize;
        }
        guest.send(Operation::Data, (1000, 52), chunk);
        sent += chunk.len();
    }
    let mut back = Vec::new();
    while back.len() < TOTAL {
        let (header, payload) = guest.next();
        back.extend(payload);
        if header.operation == Operation::CreditRequest as u16 || back.len() % 0x8000 == 0 {
            let forwarded = back.len() as u32;
            let update = Header { forwarded, ..guest.header(Operation::CreditUpdate, (1000, 52)) };
            guest.send_raw(update, &[]);
        }
    }
    assert_eq!(echo.join().unwrap(), data);
    assert_eq!(back, data);
}

#[test]
fn hostile_packets_are_dropped_and_the_device_lives_on() {
    let mut guest = guest();
    let mut host = guest.connected();
    let long = Header { length: 0x8000_0000, ..guest.header(Operation::Data, (1000, 52)) };
    guest.transmit.write(TRANSMIT, &long.to_bytes());
    let hostile: [&[Buffer]; 5] = [
        &[readable(TRANSMIT, 43)],
        &[readable(TRANSMIT, 44)],
        &[readable(0x30_0000, 44)],
        &[readable(TRANSMIT, 0)],
        &[writable(TRANSMIT, 44)],
    ];
    for chain in hostile {
        guest.transmit.send(chain);
        let mut used = guest.transmit.used();
        while used.is_empty() {
            guest.wait();
            used = guest.transmit.used();
        }
    }
    // Someone else's context id.
    let forged = Header { source_cid: 7, length: 1, ..guest.header(Operation::Data, (1000, 52)) };
    guest.send_raw(forged, b"x");
    guest.send(Operation::Data, (1000, 52), b"y");
    let mut data = [0; 1];
    host.read_exact(&mut data).unwrap();
    assert_eq!(&data, b"y");
    guest.device.reset();
    assert_eq!(guest.device.counters()[1].snapshot().errors, 6);
}

#[test]
fn packets_wait_for_buffers_and_too_small_ones_are_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("vsock");
    let mut device =
        VirtioVsock::open(Some(&VsockOptions { cid: CID, path: path.clone() }), None).unwrap();
    let memory = memory();
    let drivers: Vec<Driver> = (0..3).map(|i| Driver::new(&memory, i * 0x4000, 16)).collect();
    let (interrupt, inbox) = interrupt();
    let queues = (0..).zip(&drivers).map(|(i, driver)| driver.queue(i, FEATURES)).collect();
    device.activate(activation(&memory, FEATURES, queues, interrupt)).unwrap();
    let mut stream = UnixStream::connect(path).unwrap();
    stream.write_all(b"CONNECT 5\n").unwrap();
    let mut receive = drivers.into_iter().next().unwrap();
    receive.send(&[writable(RECEIVE, 44)]);
    receive.send(&[readable(RECEIVE, 100)]);
    receive.send(&[writable(RECEIVE, 20), writable(RECEIVE + 20, 100)]);
    assert_eq!(receive.wait_used(&inbox, 3), [(0, 0), (1, 0), (2, 44)]);
    // Outside RAM: there is no telling what was lost.
    receive.send(&[writable(0x30_0000, 100)]);
    let _second = UnixStream::connect(directory.path().join("vsock"))
        .and_then(|mut stream| stream.write_all(b"CONNECT 6\n").map(|()| stream))
        .unwrap();
    // The three may have been told in as many signals as there are.
    let signal = iter::repeat_with(|| inbox.next()).find(|signal| *signal != Signal::Used(0));
    assert_eq!(signal, Some(Signal::NeedsReset));
}

#[test]
fn reset_closes_the_streams_and_keeps_the_socket() {
    let mut guest = guest();
    let mut host = guest.connected();
    guest.device.reset();
    assert_eq!(host.read(&mut [0; 1]).unwrap(), 0);
    assert!(UnixStream::connect(guest.directory.path().join("vsock")).is_ok());
}
