//! The guest's end of the control channel.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use isolab_protocol::{CONTROL_TTY, Decoder, Frame};
use nix::sys::termios::{self, SetArg};

use crate::Failure;

/// An open control channel. Dropping it waits until the line has carried everything.
pub struct Control {
    line: File,
    decoder: Decoder,
}

impl Control {
    /// Opens the serial line and has the tty layer pass every byte as it is.
    pub fn open() -> Result<Self, Failure> {
        let failed = |what: &str, e: String| format!("{what} {CONTROL_TTY}: {e}");
        let line = OpenOptions::new()
            .read(true)
            .write(true)
            .open(CONTROL_TTY)
            .map_err(|e| failed("open", e.to_string()))?;
        let mut settings =
            termios::tcgetattr(&line).map_err(|e| failed("tcgetattr", e.to_string()))?;
        termios::cfmakeraw(&mut settings);
        termios::tcsetattr(&line, SetArg::TCSANOW, &settings)
            .map_err(|e| failed("tcsetattr", e.to_string()))?;
        Ok(Self { line, decoder: Decoder::default() })
    }

    /// Sends a frame. A failure has nowhere to be reported: the channel is the only way out.
    pub fn send(&mut self, frame: &Frame) {
        let _ = self.line.write_all(&frame.encode());
    }

    /// Reads what is there (after poll said so) and returns the frames it completes.
    pub fn receive(&mut self) -> Result<Vec<Frame>, Failure> {
        let mut buffer = [0; 4096];
        let count = self.line.read(&mut buffer).map_err(|e| format!("read {CONTROL_TTY}: {e}"))?;
        self.decoder.push(&buffer[..count]);
        let mut frames = Vec::new();
        while let Some(frame) = self.decoder.next_frame().map_err(|e| e.to_string())? {
            frames.push(frame);
        }
        Ok(frames)
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.line.as_fd()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = termios::tcdrain(&self.line);
    }
}
