//! The host's end of the control channel to a guest's init.
//!
//! The guest's serial line is written by the VMM into a [`Receiver`]; what the host has to say
//! goes through a [`Sender`] into the pipe that the VMM feeds the line from.
//!
//! Nothing here waits for the guest but the thread that passes standard input on: a guest may say
//! anything, and may never read its line.

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use isolab_protocol::{Decoder, Frame, FrameError, STDIN_WINDOW};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// What a guest says of its workload's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkloadReport {
    /// With this exit code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
    /// It never started; the exit code for that (126, 127) and why.
    NotStarted(u8, String),
    /// Init failed, or what came was not from init.
    Failed(String),
}

/// Takes the bytes of the guest's line: output goes where it belongs at once, the end is told.
pub struct Receiver<O, E, F> {
    decoder: Decoder,
    /// Until writing to it fails.
    stdout: Option<O>,
    stderr: Option<E>,
    sender: Sender,
    on_end: Option<F>,
}

impl<O: Write, E: Write, F: FnOnce(WorkloadReport)> Receiver<O, E, F> {
    /// `on_end` is called once, when the workload's end is known. Through `sender` the guest hears
    /// that nobody reads its output any more.
    pub fn new(stdout: O, stderr: E, sender: Sender, on_end: F) -> Self {
        let (stdout, stderr, on_end) = (Some(stdout), Some(stderr), Some(on_end));
        Self { decoder: Decoder::default(), stdout, stderr, sender, on_end }
    }

    fn take(&mut self, frame: Frame) {
        self.sender.credit.note_listener();
        match frame {
            Frame::Stdout(data) => {
                pass_on(&mut self.stdout, &data, &self.sender, &Frame::StdoutClosed)
            }
            Frame::Stderr(data) => {
                pass_on(&mut self.stderr, &data, &self.sender, &Frame::StderrClosed)
            }
            Frame::StdinCredit(count) => self.sender.credit.give(count as usize),
            Frame::NotStarted(code, why) => self.end(WorkloadReport::NotStarted(code, why)),
            Frame::Exited(code) => self.end(WorkloadReport::Exited(code)),
            Frame::Killed(signal) => self.end(WorkloadReport::Killed(signal)),
            Frame::Failed(why) => self.end(WorkloadReport::Failed(why)),
            other @ (Frame::Stdin(_)
            | Frame::Signal(_)
            | Frame::StdoutClosed
            | Frame::StderrClosed) => {
                self.end(WorkloadReport::Failed(format!("the guest sent {other:?}")));
            }
        }
    }

    fn end(&mut self, end: WorkloadReport) {
        self.sender.credit.close();
        if let Some(on_end) = self.on_end.take() {
            on_end(end);
        }
    }

    fn broken(&mut self, error: &FrameError) {
        self.end(WorkloadReport::Failed(error.to_string()));
    }
}

/// Writes output where it belongs, at once: it may be half a line that asks for an answer. Where
/// nobody takes it, the guest is told so, once, and its workload finds the pipe closed as it would
/// without a machine between.
fn pass_on<W: Write>(output: &mut Option<W>, data: &[u8], sender: &Sender, closed: &Frame) {
    let Some(stream) = output else { return };
    if stream.write_all(data).and_then(|()| stream.flush()).is_err() {
        *output = None;
        // A machine that is gone does not have to know, and one that does not read will not.
        let _ = sender.send(closed);
    }
}

