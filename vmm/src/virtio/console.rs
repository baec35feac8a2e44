//! virtio-console (virtio 1.2, 5.3) with one port: a terminal without a UART's exit per byte.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::chain::{self, ChainFault};
use super::queue::{BrokenQueue, DeviceQueue, take_queue};
use super::stats::QueueCounters;
use super::worker::{EventHandler, EventSources, Flow, Worker};
use super::{ActivateError, Activation, BASE_FEATURES, VirtioDevice, read_config_bytes};
use crate::backend::disk::GuestSegment;
use crate::backend::output::Output;
use crate::irq::VirtioInterrupt;

const NAME: &str = "virtio-console";
const QUEUE_SIZE: u16 = 64;
/// `VIRTIO_CONSOLE_F_SIZE` (5.3.3).
const F_SIZE: u32 = 0;
/// Bytes moved at a time.
const PIECE: usize = 4096;
/// The longest output buffer; longer ones are refused. Linux sends at most 32 KiB.
const MAX_OUTPUT: u64 = 1 << 20;
/// Buffers handled before the thread looks at its other events.
const MAX_BATCH: usize = 256;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

const RECEIVE_NOTIFIED: u32 = 0;
const TRANSMIT_NOTIFIED: u32 = 1;
const INPUT_READABLE: u32 = 2;
const OUTPUT_ROOM: u32 = 3;

/// The console device.
pub struct Console {
    ends: Option<Ends>,
    shared: Arc<Shared>,
    counters: [Arc<QueueCounters>; 2],
    worker: Option<Worker<ConsoleQueues>>,
}

/// The host's side; goes to the worker and comes back at a reset.
struct Ends {
    output: Output,
    /// Signalled when `output` has room again.
    room: Arc<EventFd>,
    input: Option<File>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Terminal>,
}

#[derive(Default)]
struct Terminal {
    columns: u16,
    rows: u16,
    interrupt: Option<Arc<dyn VirtioInterrupt>>,
}

/// Tells the guest the terminal's size.
#[derive(Clone)]
pub struct ConsoleHandle(Arc<Shared>);

