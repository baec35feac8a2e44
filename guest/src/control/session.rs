//! The conversation with one guest.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isolab_protocol::{
    Decoder, Frame, FromGuest, FromHost, Message, ProcessId, STDIN_WINDOW, Stream, Task, WORKLOAD,
    WindowSize, mailbox::SLOT,
};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::input::Input;
use super::mailbox::Mailbox;
use super::outgoing::Outgoing;
use super::output::Output;
use super::{ControlError, ProcessEnd, Streams};
use crate::threads;

/// Processes beside the workload, at a time.
pub const MAX_PROCESSES: usize = 64;

/// How long a process that is to be started waits for the guest to come up.
const COME_UP: Duration = Duration::from_secs(60);
/// How long a guest that is up may take to start it.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a guest that closed the channel may live on.
const GO_DOWN: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const PIECE: usize = 128 << 10;

type OnEnd = Box<dyn FnOnce(ProcessEnd) + Send>;

/// See the module. Clones are the same conversation, which goes on until [`Session::close`].
#[derive(Clone, Debug)]
pub struct Session(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// Does not block.
    socket: UnixStream,
    /// Has the reading thread look at what is to be sent.
    wake: PipeWriter,
    state: Mutex<State>,
    changed: Condvar,
    /// The longest request that there is room for, in bytes.
    longest_request: usize,
}

#[derive(Debug)]
struct State {
    outgoing: Outgoing,
    processes: BTreeMap<ProcessId, Process>,
    last_id: ProcessId,
    /// The guest has spoken, so it listens.
    is_listening: bool,
    is_open: bool,
    has_run_out_of_memory: bool,
    /// For the reading thread, once.
    woken: Option<PipeReader>,
}

/// A process whose end is not known, or not told yet.
struct Process {
    outputs: [Option<Arc<Output>>; 2],
    /// The guest has said that it runs.
    has_started: bool,
    /// Bytes of standard input that it has room for.
    stdin_credit: usize,
    /// Not yet passed on.
    stdin: Option<OwnedFd>,
    input: Option<Input>,
    end: Option<ProcessEnd>,
    on_end: Option<OnEnd>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("end", &self.end).finish_non_exhaustive()
    }
}

impl Process {
    fn new(streams: Streams, on_end: OnEnd) -> Self {
        let outputs = [Some(streams.stdout), streams.stderr].map(|target| target.map(Output::new));
        Self {
            outputs,
            has_started: false,
            stdin_credit: 0,
            stdin: streams.stdin,
            input: None,
            end: None,
            on_end: Some(on_end),
        }
    }

    /// Nothing more comes of it. Its end is told when everything is written.
    fn finish(&mut self, end: ProcessEnd) {
        if self.end.is_none() {
            self.end = Some(end);
            self.input = None;
            self.outputs.iter().flatten().for_each(|output| output.finish());
        }
    }

    fn is_starting(&self) -> bool {
        !self.has_started && self.end.is_none()
    }

    /// Whether its end is known and everything of it is written.
    fn is_over(&self) -> bool {
        self.end.is_some() && !self.outputs.iter().flatten().any(|output| output.is_busy())
    }
}

/// A process's end that is to be told, without any lock held.
type Told = Option<(OnEnd, ProcessEnd)>;

fn tell(told: Told) {
    if let Some((on_end, end)) = told {
        on_end(end);
    }
}

