//! What is on its way to the guest: written at once as far as the socket takes it, or the mailbox beside
//! it, and kept otherwise.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};

use isolab_protocol::mailbox::{SERIAL_WINDOW, SHORT, SLOT};
use isolab_protocol::{Frame, FromHost, WORKLOAD};

use super::mailbox::Mailbox;

/// More than this is not kept of what the guest has not asked for, in bytes: it does not read.
const FULL: usize = 64 << 10;

/// Bytes that the socket had no room for, and frames that wait for the mailbox.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    mailbox: Option<Mailbox>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Bytes that the guest has not asked for, since all was last written.
    unasked: usize,
    /// Bytes on the line since the guest last showed, by what it took from the mailbox, that it reads.
    unacknowledged: usize,
}

impl Outgoing {
    pub fn new(mailbox: Option<Mailbox>) -> Self {
        Self { mailbox, ..Self::default() }
    }

    /// Whether the socket has taken everything that is meant for it.
    pub fn is_written(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Whether the guest reads so little that nothing should be added that it has not asked for. What it
    /// has asked for, by credit or by output of its own, it has bounded itself.
    pub fn is_full(&self) -> bool {
        self.unasked > FULL
    }

    /// [`Outgoing::send`] for what the guest has not asked for.
    ///
    /// # Errors
    /// As there.
    pub fn send_unasked(&mut self, frame: &Frame<FromHost>, socket: impl Write) -> io::Result<()> {
        let before = self.bytes.len() + self.waiting_bytes;
        self.send(frame, socket)?;
        let left = (self.bytes.len() + self.waiting_bytes).saturating_sub(before);
        if self.is_written() && self.waiting.is_empty() {
            self.unasked = 0;
        } else {
            self.unasked += left;
        }
        Ok(())
    }

    /// Adds a frame, and writes what `socket` takes.
    ///
    /// # Errors
    /// The socket's; the other end is gone. Or the mailbox's.
    pub fn send(&mut self, frame: &Frame<FromHost>, socket: impl Write) -> io::Result<()> {
        if self.mailbox.is_some() {
            let frame = frame.encode();
            self.waiting_bytes += frame.len();
            self.waiting.push_back(frame);
            self.fill_mailbox()?;
        } else {
            frame.encode_to(&mut self.bytes);
        }
        self.flush(socket)
    }

    /// The guest has put `length` bytes of frames into the mailbox: gives them, and has it told so.
    ///
    /// # Errors
    /// In one line, why that cannot be.
    pub fn take_mailbox(&mut self, length: u32, socket: impl Write) -> Result<Vec<u8>, String> {
        let mailbox =
            self.mailbox.as_ref().ok_or("it speaks of a mailbox that there is none of")?;
        let frames = mailbox.take(length)?;
        self.bytes.extend(Frame { process: WORKLOAD, message: FromHost::MailboxTaken }.encode());
        // A guest that is gone does not have to know.
        let _ = self.flush(socket);
        Ok(frames)
    }

    /// The guest has taken what was in the mailbox.
    pub fn mailbox_taken(&mut self, socket: impl Write) -> io::Result<()> {
        if let Some(mailbox) = &mut self.mailbox {
            mailbox.is_free = true;
            self.fill_mailbox()?;
        }
        self.flush(socket)
    }

    /// Sends what waits: by the socket if it is short, else by the mailbox as soon as that is free. The
    /// order stays, since what waits for the mailbox is waited for.
    fn fill_mailbox(&mut self) -> io::Result<()> {
        let Some(mailbox) = self.mailbox.as_mut().filter(|mailbox| mailbox.is_free) else {
            return Ok(());
        };
        if self.waiting_bytes <= SHORT && self.unacknowledged + self.waiting_bytes <= SERIAL_WINDOW
        {
            self.bytes.extend(self.waiting.drain(..).flatten());
            self.unacknowledged += std::mem::take(&mut self.waiting_bytes);
            return Ok(());
        }
        let mut frames = Vec::new();
        let fits = |frame: &&Vec<u8>, filled: usize| filled + frame.len() <= SLOT;
        while self.waiting.front().filter(|frame| fits(frame, frames.len())).is_some() {
            frames.extend(self.waiting.pop_front().into_iter().flatten());
        }
        self.waiting_bytes -= frames.len();
        self.unacknowledged = 0;
        mailbox.put(&frames)?;
        // At most a slot.
        let message = FromHost::InMailbox(frames.len() as u32);
        self.bytes.extend(Frame { process: WORKLOAD, message }.encode());
        Ok(())
    }

    /// Writes what `socket` takes.
    ///
    /// # Errors
    /// As there.
    pub fn flush(&mut self, mut socket: impl Write) -> io::Result<()> {
        while !self.is_written() {
            match socket.write(&self.bytes[self.sent..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.is_written() || self.sent >= FULL {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}