impl<O: Write, E: Write, F: FnOnce(WorkloadReport)> Write for Receiver<O, E, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // After the end nothing the guest says matters.
        if self.on_end.is_some() {
            self.decoder.push(bytes);
            loop {
                match self.decoder.next_frame() {
                    Ok(Some(frame)) => self.take(frame),
                    Ok(None) => break,
                    Err(error) => {
                        self.broken(&error);
                        break;
                    }
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much standard input the guest can take now.
#[derive(Debug)]
pub struct Credit {
    state: Mutex<CreditState>,
    changed: Condvar,
}

#[derive(Debug)]
struct CreditState {
    bytes: usize,
    /// The guest has spoken, so it listens.
    listening: bool,
    open: bool,
}

impl Default for Credit {
    fn default() -> Self {
        let state = CreditState { bytes: 0, listening: false, open: true };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl Credit {
    fn state(&self) -> MutexGuard<'_, CreditState> {
        // Every change to it is one assignment, so that it is whole whoever panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, count: usize) {
        let mut state = self.state();
        state.bytes = state.bytes.saturating_add(count).min(STDIN_WINDOW);
        self.changed.notify_all();
    }

    /// The guest has said something: init does so first when it has opened its line.
    fn note_listener(&self) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.listening, true) {
            self.changed.notify_all();
        }
    }

    /// Whether the guest may be sent something.
    ///
    /// # Errors
    /// Why not.
    fn check_listener(&self) -> io::Result<()> {
        let state = self.state();
        match (state.open, state.listening) {
            (true, true) => Ok(()),
            (true, false) => Err(io::ErrorKind::NotConnected.into()),
            (false, _) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn close(&self) {
        self.state().open = false;
        self.changed.notify_all();
    }

    /// Waits until the guest listens; false when the workload ended before it did.
    fn wait_for_listener(&self) -> bool {
        let state = self.state();
        let state = self.changed.wait_while(state, |s| s.open && !s.listening);
        state.unwrap_or_else(PoisonError::into_inner).open
    }

    /// Takes up to `wanted` bytes of credit, waiting for some; `None` when the workload ended.
    fn take(&self, wanted: usize) -> Option<usize> {
        let state = self.state();
        let mut state = self
            .changed
            .wait_while(state, |s| s.open && s.bytes == 0)
            .unwrap_or_else(PoisonError::into_inner);
        let granted = state.open.then(|| wanted.min(state.bytes))?;
        state.bytes -= granted;
        Some(granted)
    }
}

/// Sends to the guest. Clones share one line; frames never mix.
#[derive(Clone)]
pub struct Sender {
    /// Does not block. The lock is held for the moment of a write.
    line: Arc<Mutex<File>>,
    credit: Arc<Credit>,
}

impl Sender {
    /// `line` is the write end of the pipe that feeds the guest's serial line.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn new(line: File, credit: Arc<Credit>) -> io::Result<Self> {
        fcntl(&line, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { line: Arc::new(Mutex::new(line)), credit })
    }

    /// Sends nothing more: who waits for the guest hears `BrokenPipe`.
    pub fn close(&self) {
        self.credit.close();
    }

    /// Sends a signal to the workload. Never waits.
    ///
    /// # Errors
    /// `BrokenPipe` when the workload has ended or the machine is gone, `NotConnected` when the
    /// guest has not spoken yet, `WouldBlock` when it does not read its line.
    pub fn signal(&self, number: u8) -> io::Result<()> {
        self.send(&Frame::Signal(number))
    }

    /// Sends a piece of standard input, waiting until the workload has room for it.
    ///
    /// # Errors
    /// `BrokenPipe` when the workload has ended, `WouldBlock` when the guest asks for input and
    /// does not read it.
    pub fn stdin(&self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            // At most STDIN_WINDOW, so that the frame goes into a pipe as a whole (PIPE_BUF).
            let granted = self.credit.take(data.len()).ok_or(io::ErrorKind::BrokenPipe)?;
            let (piece, rest) = data.split_at(granted);
            self.send(&Frame::Stdin(piece.to_vec()))?;
            data = rest;
        }
        Ok(())
    }

    /// Ends standard input, once the guest listens.
    ///
    /// # Errors
    /// As [`Sender::stdin`].
    pub fn end_stdin(&self) -> io::Result<()> {
        if !self.credit.wait_for_listener() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.send(&Frame::Stdin(Vec::new()))
    }

    /// What a guest has not read of its line is bounded by the credit it gave for input, a window of
    /// it, and a few bytes for each signal: far less than the pipe holds. One that leaves the pipe
    /// to fill up has broken the protocol, and what is not sent to it then is no loss.
    fn send(&self, frame: &Frame) -> io::Result<()> {
        self.credit.check_listener()?;
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.write_all(&frame.encode())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::mpsc;
    use std::thread;

    type TestReceiver = Receiver<Vec<u8>, Vec<u8>, Box<dyn FnOnce(WorkloadReport)>>;

    /// Into memory; what it sends to the guest goes nowhere.
    fn receiver(credit: Arc<Credit>) -> (TestReceiver, mpsc::Receiver<WorkloadReport>) {
        let (sender, ends) = mpsc::channel();
        let on_end = Box::new(move |end| sender.send(end).unwrap());
        let nowhere = File::options().write(true).open("/dev/null").unwrap();
        let sender = Sender::new(nowhere, credit).unwrap();
        (Receiver::new(Vec::new(), Vec::new(), sender, on_end), ends)
    }

    #[test]
    fn output_is_told_apart_and_the_end_is_told_once() {
        let (mut receiver, ends) = receiver(Arc::default());
        for frame in [
            Frame::Stdout(b"out".to_vec()),
            Frame::Stderr(b"err".to_vec()),
            Frame::Exited(3),
            Frame::Exited(4),
            Frame::Stdout(b"late".to_vec()),
        ] {
            receiver.write_all(&frame.encode()).unwrap();
        }
        assert_eq!(receiver.stdout.unwrap(), b"out");
        assert_eq!(receiver.stderr.unwrap(), b"err");
        assert_eq!(ends.try_iter().collect::<Vec<_>>(), [WorkloadReport::Exited(3)]);
    }

    #[test]
    fn a_guest_hears_once_that_nobody_reads_its_output() {
        let (mut reader, writer) = io::pipe().unwrap();
        let writer: std::os::fd::OwnedFd = writer.into();
        let sender = Sender::new(File::from(writer), Arc::default()).unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut receiver = Receiver::new(full, Vec::new(), sender, |_| ());
        for frame in [
            Frame::StdinCredit(1),
            Frame::Stdout(b"lost".to_vec()),
            Frame::Stdout(b"too".to_vec()),
            Frame::Stderr(b"kept".to_vec()),
        ] {
            receiver.write_all(&frame.encode()).unwrap();
        }
        assert_eq!(receiver.stderr.as_deref(), Some(&b"kept"[..]));
        drop(receiver);
        let mut sent = Vec::new();
        reader.read_to_end(&mut sent).unwrap();
        assert_eq!(sent, Frame::StdoutClosed.encode());
    }

    #[test]
    fn a_guest_that_breaks_the_protocol_ends_as_failed() {
        for bytes in [&[0x77, 0, 0][..], &Frame::Signal(9).encode(), &[1, 0xff, 0xff]] {
            let (mut receiver, ends) = receiver(Arc::default());
            receiver.write_all(bytes).unwrap();
            assert!(matches!(ends.try_recv().unwrap(), WorkloadReport::Failed(_)));
            receiver.write_all(&[0x77; 100_000]).unwrap();
            assert!(ends.try_recv().is_err());
        }
    }

    #[test]
    fn stdin_waits_for_the_workload_and_stops_at_its_end() {
        let (mut reader, writer) = io::pipe().unwrap();
        let credit = Arc::new(Credit::default());
        let writer: std::os::fd::OwnedFd = writer.into();
        let sender = Sender::new(File::from(writer), Arc::clone(&credit)).unwrap();
        let feeder = thread::spawn(move || sender.stdin(&[b'x'; 3 * STDIN_WINDOW]));

        let (mut receiver, _ends) = receiver(credit);
        let credit = Frame::StdinCredit(STDIN_WINDOW as u32);
        receiver.write_all(&credit.encode()).unwrap();
        let mut decoder = Decoder::default();
        let mut arrived = 0;
        while arrived < 2 * STDIN_WINDOW {
            let mut buffer = [0; 512];
            let count = reader.read(&mut buffer).unwrap();
            decoder.push(&buffer[..count]);
            while let Some(Frame::Stdin(data)) = decoder.next_frame().unwrap() {
                arrived += data.len();
                if arrived == STDIN_WINDOW {
                    receiver.write_all(&credit.encode()).unwrap();
                }
            }
        }
        // Two windows came, the second of them after credit; the third is never asked for.
        receiver.write_all(&Frame::Exited(0).encode()).unwrap();
        let error = feeder.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(arrived, 2 * STDIN_WINDOW);
    }

    fn line(credit: &Arc<Credit>) -> (Sender, io::PipeReader) {
        let (reader, writer) = io::pipe().unwrap();
        let writer: std::os::fd::OwnedFd = writer.into();
        (Sender::new(File::from(writer), Arc::clone(credit)).unwrap(), reader)
    }

    /// The thread that reads the guest's line never waits for the guest, whose next word only it
    /// could hear.
    #[test]
    fn output_before_any_credit_that_nobody_takes_holds_up_nothing() {
        let credit = Arc::<Credit>::default();
        let (sender, _reader) = line(&credit);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut receiver = Receiver::new(full, Vec::new(), sender, |_| ());
        receiver.write_all(&Frame::Stdout(b"lost".to_vec()).encode()).unwrap();
        receiver.write_all(&Frame::Stderr(b"kept".to_vec()).encode()).unwrap();
        assert_eq!(receiver.stderr.as_deref(), Some(&b"kept"[..]));
    }

    #[test]
    fn a_guest_that_asks_for_input_and_never_reads_it_holds_up_nothing() {
        let credit = Arc::<Credit>::default();
        let (sender, _reader) = line(&credit);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut receiver = Receiver::new(full, Vec::new(), sender.clone(), |_| ());
        let feeder = {
            let sender = sender.clone();
            thread::spawn(move || {
                loop {
                    if let Err(error) = sender.stdin(&[b'x'; STDIN_WINDOW]) {
                        return error;
                    }
                }
            })
        };
        let generous = Frame::StdinCredit(STDIN_WINDOW as u32).encode();
        while !feeder.is_finished() {
            receiver.write_all(&generous).unwrap();
        }
        assert_eq!(feeder.join().unwrap().kind(), io::ErrorKind::WouldBlock);
        receiver.write_all(&Frame::Stdout(b"lost".to_vec()).encode()).unwrap();
        while sender.signal(15).is_ok() {}
        assert_eq!(sender.signal(15).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_signal_never_waits_for_a_guest_that_has_not_spoken() {
        let credit = Arc::<Credit>::default();
        let (sender, mut reader) = line(&credit);
        assert_eq!(sender.signal(15).unwrap_err().kind(), io::ErrorKind::NotConnected);
        let mut receiver = Receiver::new(io::sink(), io::sink(), sender.clone(), |_| ());
        receiver.write_all(&Frame::StdinCredit(1).encode()).unwrap();
        sender.signal(15).unwrap();
        receiver.write_all(&Frame::Exited(0).encode()).unwrap();
        assert_eq!(sender.signal(15).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop((sender, receiver));
        let mut sent = Vec::new();
        reader.read_to_end(&mut sent).unwrap();
        assert_eq!(sent, Frame::Signal(15).encode());
    }
}