impl Session {
    /// A conversation over `socket`, and `mailbox` for what is long, about the workload, which has
    /// `streams`; `on_end` hears its end, once. It begins with [`Session::start`].
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn new(
        socket: UnixStream,
        mailbox: Option<Mailbox>,
        streams: Streams,
        on_end: impl FnOnce(ProcessEnd) + Send + 'static,
    ) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (woken, wake) = io::pipe()?;
        for end in [woken.as_fd(), wake.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let longest_request = if mailbox.is_some() { SLOT } else { FromHost::MAX_PAYLOAD };
        let workload = Process::new(streams, Box::new(on_end));
        let state = State {
            outgoing: Outgoing::new(mailbox),
            processes: BTreeMap::from([(WORKLOAD, workload)]),
            last_id: WORKLOAD,
            is_listening: false,
            is_open: true,
            has_run_out_of_memory: false,
            woken: Some(woken),
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Ok(Self(Arc::new(Shared { socket, wake, state, changed, longest_request })))
    }

    /// Begins to read what the guest says, and the workload's input.
    ///
    /// # Errors
    /// The host refused a thread.
    pub fn start(&self) -> io::Result<()> {
        let mut state = self.state();
        let workload = state.processes.get(&WORKLOAD);
        let stdout = workload.and_then(|workload| workload.outputs[0].clone());
        let woken = state.woken.take();
        drop(state);
        if let Some(woken) = woken {
            let session = self.clone();
            threads::builder("control").spawn(move || session.run(&woken))?;
        }
        if let Some(stdout) = stdout {
            stdout.begin((self, WORKLOAD, Stream::Stdout));
        }
        self.start_input(WORKLOAD)
    }

    fn start_input(&self, id: ProcessId) -> io::Result<()> {
        let mut state = self.state();
        if let Some(process) = state.processes.get_mut(&id)
            && let Some(source) = process.stdin.take()
        {
            process.input = Some(Input::start(self.clone(), id, source)?);
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change to it is whole before anything can panic.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the conversation: nothing more is sent or passed on, and who waits hears `BrokenPipe`.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_open = false;
        let processes = std::mem::take(&mut state.processes);
        drop(state);
        self.0.changed.notify_all();
        // Fails when the other end is gone already.
        let _ = self.0.socket.shutdown(Shutdown::Both);
        for (id, mut process) in processes {
            process.finish(ProcessEnd::Lost);
            // The workload's owner is who closes.
            if id != WORKLOAD {
                tell(process.on_end.take().zip(process.end));
            }
        }
    }

    /// Whether the workload has started, or has ended without; None if neither is known after `time`.
    pub fn has_started(&self, time: Duration) -> Option<bool> {
        let starts = |state: &mut State| {
            state.is_open && state.processes.get(&WORKLOAD).is_some_and(Process::is_starting)
        };
        let waited = self.0.changed.wait_timeout_while(self.state(), time, starts);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        let runs = state.processes.get(&WORKLOAD).is_some_and(|workload| workload.has_started);
        (!waited.timed_out()).then_some(runs)
    }

    /// Whether the guest's kernel has killed processes because there was no memory left, which is known when
    /// the workload has ended.
    pub fn has_run_out_of_memory(&self) -> bool {
        self.state().has_run_out_of_memory
    }

    /// Starts a further process in the guest, once the guest is up, and waits until it runs or its end is
    /// told; `on_end` hears its end, once.
    ///
    /// # Errors
    /// [`ControlError`]. That the process could not be started is its end.
    pub fn start_process(
        &self,
        task: Task,
        streams: Streams,
        on_end: impl FnOnce(ProcessEnd) + Send + 'static,
    ) -> Result<ProcessId, ControlError> {
        let message = FromHost::Start(Box::new(task));
        let mut frame = Frame { process: WORKLOAD, message };
        let (length, most) = (frame.encode().len(), self.0.longest_request);
        if length > most {
            return Err(ControlError::TooLong { length, most });
        }
        let asleep = |state: &mut State| state.is_open && !state.is_listening;
        let waited = self.0.changed.wait_timeout_while(self.state(), COME_UP, asleep);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(ControlError::Silent(COME_UP.as_secs()));
        }
        if !state.is_open || !state.processes.contains_key(&WORKLOAD) {
            return Err(ControlError::Ended);
        }
        if state.outgoing.is_full() {
            return Err(ControlError::Stuck);
        }
        if state.processes.len() > MAX_PROCESSES {
            return Err(ControlError::TooMany);
        }
        let id = state.free_id();
        frame.process = id;
        let told = Arc::new(AtomicBool::new(false));
        let on_end: OnEnd = {
            let told = Arc::clone(&told);
            Box::new(move |end| {
                on_end(end);
                told.store(true, Ordering::Release);
            })
        };
        state.processes.insert(id, Process::new(streams, on_end));
        let sent = state.outgoing.send_unasked(&frame, &self.0.socket);
        sent.map_err(|_| ControlError::Ended)?;
        self.wake_for(&state);
        drop(state);
        self.start_input(id).map_err(ControlError::Host)?;
        // Its end is told behind the lock: whoever asks for it right after us is to know it.
        let starts = |state: &mut State| {
            let runs = state.processes.get(&id).is_some_and(|process| process.has_started);
            state.is_open && !runs && !told.load(Ordering::Acquire)
        };
        let waited = self.0.changed.wait_timeout_while(self.state(), ANSWER, starts);
        match waited.unwrap_or_else(PoisonError::into_inner).1.timed_out() {
            true => Err(ControlError::Stuck),
            false => Ok(id),
        }
    }

    /// Sends a signal to a process. Never waits.
    ///
    /// # Errors
    /// `BrokenPipe` when it has ended or the machine is gone, `NotConnected` when the guest has not spoken
    /// yet, `WouldBlock` when it does not read.
    pub fn signal(&self, process: ProcessId, number: u8) -> io::Result<()> {
        self.send(process, FromHost::Signal(number))
    }

    /// Tells a process's terminal its size. Never waits.
    ///
    /// # Errors
    /// As [`Session::signal`].
    pub fn resize(&self, process: ProcessId, size: WindowSize) -> io::Result<()> {
        self.send(process, FromHost::Resize(size))
    }

    /// Sends a piece of standard input, waiting until the process has room for it.
    pub(super) fn stdin(&self, id: ProcessId, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            let full = |state: &mut State| state.stdin_room(id) == Some(0);
            let state = self.0.changed.wait_while(self.state(), full);
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            let room = state.stdin_room(id).ok_or(ErrorKind::BrokenPipe)?;
            let (piece, rest) = data.split_at(room.min(data.len()));
            if let Some(process) = state.processes.get_mut(&id) {
                process.stdin_credit -= piece.len();
            }
            let message = FromHost::Stdin(piece.to_vec());
            self.transmit(&mut state, &Frame { process: id, message })?;
            data = rest;
        }
        Ok(())
    }

