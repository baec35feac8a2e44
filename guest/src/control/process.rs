//! One process of the guest as the host knows it: its streams, the room that it has for input, its end.

use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use isolab_protocol::{STDIN_WINDOW, Stream};

use super::input::{Input, Taker};
use super::output::Output;
use super::{ProcessEnd, Streams};

/// Hears how a process ended, once.
pub(super) type OnEnd = Box<dyn FnOnce(ProcessEnd) + Send>;

/// A process whose end is not known, or not told yet.
pub(super) struct Process {
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
    pub fn new(streams: Streams, on_end: OnEnd) -> Self {
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

    pub fn output(&self, stream: Stream) -> Option<Arc<Output>> {
        self.outputs[stream.index()].clone()
    }

    /// Begins to pass its input on to `taker`, if it has one and that has not been done.
    ///
    /// # Errors
    /// The host refused a thread or a pipe.
    pub fn start_input(&mut self, taker: impl Taker) -> io::Result<()> {
        if let Some(source) = self.stdin.take() {
            self.input = Some(Input::start(source, taker)?);
        }
        Ok(())
    }

    /// The guest says that it runs, and has room for `count` bytes more of its input: of that much as no
    /// more is ever kept for it than a window.
    pub fn grant(&mut self, count: usize) {
        self.stdin_credit = self.stdin_credit.saturating_add(count).min(STDIN_WINDOW);
        self.has_started = true;
    }

    /// Bytes of standard input that it has room for; None when it takes no more.
    pub fn stdin_room(&self) -> Option<usize> {
        self.lives().then_some(self.stdin_credit)
    }

    /// Uses up room for as much of `data` as there is, and gives that.
    ///
    /// # Errors
    /// It takes no more.
    pub fn spend<'a>(&mut self, data: &'a [u8]) -> io::Result<(&'a [u8], &'a [u8])> {
        let room = self.stdin_room().ok_or(ErrorKind::BrokenPipe)?;
        let (piece, rest) = data.split_at(room.min(data.len()));
        self.stdin_credit -= piece.len();
        Ok((piece, rest))
    }

    pub fn has_started(&self) -> bool {
        self.has_started
    }

    /// Whether its end is still to come.
    pub fn lives(&self) -> bool {
        self.end.is_none()
    }

    /// Nothing more comes of it. Its end is told when everything is written.
    pub fn finish(&mut self, end: ProcessEnd) {
        if self.end.is_none() {
            self.end = Some(end);
            self.input = None;
            self.outputs.iter().flatten().for_each(|output| output.finish());
        }
    }

    /// Whether its end is known and everything of it is written.
    pub fn is_over(&self) -> bool {
        self.end.is_some() && !self.outputs.iter().flatten().any(|output| output.is_busy())
    }

    /// Its end, to be told.
    pub fn into_told(self) -> Told {
        Told(self.on_end.zip(self.end))
    }
}

/// A process's end that is to be told, without any lock held.
#[must_use]
#[derive(Default)]
pub(super) struct Told(Option<(OnEnd, ProcessEnd)>);

impl Told {
    pub fn tell(self) {
        if let Some((on_end, end)) = self.0 {
            on_end(end);
        }
    }
}