impl ConsoleHandle {
    /// The terminal has this size now (`SIGWINCH`).
    pub fn resize(&self, columns: u16, rows: u16) {
        let interrupt = {
            let mut state = self.0.lock();
            (state.columns, state.rows) = (columns, rows);
            state.interrupt.clone()
        };
        if let Some(interrupt) = interrupt {
            interrupt.configuration_changed();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Terminal> {
        // Plain values are never left half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Console {
    /// A console that sends what the guest prints to `output`, no faster than that takes it, and
    /// gives it what can be read from `input`, until that ends.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn new(output: Output, input: Option<OwnedFd>) -> io::Result<Self> {
        let room = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let told = Arc::clone(&room);
        // Fails only when the counter is full, and then it is readable.
        output.on_room(move || drop(told.write(1)));
        Ok(Self {
            ends: Some(Ends { output, room, input: input.map(File::from) }),
            shared: Arc::default(),
            counters: Default::default(),
            worker: None,
        })
    }

    /// For telling the guest of a changed terminal.
    pub fn handle(&self) -> ConsoleHandle {
        ConsoleHandle(Arc::clone(&self.shared))
    }

    /// What each queue did, by number: receive, transmit.
    pub fn counters(&self) -> Vec<Arc<QueueCounters>> {
        self.counters.to_vec()
    }
}

impl VirtioDevice for Console {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn device_features(&self) -> u64 {
        BASE_FEATURES | 1 << F_SIZE
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (columns, rows) = {
            let state = self.shared.lock();
            (state.columns, state.rows)
        };
        let mut bytes = [0; 12];
        bytes[..2].copy_from_slice(&columns.to_le_bytes());
        bytes[2..4].copy_from_slice(&rows.to_le_bytes());
        // max_nr_ports, of which there is one without MULTIPORT.
        bytes[4] = 1;
        read_config_bytes(&bytes, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let interrupt = Arc::clone(&activation.interrupt);
        let mut queues = DeviceQueue::from_activation(activation, &self.counters);
        let receive = take_queue(&mut queues, RECEIVE, NAME)?;
        let transmit = take_queue(&mut queues, TRANSMIT, NAME)?;
        let ends = self.ends.take().ok_or_else(|| ActivateError::Host {
            device: NAME,
            action: "find its terminal, which a thread that panicked has lost",
            source: io::ErrorKind::NotConnected.into(),
        })?;
        let handler = ConsoleQueues {
            receive,
            transmit,
            ends,
            printing: None,
            watching: false,
            pollable: true,
        };
        let worker = Worker::spawn("virtio-console", handler);
        self.worker = Some(worker.map_err(|source| ActivateError::Host {
            device: NAME,
            action: "cannot start its thread",
            source,
        })?);
        self.shared.lock().interrupt = Some(interrupt);
        Ok(())
    }

    fn reset(&mut self) {
        self.shared.lock().interrupt = None;
        if let Some(queues) = self.worker.take().and_then(Worker::stop) {
            self.ends = Some(queues.ends);
        }
    }
}

struct ConsoleQueues {
    receive: DeviceQueue,
    transmit: DeviceQueue,
    ends: Ends,
    /// A buffer of the guest's that the host's side had no room for.
    printing: Option<Printing>,
    /// Whether the loop waits for input: only while the guest has room for it.
    watching: bool,
    /// Cleared for files, which are always readable and cannot be waited for.
    pollable: bool,
}

/// A buffer on its way out.
struct Printing {
    head: u16,
    /// Not yet passed on.
    rest: Vec<GuestSegment>,
    /// Bytes in all, for the statistics.
    length: u64,
}

/// What became of a [`Printing`].
enum Printed {
    All,
    /// It goes on when there is room.
    Part,
    /// It lies outside RAM, or was longer than any console's.
    Refused,
}

impl ConsoleQueues {
    /// Prints what the guest wrote, as far as the host's side has room.
    fn transmit(&mut self) -> Result<(), BrokenQueue> {
        let mut taken = 0;
        loop {
            self.transmit.disable_notifications()?;
            while let Some(mut printing) = self.next_output()? {
                match self.print(&mut printing) {
                    Printed::All => self.transmit.counters().request(printing.length),
                    Printed::Refused => self.transmit.counters().error(),
                    Printed::Part => {
                        // The room wakes us; the driver's notifications would be for nothing.
                        self.printing = Some(printing);
                        return self.transmit.announce();
                    }
                }
                self.transmit.push(printing.head, 0)?;
                taken += 1;
                if taken == MAX_BATCH {
                    self.transmit.notify_self();
                    return self.transmit.announce();
                }
            }
            self.transmit.announce()?;
            if !self.transmit.enable_notifications()? {
                return Ok(());
            }
        }
    }

    fn next_output(&mut self) -> Result<Option<Printing>, BrokenQueue> {
        if let Some(printing) = self.printing.take() {
            return Ok(Some(printing));
        }
        let Some(request) = self.transmit.pop()? else { return Ok(None) };
        if request.fault == Some(ChainFault::Endless) {
            return Err(self.transmit.broken("a buffer's descriptor chain has no end"));
        }
        let length = request.readable_length();
        Ok(Some(Printing { head: request.head, rest: request.readable, length }))
    }

    fn print(&self, printing: &mut Printing) -> Printed {
        if printing.length > MAX_OUTPUT {
            return Printed::Refused;
        }
        let mut piece = [0; PIECE];
        loop {
            let left = chain::length(&printing.rest);
            if left == 0 {
                return Printed::All;
            }
            let room = self.ends.output.room();
            if room == 0 {
                return Printed::Part;
            }
            // At most PIECE.
            let size = left.min(PIECE as u64).min(room as u64);
            let piece = &mut piece[..size as usize];
            let rest = std::mem::take(&mut printing.rest);
            let Some((head, tail)) = chain::split_at(rest, size) else { return Printed::Refused };
            if chain::read(self.transmit.memory(), &head, piece).is_none() {
                return Printed::Refused;
            }
            self.ends.output.push(piece);
            printing.rest = tail;
        }
    }

    /// Passes input on for as long as there is some and the guest has room.
    fn receive(&mut self, sources: &EventSources) -> Result<(), BrokenQueue> {
        let mut room = true;
        self.receive.disable_notifications()?;
        for _ in 0..MAX_BATCH {
            if self.ends.input.is_none() {
                break;
            }
            let Some(request) = self.receive.pop()? else {
                if self.receive.enable_notifications()? {
                    self.receive.disable_notifications()?;
                    continue;
                }
                room = false;
                break;
            };
            if request.fault == Some(ChainFault::Endless) {
                return Err(self.receive.broken("a buffer's descriptor chain has no end"));
            }
            let mut piece = [0; PIECE];
            let size = usize::try_from(request.writable_length()).unwrap_or(PIECE);
            let piece = &mut piece[..size.min(PIECE)];
            if piece.is_empty() {
                self.receive.counters().error();
                self.receive.push(request.head, 0)?;
                continue;
            }
            let Some(count) = self.read_input(piece, sources) else {
                self.receive.undo_pop();
                break;
            };
            let written = chain::write(self.receive.memory(), &request.writable, &piece[..count]);
            match written {
                Some(written) => self.receive.counters().request(written as u64),
                None => self.receive.counters().error(),
            }
            // At most PIECE.
            self.receive.push(request.head, written.unwrap_or(0) as u32)?;
            if self.pollable {
                // A further read could block; the loop tells when it will not.
                break;
            }
        }
        self.receive.announce()?;
        self.watch_input(room, sources);
        Ok(())
    }

    /// `None`: nothing now, or, with `ends.input` gone, nothing ever again.
    fn read_input(&mut self, piece: &mut [u8], sources: &EventSources) -> Option<usize> {
        let input = self.ends.input.as_mut()?;
        match input.read(piece) {
            Ok(count @ 1..) => return Some(count),
            Err(error) if is_transient(&error) => return None,
            Ok(0) | Err(_) => {}
        }
        // Before closing: a duplicate elsewhere would keep it watched for good.
        if self.watching {
            let _ = sources.unwatch(input.as_raw_fd());
            self.watching = false;
        }
        self.ends.input = None;
        None
    }

    /// Waits for input only while the guest has room for it: a level-triggered descriptor that
    /// nobody reads would spin the loop. (`modify` with an empty set would not do, since hang-ups
    /// are reported regardless.)
    fn watch_input(&mut self, wanted: bool, sources: &EventSources) {
        let Some(input) = &self.ends.input else {
            return;
        };
        if !self.pollable {
            if wanted {
                // Always readable: come back for the rest.
                self.receive.notify_self();
            }
            return;
        }
        let fd = input.as_raw_fd();
        if wanted && !self.watching {
            self.watching = sources.watch(fd, EventSet::IN, INPUT_READABLE).is_ok();
        } else if !wanted && self.watching {
            self.watching = sources.unwatch(fd).is_err();
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    let kind = error.kind();
    kind == io::ErrorKind::WouldBlock || kind == io::ErrorKind::Interrupted
}

impl EventHandler for ConsoleQueues {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.receive.notify_fd(), RECEIVE_NOTIFIED)?;
        sources.watch_event(self.transmit.notify_fd(), TRANSMIT_NOTIFIED)?;
        sources.watch_event(self.ends.room.as_raw_fd(), OUTPUT_ROOM)?;
        if let Some(input) = &self.ends.input {
            match sources.watch(input.as_raw_fd(), EventSet::IN, INPUT_READABLE) {
                Ok(()) => self.watching = true,
                // A file, or /dev/null.
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => self.pollable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn start(&mut self, sources: &EventSources) -> Flow {
        if !self.pollable && Flow::from(self.receive(sources)) == Flow::Stop {
            return Flow::Stop;
        }
        Flow::from(self.transmit())
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> Flow {
        match token {
            TRANSMIT_NOTIFIED => {
                self.transmit.counters().notification();
                Flow::from(self.transmit())
            }
            OUTPUT_ROOM => Flow::from(self.transmit()),
            RECEIVE_NOTIFIED => {
                self.receive.counters().notification();
                if !self.pollable {
                    return Flow::from(self.receive(sources));
                }
                // Room for input: wait for it, since a read now could block.
                self.watch_input(true, sources);
                Flow::Continue
            }
            _ => Flow::from(self.receive(sources)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeWriter, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::super::testing::{
        Driver, Inbox, NEXT, Told, activation, interrupt, memory, readable, writable,
    };
    use super::*;

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
        assert_eq!(rig.inbox.next(), Told::NeedsReset);
    }

    #[test]
    fn the_guest_learns_of_the_terminals_size() {
        let rig = Rig::new(None);
        rig.device.handle().resize(132, 43);
        assert_eq!(rig.inbox.next(), Told::Configuration);
        let mut raw = [0; 4];
        rig.device.read_config(0, &mut raw);
        assert_eq!(raw, [132, 0, 43, 0]);
    }
}
