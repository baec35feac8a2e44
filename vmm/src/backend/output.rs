//! What a guest prints, on its way to the host: a bounded buffer, and a thread that writes.
//!
//! The host may take output slowly or never: a pipe that nobody reads, a terminal stopped by
//! Ctrl-S. So no device writes to the host itself, where it would hold its lock, and its vCPU, for
//! as long as that lasts. It puts bytes here while there is room, and makes the guest wait otherwise
//! by its own means: a UART's transmitter is not empty, a virtqueue's buffer is not given back.
//!
//! A write(2) for each byte would double the cost of every byte the guest prints. So the thread
//! waits for the line's end, for [`GATHER`] bytes, or for [`FLUSH_AFTER`] (a prompt).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use crate::eintr::retry;
use crate::poison::unpoisoned;
use crate::threads;

/// What is kept of output that the host does not take.
pub const CAPACITY: usize = 32 << 10;
/// What a device may still send after it was told that there is no room: a UART's whole FIFO.
pub const RESERVE: usize = 16;
/// Bytes that do not wait for a line's end.
pub const GATHER: usize = 256;
/// How long an unfinished line may wait.
const FLUSH_AFTER: Duration = Duration::from_millis(10);
/// The most that is written at a time.
const PIECE: usize = 4096;
/// Between two attempts on a descriptor that someone made non-blocking, and between two looks at
/// whether a drain is still wanted.
const RETRY: Duration = Duration::from_millis(10);

#[derive(Default)]
struct State {
    buffer: VecDeque<u8>,
    /// When the oldest byte has to go, line or not.
    due: Option<Instant>,
    /// The buffer has a line's end, or what is in it does not wait for one.
    complete: bool,
    /// The thread is writing what it took out of the buffer.
    writing: bool,
    /// A device was told that there is no room, and not yet that there is.
    starved: bool,
    /// No device is left.
    closed: bool,
}

impl State {
    fn room(&self) -> usize {
        (CAPACITY - RESERVE).saturating_sub(self.buffer.len())
    }

    fn has_room(&self) -> bool {
        self.room() > 0
    }
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    on_room: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }
}

/// Where a device puts its output. Clones share one buffer; the thread ends when the last is
/// dropped and everything is written.
#[derive(Clone)]
pub struct Output(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    gather: bool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}

impl Output {
    /// Starts a thread called `name` that writes to `sink`, by lines or, without `gather`, each
    /// byte as soon as it can.
    ///
    /// # Errors
    /// The host refused a thread.
    pub fn new(name: &str, sink: Box<dyn Write + Send>, gather: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
            on_room: OnceLock::new(),
        });
        let writer = Writer { shared: Arc::clone(&shared), sink };
        let run = move || {
            // Where the writer would take the CPU from the vCPU at each byte, it comes when there are some.
            if !gather {
                threads::WakeUps::InTurn.choose();
            }
            writer.run();
        };
        threads::builder(name).spawn(run)?;
        Ok(Self(Arc::new(Handle { shared, gather })))
    }

    /// What to call, on the writing thread, when there is room again after [`Output::push`] said
    /// that there is none, or [`Output::room`] that there are 0 bytes. Only the first call counts.
    pub fn on_room(&self, notify: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.shared.on_room.set(Box::new(notify));
    }

    /// Puts as much of `bytes` into the buffer as fits and never waits. Tells how much that was,
    /// and whether there is room for more.
    pub fn push(&self, bytes: &[u8]) -> (usize, bool) {
        let mut state = self.0.shared.lock();
        let taken = bytes.len().min(CAPACITY - state.buffer.len());
        let bytes = &bytes[..taken];
        let was_complete = state.complete;
        let was_empty = state.buffer.is_empty();
        state.buffer.extend(bytes);
        state.complete |= !self.0.gather || state.buffer.len() >= GATHER || bytes.contains(&b'\n');
        if was_empty && taken > 0 {
            state.due = Some(Instant::now() + FLUSH_AFTER);
        }
        let room = state.has_room();
        state.starved |= !room;
        let news = taken > 0 && (was_empty || state.complete != was_complete) && !state.writing;
        drop(state);
        if news {
            self.0.shared.changed.notify_all();
        }
        (taken, room)
    }

    /// How many bytes may come now.
    pub fn room(&self) -> usize {
        let mut state = self.0.shared.lock();
        let room = state.room();
        state.starved |= room == 0;
        room
    }

    /// Whether there is room; asking does not make a notice follow.
    pub fn has_room(&self) -> bool {
        self.0.shared.lock().has_room()
    }

    /// Waits for room, but no longer than `timeout`.
    pub fn wait_for_room(&self, timeout: Duration) {
        let shared = &self.0.shared;
        let full = |state: &mut State| !state.has_room();
        drop(shared.changed.wait_timeout_while(shared.lock(), timeout, full));
    }

    /// Waits until everything is with the host, or until `given_up`. Tells whether it is.
    pub fn drain(&self, given_up: impl Fn() -> bool) -> bool {
        let shared = &self.0.shared;
        let mut state = shared.lock();
        state.complete = true;
        shared.changed.notify_all();
        loop {
            if state.buffer.is_empty() && !state.writing {
                return true;
            }
            if given_up() {
                return false;
            }
            let waited = shared.changed.wait_timeout(state, RETRY);
            state = unpoisoned(waited).0;
        }
    }
}

