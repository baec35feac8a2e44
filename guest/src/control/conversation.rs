//! What the threads of one conversation share: the line to the guest, and the processes that it is about.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, PipeReader, PipeWriter, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isolab_protocol::{Frame, FromHost, Message, ProcessId, Stream, WORKLOAD, mailbox::SLOT};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::ProcessEnd;
use super::input::Taker;
use super::mailbox::Mailbox;
use super::outgoing::Outgoing;
use super::output::Listener;
use super::process::{Process, Told};

/// A conversation with a guest.
#[derive(Debug)]
pub(super) struct Conversation {
    /// Does not block.
    socket: UnixStream,
    /// Has the reading thread look at what is to be sent.
    wake: PipeWriter,
    state: Mutex<State>,
    changed: Condvar,
    /// The longest request that there is room for, in bytes.
    pub longest_request: usize,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    pub outgoing: Outgoing,
    pub processes: BTreeMap<ProcessId, Process>,
    last_id: ProcessId,
    /// The guest has spoken, so it listens.
    pub is_listening: bool,
    pub is_open: bool,
    pub has_run_out_of_memory: bool,
    /// The guest cannot speak now.
    pub is_paused: bool,
}

impl Conversation {
    /// A conversation about `workload`, and the pipe that wakes the thread that reads.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn new(
        socket: UnixStream,
        mailbox: Option<Mailbox>,
        workload: Process,
    ) -> io::Result<(Self, PipeReader)> {
        socket.set_nonblocking(true)?;
        let (woken, wake) = io::pipe()?;
        for end in [woken.as_fd(), wake.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let longest_request = if mailbox.is_some() { SLOT } else { FromHost::MAX_PAYLOAD };
        let state = State {
            outgoing: Outgoing::new(mailbox),
            processes: BTreeMap::from([(WORKLOAD, workload)]),
            last_id: WORKLOAD,
            is_listening: false,
            is_open: true,
            has_run_out_of_memory: false,
            is_paused: false,
        };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        Ok((Self { socket, wake, state, changed, longest_request }, woken))
    }

    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        // Every change to it is whole before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has all who wait look again.
    pub fn notify(&self) {
        self.changed.notify_all();
    }

    /// Waits as long as `waits` says so.
    pub fn wait_while(&self, waits: impl FnMut(&mut State) -> bool) -> MutexGuard<'_, State> {
        let state = self.changed.wait_while(self.state(), waits);
        state.unwrap_or_else(PoisonError::into_inner)
    }

    /// Likewise, but no longer than `time`; None when that is over.
    pub fn wait_while_for(
        &self,
        time: Duration,
        waits: impl FnMut(&mut State) -> bool,
    ) -> Option<MutexGuard<'_, State>> {
        let waited = self.changed.wait_timeout_while(self.state(), time, waits);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out()).then_some(state)
    }

    /// Sends what the guest has asked for: what is kept of it for a guest that does not read is bounded, by the
    /// credit that it gave, or by windows of output that it sent.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn transmit(&self, state: &mut State, frame: &Frame<FromHost>) -> io::Result<()> {
        state.outgoing.send(frame, &self.socket)?;
        self.wake_for(state);
        Ok(())
    }

    /// Sends what it has not asked for, of which no more is kept than [`Outgoing::is_full`] says.
    ///
    /// # Errors
    /// The guest is gone.
    pub fn transmit_unasked(&self, state: &mut State, frame: &Frame<FromHost>) -> io::Result<()> {
        state.outgoing.send_unasked(frame, &self.socket)?;
        self.wake_for(state);
        Ok(())
    }

    /// Has the reading thread write what the socket had no room for.
    fn wake_for(&self, state: &State) {
        if !state.outgoing.is_written() {
            // A pipe that is full has woken the thread already.
            let _ = (&self.wake).write(&[0]);
        }
    }

    /// Ends the conversation: nothing more is sent or passed on, and who waits hears `BrokenPipe`. Gives the
    /// processes that have not been told of their end.
    pub fn close(&self) -> BTreeMap<ProcessId, Process> {
        let mut state = self.state();
        state.is_open = false;
        let processes = std::mem::take(&mut state.processes);
        drop(state);
        self.notify();
        // Fails when the other end is gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
        processes
    }

    /// Ends every process in one way: the guest is of no use any more.
    pub fn give_up(&self, end: &ProcessEnd) {
        for mut process in self.close().into_values() {
            process.finish(end.clone());
            process.into_told().tell();
        }
    }
}

impl State {
    /// A number that no process has.
    pub fn free_id(&mut self) -> ProcessId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.processes.contains_key(&self.last_id) && self.last_id != WORKLOAD {
                return self.last_id;
            }
        }
    }

    /// Whether the workload's end is still to come.
    pub fn has_workload(&self) -> bool {
        self.is_open && self.processes.get(&WORKLOAD).is_some_and(Process::lives)
    }

    /// Bytes of standard input that a process has room for; None when it takes no more.
    fn stdin_room(&self, id: ProcessId) -> Option<usize> {
        self.processes.get(&id).filter(|_| self.is_open)?.stdin_room()
    }

    /// A process's end, if it is known and everything of it is written.
    pub fn take_end(&mut self, id: ProcessId) -> Told {
        match self.processes.get(&id) {
            Some(process) if process.is_over() => {
                self.processes.remove(&id).map(Process::into_told).unwrap_or_default()
            }
            _ => Told::default(),
        }
    }
}

/// A process's place in the conversation, for the thread of its input.
pub(super) struct InputOf(pub Arc<Conversation>, pub ProcessId);

impl Taker for InputOf {
    fn take(&self, mut data: &[u8]) -> io::Result<()> {
        let Self(conversation, id) = self;
        while !data.is_empty() {
            let mut state = conversation.wait_while(|state| state.stdin_room(*id) == Some(0));
            let process = state.processes.get_mut(id).ok_or(ErrorKind::BrokenPipe)?;
            let (piece, rest) = process.spend(data)?;
            let message = FromHost::Stdin(piece.to_vec());
            conversation.transmit(&mut state, &Frame { process: *id, message })?;
            data = rest;
        }
        Ok(())
    }

    /// Tells it once the guest listens.
    fn end(&self) {
        let Self(conversation, id) = self;
        let asleep = |state: &mut State| state.stdin_room(*id).is_some() && !state.is_listening;
        let mut state = conversation.wait_while(asleep);
        if state.stdin_room(*id).is_some() {
            // However much is on its way: it belongs to what the guest has asked for, and comes once. A
            // guest that is gone does not have to know.
            let message = FromHost::Stdin(Vec::new());
            let _ = conversation.transmit(&mut state, &Frame { process: *id, message });
        }
    }
}

/// A process's place in the conversation, for the thread of one of its outputs.
pub(super) struct OutputOf(pub Arc<Conversation>, pub ProcessId, pub Stream);

impl OutputOf {
    /// What the guest has asked for, so that it has room for it; one that is gone does not have to know.
    fn say(&self, message: FromHost) {
        let Self(conversation, id, _) = self;
        let _ = conversation.transmit(&mut conversation.state(), &Frame { process: *id, message });
    }
}

impl Listener for OutputOf {
    fn passed_on(&self, count: usize) {
        // At most the window.
        self.say(FromHost::OutputCredit(self.2, count as u32));
    }

    fn refused(&self) {
        self.say(FromHost::OutputClosed(self.2));
    }

    fn done(&self) {
        let Self(conversation, id, _) = self;
        let told = conversation.state().take_end(*id);
        told.tell();
        conversation.notify();
    }
}
