//! What the machine's owner has of the conversation with its guest.

use std::io::{self, ErrorKind, PipeReader};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isolab_protocol::{Frame, FromHost, ProcessId, Stream, Task, WORKLOAD, WindowSize};

use super::conversation::{Conversation, InputOf, OutputOf, State};
use super::mailbox::Mailbox;
use super::process::{OnEnd, Process};
use super::reader::Reader;
use super::watch::{Patience, Watch};
use super::{ControlError, ProcessEnd, Streams};
use crate::threads;

/// Processes beside the workload, at a time.
pub const MAX_PROCESSES: usize = 64;

/// How long a process that is to be started waits for the guest to come up.
const COME_UP: Duration = Duration::from_secs(60);

/// See the module. Clones are the same conversation, which goes on until [`Session::close`].
#[derive(Clone, Debug)]
pub struct Session {
    conversation: Arc<Conversation>,
    /// For the reading thread, once.
    woken: Arc<Mutex<Option<PipeReader>>>,
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
        let workload = Process::new(streams, Box::new(on_end));
        let (conversation, woken) = Conversation::new(socket, mailbox, workload)?;
        let (conversation, woken) = (Arc::new(conversation), Arc::new(Mutex::new(Some(woken))));
        Ok(Self { conversation, woken })
    }

    /// Begins to read what the guest says, and the workload's input. A guest that is silent for longer than
    /// `patience` has is the workload's end, [`ProcessEnd::Silent`].
    ///
    /// # Errors
    /// The host refused a thread.
    pub fn start(&self, patience: Patience) -> io::Result<()> {
        let woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(woken) = woken {
            let conversation = Arc::clone(&self.conversation);
            let watch = Watch::new(patience, Instant::now());
            let reader = Reader { conversation, woken, watch };
            threads::builder("control").spawn(move || reader.run())?;
        }
        let stdout = {
            let state = self.conversation.state();
            state.processes.get(&WORKLOAD).and_then(|workload| workload.output(Stream::Stdout))
        };
        if let Some(stdout) = stdout {
            stdout.begin(OutputOf(Arc::clone(&self.conversation), WORKLOAD, Stream::Stdout));
        }
        self.start_input(WORKLOAD)
    }

    fn start_input(&self, id: ProcessId) -> io::Result<()> {
        match self.conversation.state().processes.get_mut(&id) {
            Some(process) => process.start_input(InputOf(Arc::clone(&self.conversation), id)),
            None => Ok(()),
        }
    }

    /// Ends the conversation: nothing more is sent or passed on, and who waits hears `BrokenPipe`.
    pub fn close(&self) {
        for (id, mut process) in self.conversation.close() {
            process.finish(ProcessEnd::Lost);
            // The workload's owner is who closes.
            if id != WORKLOAD {
                process.into_told().tell();
            }
        }
    }

    /// Whether the guest stands still: its silence then means nothing.
    pub fn set_paused(&self, is_paused: bool) {
        self.conversation.state().is_paused = is_paused;
    }

    /// Whether the guest has spoken, and it or the machine has not ended.
    pub fn is_up(&self) -> bool {
        let state = self.conversation.state();
        state.is_open && state.is_listening
    }

    /// Whether the workload has started, or has ended without; None if neither is known after `time`.
    pub fn has_started(&self, time: Duration) -> Option<bool> {
        let starts = |state: &mut State| {
            let workload = state.processes.get(&WORKLOAD);
            state.is_open && workload.is_some_and(|it| it.lives() && !it.has_started())
        };
        let state = self.conversation.wait_while_for(time, starts)?;
        Some(state.processes.get(&WORKLOAD).is_some_and(Process::has_started))
    }

    /// Whether the guest's kernel has killed processes because there was no memory left, which is known when
    /// the workload has ended.
    pub fn has_run_out_of_memory(&self) -> bool {
        self.conversation.state().has_run_out_of_memory
    }

    /// Starts a further process in the guest, once the guest is up, and waits until it runs or its end is
    /// told, which may take a guest that is up `time`; `on_end` hears its end, once.
    ///
    /// # Errors
    /// [`ControlError`]. That the process could not be started is its end.
    pub fn start_process(
        &self,
        task: Task,
        streams: Streams,
        time: Duration,
        on_end: impl FnOnce(ProcessEnd) + Send + 'static,
    ) -> Result<ProcessId, ControlError> {
        let message = FromHost::Start(Box::new(task));
        let mut frame = Frame { process: WORKLOAD, message };
        let (length, most) = (frame.encode().len(), self.conversation.longest_request);
        if length > most {
            return Err(ControlError::TooLong { length, most });
        }
        let asleep = |state: &mut State| state.is_open && !state.is_listening;
        let mut state = self
            .conversation
            .wait_while_for(COME_UP, asleep)
            .ok_or(ControlError::Silent(COME_UP.as_secs()))?;
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
        let sent = self.conversation.transmit_unasked(&mut state, &frame);
        sent.map_err(|_| ControlError::Ended)?;
        drop(state);
        self.start_input(id).map_err(ControlError::Host)?;
        // Its end is told behind the lock: whoever asks for it right after us is to know it.
        let starts = |state: &mut State| {
            let runs = state.processes.get(&id).is_some_and(Process::has_started);
            state.is_open && !runs && !told.load(Ordering::Acquire)
        };
        match self.conversation.wait_while_for(time, starts) {
            Some(_) => Ok(id),
            None => Err(ControlError::Stuck),
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

    fn send(&self, process: ProcessId, message: FromHost) -> io::Result<()> {
        let mut state = self.conversation.state();
        match state.processes.get(&process) {
            Some(process) if process.lives() && state.is_open => {}
            _ => return Err(ErrorKind::BrokenPipe.into()),
        }
        if !state.is_listening {
            return Err(ErrorKind::NotConnected.into());
        }
        if state.outgoing.is_full() {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.conversation.transmit_unasked(&mut state, &Frame { process, message })
    }
}