/// What the thread has: it takes from the buffer and writes to the host.
struct Writer {
    shared: Arc<Shared>,
    sink: Box<dyn Write + Send>,
}

impl Writer {
    fn run(mut self) {
        while let Some(piece) = self.next() {
            self.write(&piece);
            self.shared.lock().writing = false;
            self.shared.changed.notify_all();
        }
    }

    /// Waits for something to write; `None` when there is nothing left and nobody to send more.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.shared.lock();
        loop {
            let left = state.due.map(|due| due.saturating_duration_since(Instant::now()));
            let ready = state.complete || state.closed || left.is_some_and(|left| left.is_zero());
            state = match (state.buffer.is_empty(), ready, left) {
                (true, ..) if state.closed => return None,
                (false, true, _) => break,
                (false, false, Some(left)) => {
                    let waited = self.shared.changed.wait_timeout(state, left);
                    unpoisoned(waited).0
                }
                _ => unpoisoned(self.shared.changed.wait(state)),
            };
        }
        let size = state.buffer.len().min(PIECE);
        let piece = state.buffer.drain(..size).collect();
        state.complete &= !state.buffer.is_empty();
        state.due = (!state.buffer.is_empty()).then(Instant::now);
        state.writing = true;
        let relieved = state.has_room() && std::mem::take(&mut state.starved);
        drop(state);
        self.shared.changed.notify_all();
        if relieved && let Some(notify) = self.shared.on_room.get() {
            notify();
        }
        Some(piece)
    }

    /// Bytes that the host refuses are lost, as on a real line with nothing at the other end.
    fn write(&mut self, mut rest: &[u8]) {
        while !rest.is_empty() {
            match retry(|| self.sink.write(rest)) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(RETRY),
                Err(_) => break,
            }
        }
        let _ = self.sink.flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Long enough to never matter; the tests wait for conditions.
    const LONG: Duration = Duration::from_secs(60);

    struct Screen(Sender<Vec<u8>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn screen(gather: bool) -> (Output, Receiver<Vec<u8>>) {
        let (sender, writes) = channel();
        (Output::new("test", Box::new(Screen(sender)), gather).unwrap(), writes)
    }

    /// Takes nothing until it is released.
    struct Stuck {
        entered: Sender<()>,
        released: Receiver<()>,
        written: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.entered.send(());
            let _ = self.released.recv();
            let _ = self.written.send(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_as_one() {
        let (output, writes) = screen(true);
        for byte in b"one\n" {
            output.push(&[*byte]);
        }
        let mut line = writes.recv_timeout(LONG).unwrap();
        while line.len() < 4 {
            // A busy host may have let the time for an unfinished line pass.
            line.extend(writes.recv_timeout(LONG).unwrap());
        }
        assert_eq!(line, b"one\n");
    }

    #[test]
    fn a_prompt_without_line_end_comes_out_and_so_do_single_bytes() {
        for gather in [true, false] {
            let (output, writes) = screen(gather);
            output.push(b"login: ");
            let mut prompt = Vec::new();
            while prompt.len() < 7 {
                prompt.extend(writes.recv_timeout(LONG).unwrap());
            }
            assert_eq!(prompt, b"login: ");
        }
    }

    #[test]
    fn a_host_that_takes_nothing_holds_up_nobody_and_costs_a_bounded_buffer() {
        let (entered, in_write) = channel();
        let (release, released) = channel::<()>();
        let (written, writes) = channel();
        let sink = Stuck { entered, released, written };
        let output = Output::new("test", Box::new(sink), true).unwrap();
        assert_eq!(output.push(b"first\n"), (6, true));
        in_write.recv_timeout(LONG).unwrap();
        let mut sent = 6;
        loop {
            let (taken, room) = output.push(&[b'x'; 1000]);
            sent += taken;
            assert_eq!(room, sent - 6 + RESERVE < CAPACITY);
            if taken == 0 {
                break;
            }
        }
        assert_eq!(sent, 6 + CAPACITY);
        output.wait_for_room(Duration::from_millis(1));
        assert!(!output.has_room());
        assert!(!output.drain(|| true), "given up");

        // Once somebody reads, everything arrives, and who waits for room hears of it.
        let (notify, notices) = channel();
        output.on_room(move || notify.send(()).unwrap_or_default());
        drop(release);
        assert!(output.drain(|| false) && output.has_room());
        notices.recv_timeout(LONG).unwrap();
        drop(output);
        assert_eq!(writes.iter().flatten().count(), sent);
    }

    #[test]
    fn what_is_left_is_written_when_the_device_goes_and_a_reader_that_left_is_no_matter() {
        let (output, writes) = screen(true);
        output.push(b"the end");
        drop(output);
        let all: Vec<u8> = writes.iter().flatten().collect();
        assert_eq!(all, b"the end");

        let (reader, writer) = io::pipe().unwrap();
        let output = Output::new("test", Box::new(writer), true).unwrap();
        drop(reader);
        output.push(b"into the void\n");
        assert!(output.drain(|| false), "EPIPE ends the wait");
    }
}
