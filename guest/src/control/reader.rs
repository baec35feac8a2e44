//! The thread that reads what the guest says, passes it on, and notices when it says nothing any more.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isolab_protocol::{Decoder, Frame, FromGuest, FromHost, ProcessId, WORKLOAD};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::ProcessEnd;
use super::conversation::{Conversation, OutputOf, State};
use super::watch::{Verdict, Watch};

/// How long a guest that closed the channel may live on.
const GO_DOWN: Duration = Duration::from_secs(5);
/// Bytes read at a time.
const PIECE: usize = 128 << 10;

/// Why nothing more is read.
enum Stop {
    /// The line has ended.
    Closed,
    /// The guest is of no use any more.
    Useless(ProcessEnd),
}

impl Stop {
    fn broken(why: impl ToString) -> Self {
        Self::Useless(ProcessEnd::Failed(why.to_string()))
    }
}

/// What the thread has.
pub(super) struct Reader {
    pub conversation: Arc<Conversation>,
    /// Somebody has something to send that the socket had no room for.
    pub woken: PipeReader,
    pub watch: Watch,
}

impl Reader {
    /// Until the line ends, or what comes is not from init, or nothing comes.
    pub fn run(mut self) {
        match self.converse() {
            Stop::Closed => self.lost(),
            Stop::Useless(end) => self.conversation.give_up(&end),
        }
    }

    fn converse(&mut self) -> Stop {
        let mut decoder = Decoder::<FromGuest>::default();
        let mut buffer = vec![0; PIECE];
        loop {
            if let Err(stop) = self.turn(&mut decoder, &mut buffer) {
                return stop;
            }
        }
    }

    fn turn(&mut self, decoder: &mut Decoder<FromGuest>, buffer: &mut [u8]) -> Result<(), Stop> {
        self.wait().map_err(|_| Stop::Closed)?;
        while matches!(self.woken.read(&mut [0; 64]), Ok(1..)) {}
        let mut socket = self.conversation.socket();
        let flushed = self.conversation.state().outgoing.flush(socket);
        flushed.map_err(|_| Stop::Closed)?;
        match socket.read(buffer) {
            Ok(0) => return Err(Stop::Closed),
            Ok(count) => {
                self.watch.heard(Instant::now());
                decoder.push(&buffer[..count]);
                while let Some(frame) = decoder.next_frame().map_err(Stop::broken)? {
                    self.take(frame)?;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => return Err(Stop::Closed),
        }
        self.look_at_watch()
    }

    /// Waits for the guest, for somebody who has something to send, or for the watch.
    fn wait(&self) -> Result<(), Errno> {
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, !self.conversation.state().outgoing.is_written());
        let mut fds = [
            PollFd::new(self.conversation.socket().as_fd(), wanted),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        // A millisecond more, as it is cut to whole ones.
        let left = self.watch.left(Instant::now()).map(|left| left + Duration::from_millis(1));
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn look_at_watch(&mut self) -> Result<(), Stop> {
        let mut state = self.conversation.state();
        match self.watch.look(Instant::now(), state.is_paused) {
            Verdict::Fine => Ok(()),
            Verdict::Ask => {
                // What a guest does not read need not become more.
                if !state.outgoing.is_full() {
                    let frame = Frame { process: WORKLOAD, message: FromHost::Ping };
                    let asked = self.conversation.transmit_unasked(&mut state, &frame);
                    asked.map_err(|_| Stop::Closed)?;
                }
                Ok(())
            }
            Verdict::GiveUp(silence) => Err(Stop::Useless(ProcessEnd::Silent(silence))),
        }
    }

    fn take(&self, frame: Frame<FromGuest>) -> Result<(), Stop> {
        match frame.message {
            FromGuest::InMailbox(length) => self.take_mailbox(length),
            FromGuest::MailboxTaken => {
                let socket = self.conversation.socket();
                let taken = self.conversation.state().outgoing.mailbox_taken(socket);
                taken.map_err(|_| Stop::Closed)
            }
            _ => self.take_word(frame),
        }
    }

    fn take_mailbox(&self, length: u32) -> Result<(), Stop> {
        let socket = self.conversation.socket();
        let frames = self.conversation.state().outgoing.take_mailbox(length, socket);
        let mut decoder = Decoder::default();
        decoder.push(&frames.map_err(Stop::broken)?);
        while let Some(frame) = decoder.next_frame().map_err(Stop::broken)? {
            self.take_word(frame)?;
        }
        Ok(())
    }

    /// What is about a process.
    fn take_word(&self, Frame { process: id, message }: Frame<FromGuest>) -> Result<(), Stop> {
        let mut state = self.conversation.state();
        state.is_listening = true;
        let Some(process) = state.processes.get_mut(&id).filter(|process| process.lives()) else {
            return Ok(());
        };
        let end = match message {
            FromGuest::Output(stream, data) => {
                let output = process.output(stream);
                drop(state);
                let listener = OutputOf(Arc::clone(&self.conversation), id, stream);
                return match output.map(|output| output.push(data, listener)) {
                    Some(Err(_)) => Err(Stop::broken("the guest sends more than it may")),
                    _ => Ok(()),
                };
            }
            FromGuest::StdinCredit(count) => {
                process.grant(count as usize);
                drop(state);
                self.conversation.notify();
                return Ok(());
            }
            FromGuest::Pong => return Ok(()),
            FromGuest::Failed(why) => return Err(Stop::broken(why)),
            FromGuest::NotStarted(code, why) => ProcessEnd::NotStarted(code, why),
            FromGuest::Exited(code) => ProcessEnd::Exited(code),
            FromGuest::Killed(signal) => ProcessEnd::Killed(signal),
            FromGuest::OutOfMemory => {
                state.has_run_out_of_memory = true;
                return Ok(());
            }
            FromGuest::InMailbox(_) | FromGuest::MailboxTaken => {
                return Err(Stop::broken("its mailbox speaks of the mailbox"));
            }
        };
        process.finish(end);
        let told = state.take_end(id);
        drop(state);
        told.tell();
        self.conversation.notify();
        Ok(())
    }

    /// The guest has closed the channel. Most likely its machine ends, of which others tell in a moment.
    fn lost(&self) {
        let mut state = self.conversation.state();
        let others: Vec<ProcessId> =
            state.processes.keys().copied().filter(|id| *id != WORKLOAD).collect();
        let mut told = Vec::new();
        for id in others {
            if let Some(mut process) = state.processes.remove(&id) {
                process.finish(ProcessEnd::Lost);
                told.push(process.into_told());
            }
        }
        drop(state);
        for told in told {
            told.tell();
        }
        self.conversation.notify();
        let lives = |state: &mut State| state.has_workload();
        if self.conversation.wait_while_for(GO_DOWN, lives).is_none() {
            let why = "it has closed the control channel".to_owned();
            self.conversation.give_up(&ProcessEnd::Failed(why));
        }
    }
}
