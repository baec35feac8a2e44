//! The guest's end of the control channel: frames over the line, in a buffer as long as that is full, or
//! through the mailbox beside it.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use isolab_protocol::mailbox::{SHORT, SLOT};
use isolab_protocol::{
    Decoder, Frame, FromGuest, FromHost, HEADER_LENGTH, Line, MAX_PIECE, ProcessId, STDIN_WINDOW,
    Stream, WORKLOAD, output_header,
};
use nix::poll::PollFlags;

use crate::Failure;
use crate::line::OpenLine;
use crate::mailbox::Mailbox;

/// With that much on its way no more output is taken: who writes it waits, in a pipe or a terminal.
const FULL: usize = 128 << 10;

/// An open control channel.
pub struct Channel {
    line: OpenLine,
    mailbox: Option<Mailbox>,
    decoder: Decoder<FromHost>,
    received: Vec<u8>,
    /// Has what is on its way to the host, from `sent` to `filled`. Its length only grows, so that what is
    /// read into it is not cleared first.
    outgoing: Vec<u8>,
    sent: usize,
    filled: usize,
}

impl Channel {
    pub fn open(line: &Line) -> Result<Self, Failure> {
        let mailbox = match line {
            Line::Vsock { .. } => None,
            Line::Serial { mailboxes } => Some(Mailbox::find(mailboxes)?),
        };
        Ok(Self {
            line: OpenLine::open(line)?,
            mailbox,
            decoder: Decoder::default(),
            received: vec![0; MAX_PIECE],
            outgoing: Vec::new(),
            sent: 0,
            filled: 0,
        })
    }

    /// How much standard input each process may be sent ahead.
    pub fn stdin_window(&self) -> usize {
        STDIN_WINDOW
    }

    /// Whether the line is to be watched for room. What waits for the mailbox does not wait for the line.
    pub fn wants_room(&self) -> bool {
        self.mailbox.is_none() && self.has_outgoing()
    }

    fn has_outgoing(&self) -> bool {
        self.sent < self.filled
    }

    /// Whether a process's output may be taken.
    pub fn has_room(&self) -> bool {
        self.filled - self.sent < FULL
    }

    /// Sends a frame as soon as the line takes it.
    pub fn send(&mut self, process: ProcessId, message: FromGuest) {
        let frame = Frame { process, message }.encode();
        self.free_space(frame.len()).copy_from_slice(&frame);
        self.filled += frame.len();
    }

    /// Sends what can be read from `source` now, at most `most` bytes of it and one piece. Tells how much
    /// that was.
    ///
    /// # Errors
    /// Reading's own.
    pub fn send_output(
        &mut self,
        (process, stream): (ProcessId, Stream),
        mut source: impl Read,
        most: usize,
    ) -> io::Result<usize> {
        let space = self.free_space(HEADER_LENGTH + most.min(MAX_PIECE));
        let (header, body) = space.split_at_mut(HEADER_LENGTH);
        let count = source.read(body)?;
        if count > 0 {
            header.copy_from_slice(&output_header(process, stream, count));
            self.filled += HEADER_LENGTH + count;
        }
        Ok(count)
    }

    fn free_space(&mut self, length: usize) -> &mut [u8] {
        let end = self.filled + length;
        if self.outgoing.len() < end {
            self.outgoing.resize(end, 0);
        }
        &mut self.outgoing[self.filled..end]
    }

    /// Writes what the line takes, or the mailbox.
    pub fn flush(&mut self) -> Result<(), Failure> {
        match &mut self.mailbox {
            None => {
                while self.sent < self.filled {
                    match self.line.write(&self.outgoing[self.sent..self.filled])? {
                        0 => break,
                        count => self.sent += count,
                    }
                }
            }
            Some(mailbox) => {
                // Whole frames, as nothing is ever sent in part here.
                let frames = &self.outgoing[self.sent..self.filled];
                if frames.len() <= SHORT {
                    self.line.write_all(frames)?;
                    self.sent = self.filled;
                } else if mailbox.is_free {
                    if frames.len() > SLOT {
                        return Err("more than a mailbox holds is to be said".to_owned());
                    }
                    mailbox.put(frames)?;
                    self.line.write_all(&notice(FromGuest::InMailbox(frames.len() as u32)))?;
                    self.sent = self.filled;
                }
            }
        }
        if !self.has_outgoing() || self.sent >= FULL {
            self.outgoing.copy_within(self.sent..self.filled, 0);
            self.filled -= self.sent;
            self.sent = 0;
        }
        Ok(())
    }

    /// Reads what is there and returns the frames that it completes.
    pub fn receive(&mut self) -> Result<Vec<Frame<FromHost>>, Failure> {
        let count = self.line.read(&mut self.received)?;
        self.decoder.push(&self.received[..count]);
        let mut frames = Vec::new();
        while let Some(frame) = self.decoder.next_frame().map_err(|e| e.to_string())? {
            match (&mut self.mailbox, &frame.message) {
                (Some(mailbox), FromHost::MailboxTaken) => mailbox.is_free = true,
                (Some(mailbox), FromHost::InMailbox(length)) => {
                    let mut decoder = Decoder::default();
                    decoder.push(mailbox.take(*length as usize)?);
                    self.line.write_all(&notice(FromGuest::MailboxTaken))?;
                    while let Some(frame) = decoder.next_frame().map_err(|e| e.to_string())? {
                        frames.push(frame);
                    }
                }
                _ => frames.push(frame),
            }
        }
        Ok(frames)
    }

    /// Waits until the host has everything.
    pub fn finish(mut self) {
        while self.flush().is_ok() && self.has_outgoing() {
            match self.mailbox {
                None => self.line.wait_for(PollFlags::POLLOUT),
                Some(_) => {
                    self.line.wait_for(PollFlags::POLLIN);
                    // What else the host says is of no use any more.
                    if self.receive().is_err() {
                        return;
                    }
                }
            }
        }
        self.line.drain();
    }
}

/// A frame about the mailbox.
fn notice(message: FromGuest) -> Vec<u8> {
    Frame { process: WORKLOAD, message }.encode()
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}