    /// Ends standard input, once the guest listens.
    pub(super) fn end_stdin(&self, id: ProcessId) -> io::Result<()> {
        let asleep = |state: &mut State| state.stdin_room(id).is_some() && !state.is_listening;
        let state = self.0.changed.wait_while(self.state(), asleep);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.stdin_room(id).ok_or(ErrorKind::BrokenPipe)?;
        // However much is on its way: it belongs to what the guest has asked for, and comes once.
        let message = FromHost::Stdin(Vec::new());
        self.transmit(&mut state, &Frame { process: id, message })
    }

    /// Output of a process has been passed on; or it never will be: None.
    pub(super) fn output_passed_on(&self, id: ProcessId, stream: Stream, count: Option<usize>) {
        let message = match count {
            // At most the window.
            Some(count) => FromHost::OutputCredit(stream, count as u32),
            None => FromHost::OutputClosed(stream),
        };
        // Asked for by the guest, so that it has room for it; one that is gone does not have to know.
        let _ = self.transmit(&mut self.state(), &Frame { process: id, message });
    }

    /// A thread has written everything.
    pub(super) fn output_done(&self, id: ProcessId) {
        let told = self.state().take_end(id);
        tell(told);
        self.0.changed.notify_all();
    }

    fn send(&self, process: ProcessId, message: FromHost) -> io::Result<()> {
        let mut state = self.state();
        match state.processes.get(&process) {
            Some(Process { end: None, .. }) if state.is_open => {}
            _ => return Err(ErrorKind::BrokenPipe.into()),
        }
        if !state.is_listening {
            return Err(ErrorKind::NotConnected.into());
        }
        if state.outgoing.is_full() {
            return Err(ErrorKind::WouldBlock.into());
        }
        state.outgoing.send_unasked(&Frame { process, message }, &self.0.socket)?;
        self.wake_for(&state);
        Ok(())
    }

    /// What is kept for a guest that does not read is bounded: by the credit that it gave, by windows of
    /// output that it sent, and otherwise by [`Outgoing::is_full`].
    fn transmit(&self, state: &mut State, frame: &Frame<FromHost>) -> io::Result<()> {
        state.outgoing.send(frame, &self.0.socket)?;
        self.wake_for(state);
        Ok(())
    }

    /// Has the reading thread write what the socket had no room for.
    fn wake_for(&self, state: &State) {
        if !state.outgoing.is_written() {
            // A pipe that is full has woken the thread already.
            let _ = (&self.0.wake).write(&[0]);
        }
    }

    /// The reading thread: until the socket ends or what comes is not from init.
    fn run(&self, woken: &PipeReader) {
        match self.converse(woken) {
            Ok(()) => self.lost(),
            Err(why) => self.fail(&why),
        }
    }

