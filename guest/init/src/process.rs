//! A process that the host knows: its streams, how much of them either side has room for, its end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;

use isolab_protocol::{FromGuest, OUTPUT_WINDOW, ProcessId, Stream, WindowSize};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags};
use nix::unistd::Pid;

use crate::channel::Channel;
use crate::spawn::{self, Child, Streams};

pub struct RunningProcess {
    id: ProcessId,
    pid: Pid,
    outputs: [Option<Output>; 2],
    input: Input,
    /// How it ended; nothing more is waited for than what is in its pipes.
    end: Option<FromGuest>,
}

struct Output {
    source: File,
    /// Bytes that the host has room for.
    credit: usize,
}

/// What came for its standard input and was not taken yet. The host keeps it within the window.
#[derive(Default)]
struct Input {
    target: Option<File>,
    pending: VecDeque<u8>,
    ended: bool,
    is_terminal: bool,
}

impl RunningProcess {
    pub fn new(id: ProcessId, child: Child) -> std::io::Result<Self> {
        let output = |source| Some(Output { source, credit: OUTPUT_WINDOW });
        let (target, outputs, is_terminal) = match child.streams {
            Streams::Pipes { stdin, stdout, stderr } => {
                (stdin, [output(stdout), output(stderr)], false)
            }
            Streams::Terminal(master) => (Some(master.try_clone()?), [output(master), None], true),
        };
        let input = Input { target, is_terminal, ..Input::default() };
        Ok(Self { id, pid: child.pid, outputs, input, end: None })
    }

    pub fn id(&self) -> ProcessId {
        self.id
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal. It may have ended meanwhile; then there is nobody to signal.
    pub fn signal(&self, number: u8) {
        if self.end.is_none() {
            // Not by nix, which knows no real-time signals; systemd powers off by one.
            // SAFETY: kill(2) takes numbers only.
            let _ = Errno::result(unsafe { libc::kill(self.pid.as_raw(), i32::from(number)) });
        }
    }

    /// Tells its terminal a size, if it has one.
    pub fn resize(&self, size: WindowSize) {
        if let Some(master) = self.input.target.as_ref().filter(|_| self.input.is_terminal) {
            spawn::resize(master, size);
        }
    }

    /// The host has passed on `count` bytes of a stream.
    pub fn add_credit(&mut self, stream: Stream, count: usize) {
        if let Some(output) = &mut self.outputs[stream.index()] {
            output.credit = output.credit.saturating_add(count).min(OUTPUT_WINDOW);
        }
    }

    /// Nobody reads a stream any more: our end closes, so that who writes to the other gets SIGPIPE, or
    /// of a terminal SIGHUP.
    pub fn close_output(&mut self, stream: Stream) {
        self.outputs[stream.index()] = None;
        if self.input.is_terminal {
            self.input.target = None;
        }
    }

    /// A piece of standard input; an empty one is its end.
    pub fn push_input(&mut self, data: &[u8]) {
        self.input.pending.extend(data);
        self.input.ended |= data.is_empty();
    }

    /// It was reaped.
    pub fn ended(&mut self, end: FromGuest) {
        self.end = Some(end);
    }

    /// What to wait for.
    pub fn poll_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>, channel_has_room: bool) {
        if let Some(target) = self.input.target.as_ref().filter(|_| !self.input.pending.is_empty())
        {
            fds.push(PollFd::new(target.as_fd(), PollFlags::POLLOUT));
        }
        let wanted = self.outputs.iter().flatten();
        for output in wanted.filter(|output| channel_has_room && output.credit > 0) {
            fds.push(PollFd::new(output.source.as_fd(), PollFlags::POLLIN));
        }
    }

    /// Sends what it has written, as far as channel and host have room; a stream at its end is closed,
    /// and so is one with nothing in it whose process has ended: who else has it may be a daemon.
    pub fn forward_output(&mut self, channel: &mut Channel) {
        for stream in Stream::ALL {
            let slot = &mut self.outputs[stream.index()];
            while let Some(output) = slot
                && output.credit > 0
                && channel.has_room()
            {
                let sent = channel.send_output((self.id, stream), &output.source, output.credit);
                match sent {
                    Ok(count @ 1..) => output.credit -= count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock && self.end.is_none() => {
                        break;
                    }
                    // A terminal without a process says EIO.
                    Ok(0) | Err(_) => *slot = None,
                }
            }
        }
    }

    /// Gives it what it takes of its input without waiting, and tells the host how much that was.
    pub fn feed_input(&mut self, channel: &mut Channel) {
        let taken = self.input.feed();
        if taken > 0 {
            channel.send(self.id, FromGuest::StdinCredit(taken));
        }
        if self.input.has_hung_up() {
            self.outputs = [None, None];
        }
    }

    /// Its end, once everything that it wrote is on its way; with `abandon`, whatever is left.
    pub fn take_end(&mut self, abandon: bool) -> Option<FromGuest> {
        let is_open = self.outputs.iter().any(Option::is_some);
        self.end.take_if(|_| abandon || !is_open)
    }
}

impl Input {
    fn feed(&mut self) -> u32 {
        let mut taken = 0;
        while !self.pending.is_empty() {
            let written = match &mut self.target {
                Some(target) => target.write(self.pending.as_slices().0),
                // Nobody reads it: taken and thrown away, so that the host goes on.
                None => Ok(self.pending.len()),
            };
            match written {
                Ok(count) => {
                    self.pending.drain(..count);
                    taken += count as u32;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.target = None,
            }
        }
        if self.ended && self.pending.is_empty() {
            self.target = None;
        }
        taken
    }

    /// A terminal whose host's end is gone.
    fn has_hung_up(&self) -> bool {
        self.is_terminal && self.ended && self.target.is_none()
    }
}
