//! The console driven through its queues, with a screen and a keyboard of the host.

use std::io::{PipeWriter, Write};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;
use crate::virtio::testing::{
    Driver, Inbox, NEXT, Signal, activation, interrupt, memory, readable, writable,
};

const BUFFER: u64 = 0x1_0000;

struct Screen(Sender<Vec<u8>>);

impl Write for Screen {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let _ = self.0.send(data.to_vec());
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Rig {
    device: Console,
    receive: Driver,
    transmit: Driver,
    inbox: Inbox,
    output: Output,
    screen: Receiver<Vec<u8>>,
}

impl Rig {
    fn new(input: Option<OwnedFd>) -> Self {
        let (sender, screen) = channel();
        Self::with(Box::new(Screen(sender)), screen, input)
    }

    fn with(
        host: Box<dyn Write + Send>,
        screen: Receiver<Vec<u8>>,
        input: Option<OwnedFd>,
    ) -> Self {
        let memory = memory();
        let receive = Driver::new(&memory, 0, 8);
        let transmit = Driver::new(&memory, 0x4000, 8);
        let (interrupt, inbox) = interrupt();
        let output = Output::new("test", host, true).unwrap();
        let mut device = Console::new(output.clone(), input).unwrap();
        let queues = vec![receive.queue(0, 0), transmit.queue(1, 0)];
        device.activate(activation(&memory, 0, queues, interrupt)).unwrap();
        Self { device, receive, transmit, inbox, output, screen }
    }

    fn with_pipe() -> (Self, PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (Self::new(Some(reader.into())), writer)
    }

    fn expect_input(&mut self, expected: &[u8]) {
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            for (_, length) in self.receive.wait_used(&self.inbox, 1) {
                seen.extend(self.receive.read(BUFFER, length as usize));
            }
            self.receive.send(&[writable(BUFFER, 4)]);
        }
        assert_eq!(seen, expected);
    }
}

#[test]
fn what_the_guest_writes_is_printed_in_order() {
    let mut rig = Rig::new(None);
    rig.transmit.write(BUFFER, b"hello, world");
    rig.transmit.send(&[readable(BUFFER, 7), readable(BUFFER + 7, 5)]);
    assert_eq!(rig.transmit.wait_used(&rig.inbox, 1)[0].1, 0);
    rig.device.reset();
    assert!(rig.output.drain(|| false));
    assert_eq!(rig.screen.try_iter().flatten().collect::<Vec<_>>(), b"hello, world");
    assert_eq!(rig.device.counters()[1].snapshot().bytes, 12);
}

/// Takes output once it is released.
struct Stuck(Receiver<()>, Screen);

impl Write for Stuck {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(data)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A host that does not read keeps the guest's buffers, not the device: a reset returns, and
/// input still arrives.
#[test]
fn a_host_that_does_not_read_holds_up_neither_reset_nor_input() {
    let (reader, mut keyboard) = io::pipe().unwrap();
    let (release, released) = channel::<()>();
    let (sender, screen) = channel();
    let host = Box::new(Stuck(released, Screen(sender)));
    let mut rig = Rig::with(host, screen, Some(reader.into()));
    rig.transmit.write(BUFFER, &[b'x'; 0x4000]);
    // More than the buffer and what the thread has in its hands.
    for _ in 0..4 {
        rig.transmit.send(&[readable(BUFFER, 0x4000)]);
    }
    keyboard.write_all(b"abc").unwrap();
    rig.receive.send(&[writable(BUFFER + 0x8000, 4)]);
    while rig.receive.used().is_empty() {
        std::thread::yield_now();
    }
    rig.device.reset();
    let back = rig.transmit.used().len();
    assert!(back < 4, "{back}");
    drop(release);
    assert!(rig.output.drain(|| false));
    assert!(rig.screen.try_iter().flatten().count() >= back * 0x4000);
}

#[test]
fn input_waits_for_room_and_arrives_whole() {
    let (mut rig, mut keyboard) = Rig::with_pipe();
    keyboard.write_all(b"abcdefgh").unwrap();
    rig.receive.send(&[writable(BUFFER, 4)]);
    rig.expect_input(b"abcdefgh");
    keyboard.write_all(b"xyz").unwrap();
    rig.expect_input(b"xyz");
}

#[test]
fn input_from_a_file_ends_at_its_end() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"from a file").unwrap();
    io::Seek::rewind(&mut file).unwrap();
    let mut rig = Rig::new(Some(file.into()));
    rig.receive.send(&[writable(BUFFER, 4)]);
    rig.expect_input(b"from a file");
}

#[test]
fn the_end_of_input_leaves_output_alone() {
    let (mut rig, keyboard) = Rig::with_pipe();
    rig.receive.send(&[writable(BUFFER, 4)]);
    drop(keyboard);
    rig.transmit.write(BUFFER, b"x");
    rig.transmit.send(&[readable(BUFFER, 1)]);
    rig.transmit.wait_used(&rig.inbox, 1);
    assert_eq!(rig.screen.recv().unwrap(), b"x");
    assert_eq!(rig.receive.used(), []);
}

#[test]
fn input_goes_on_after_a_reset() {
    let (mut rig, mut keyboard) = Rig::with_pipe();
    rig.device.reset();
    keyboard.write_all(b"abc").unwrap();
    let memory = rig.receive.memory.clone();
    rig.receive = Driver::new(&memory, 0, 8);
    rig.transmit = Driver::new(&memory, 0x4000, 8);
    let (interrupt, inbox) = interrupt();
    let queues = vec![rig.receive.queue(0, 0), rig.transmit.queue(1, 0)];
    rig.device.activate(activation(&memory, 0, queues, interrupt)).unwrap();
    rig.inbox = inbox;
    rig.receive.send(&[writable(BUFFER, 8)]);
    rig.expect_input(b"abc");
}

#[test]
fn buffers_that_make_no_sense_come_back() {
    let (mut rig, mut keyboard) = Rig::with_pipe();
    rig.transmit.send(&[readable(0x30_0000, 8)]);
    rig.transmit.wait_used(&rig.inbox, 1);
    rig.transmit.send(&[writable(BUFFER, 8)]);
    rig.transmit.wait_used(&rig.inbox, 1);
    rig.receive.send(&[readable(BUFFER, 8)]);
    rig.receive.send(&[writable(0x30_0000, 8)]);
    rig.receive.send(&[writable(BUFFER, 8)]);
    keyboard.write_all(b"lost").unwrap();
    let lengths: Vec<_> = rig.receive.wait_used(&rig.inbox, 2).iter().map(|u| u.1).collect();
    assert_eq!(lengths, [0, 0]);
    keyboard.write_all(b"kept").unwrap();
    rig.expect_input(b"kept");
}

#[test]
fn a_loop_breaks_the_device() {
    let rig = Rig::new(None);
    let mut transmit = rig.transmit;
    transmit.write_descriptor(0, readable(BUFFER, 1), NEXT, 0);
    transmit.offer(0);
    transmit.kick();
    assert_eq!(rig.inbox.next(), Signal::NeedsReset);
}

#[test]
fn the_guest_learns_of_the_terminals_size() {
    let rig = Rig::new(None);
    rig.device.handle().resize(132, 43);
    assert_eq!(rig.inbox.next(), Signal::Configuration);
    let mut raw = [0; 4];
    rig.device.read_config(0, &mut raw);
    assert_eq!(raw, [132, 0, 43, 0]);
}