    /// # Errors
    /// What the guest broke, in one line.
    fn converse(&self, mut woken: &PipeReader) -> Result<(), String> {
        let mut decoder = Decoder::<FromGuest>::default();
        let mut buffer = vec![0; PIECE];
        let mut socket = &self.0.socket;
        loop {
            if self.wait(woken).is_err() {
                return Ok(());
            }
            while matches!(woken.read(&mut [0; 64]), Ok(1..)) {}
            if self.state().outgoing.flush(socket).is_err() {
                return Ok(());
            }
            let count = match socket.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
                Err(_) => return Ok(()),
            };
            decoder.push(&buffer[..count]);
            while let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
                match frame.message {
                    FromGuest::InMailbox(length) => self.take_mailbox(length)?,
                    FromGuest::MailboxTaken => {
                        if self.state().outgoing.mailbox_taken(socket).is_err() {
                            return Ok(());
                        }
                    }
                    _ => self.take(frame)?,
                }
            }
        }
    }

    /// # Errors
    /// What the guest broke, in one line.
    fn take_mailbox(&self, length: u32) -> Result<(), String> {
        let frames = self.state().outgoing.take_mailbox(length, &self.0.socket)?;
        let mut decoder = Decoder::default();
        decoder.push(&frames);
        while let Some(frame) = decoder.next_frame().map_err(|error| error.to_string())? {
            self.take(frame)?;
        }
        Ok(())
    }

    fn wait(&self, woken: &PipeReader) -> Result<(), Errno> {
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !self.state().outgoing.is_written());
        let mut fds = [
            PollFd::new(self.0.socket.as_fd(), wanted),
            PollFd::new(woken.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// What the guest broke, in one line.
    fn take(&self, Frame { process: id, message }: Frame<FromGuest>) -> Result<(), String> {
        let mut state = self.state();
        state.is_listening = true;
        let Some(process) = state.processes.get_mut(&id).filter(|process| process.end.is_none())
        else {
            return Ok(());
        };
        let end = match message {
            FromGuest::Output(stream, data) => {
                let output = process.outputs[stream.index()].clone();
                drop(state);
                let taken = output.map(|output| output.push(data, (self, id, stream)));
                return match taken {
                    Some(Err(_)) => Err("the guest sends more than it may".to_owned()),
                    _ => Ok(()),
                };
            }
            FromGuest::StdinCredit(count) => {
                let credit = process.stdin_credit.saturating_add(count as usize);
                process.stdin_credit = credit.min(STDIN_WINDOW);
                process.has_started = true;
                drop(state);
                self.0.changed.notify_all();
                return Ok(());
            }
            FromGuest::Failed(why) => return Err(why),
            FromGuest::NotStarted(code, why) => ProcessEnd::NotStarted(code, why),
            FromGuest::Exited(code) => ProcessEnd::Exited(code),
            FromGuest::Killed(signal) => ProcessEnd::Killed(signal),
            FromGuest::OutOfMemory => {
                state.has_run_out_of_memory = true;
                return Ok(());
            }
            FromGuest::InMailbox(_) | FromGuest::MailboxTaken => {
                return Err("its mailbox speaks of the mailbox".to_owned());
            }
        };
        process.finish(end);
        let told = state.take_end(id);
        drop(state);
        tell(told);
        self.0.changed.notify_all();
        Ok(())
    }

    /// Ends every process: the guest is of no use any more.
    fn fail(&self, why: &str) {
        let processes = {
            let mut state = self.state();
            state.is_open = false;
            std::mem::take(&mut state.processes)
        };
        self.0.changed.notify_all();
        // Whatever it says from now on is not read.
        let _ = self.0.socket.shutdown(Shutdown::Both);
        for mut process in processes.into_values() {
            process.finish(ProcessEnd::Failed(why.to_owned()));
            tell(process.on_end.take().zip(process.end));
        }
    }

    /// The guest has closed the channel. Most likely its machine ends, of which others tell in a moment.
    fn lost(&self) {
        let mut state = self.state();
        let others: Vec<_> = state.processes.keys().copied().filter(|id| *id != WORKLOAD).collect();
        let mut told = Vec::new();
        for id in others {
            if let Some(mut process) = state.processes.remove(&id) {
                process.finish(ProcessEnd::Lost);
                told.push(process.on_end.take().zip(process.end));
            }
        }
        drop(state);
        told.into_iter().for_each(tell);
        self.0.changed.notify_all();
        let lives = |state: &mut State| state.has_workload();
        drop(self.0.changed.wait_timeout_while(self.state(), GO_DOWN, lives));
        if self.state().has_workload() {
            self.fail("it has closed the control channel");
        }
    }
}

impl State {
    fn free_id(&mut self) -> ProcessId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.processes.contains_key(&self.last_id) && self.last_id != WORKLOAD {
                return self.last_id;
            }
        }
    }

    /// Whether the workload's end is still to come.
    fn has_workload(&self) -> bool {
        self.is_open && self.processes.get(&WORKLOAD).is_some_and(|process| process.end.is_none())
    }

    /// Bytes of standard input that a process has room for; None when it takes no more.
    fn stdin_room(&self, id: ProcessId) -> Option<usize> {
        let process = self.processes.get(&id).filter(|process| process.end.is_none())?;
        self.is_open.then_some(process.stdin_credit)
    }

    /// A process's end, if it is known and everything of it is written.
    fn take_end(&mut self, id: ProcessId) -> Told {
        self.processes.get(&id).filter(|process| process.is_over())?;
        let process = self.processes.remove(&id)?;
        process.on_end.zip(process.end)
    }
}
