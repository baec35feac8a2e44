//! Output on its way to the host, gathered into lines.
//!
//! A write(2) per byte would double the cost of every byte the guest prints, so output is passed
//! on at line ends, when [`GATHER`] bytes have come together, and by
//! [`SerialIo`](crate::chipset::serial_io::SerialIo) shortly after the first byte otherwise (a
//! prompt).

use std::io::{self, Write};

use vmm_sys_util::eventfd::EventFd;

use crate::control::Control;

/// The most bytes that wait for a line end.
pub const GATHER: usize = 256;

/// See the module.
pub struct Gatherer {
    output: Box<dyn Write + Send>,
    /// Whether to gather at all.
    gather: bool,
    pending: Vec<u8>,
    /// Told when the first byte of what is gathered waits.
    waiting: EventFd,
    control: Control,
}

impl Gatherer {
    /// Gathers for `output`, or passes each byte on at once; see [`super::Uart::new`].
    pub fn new(
        output: Box<dyn Write + Send>,
        gather: bool,
        waiting: EventFd,
        control: Control,
    ) -> Self {
        Self { output, gather, pending: Vec::new(), waiting, control }
    }

    /// The guest sent a byte.
    pub fn push(&mut self, byte: u8) {
        let was_empty = self.pending.is_empty();
        self.pending.push(byte);
        if !self.gather || self.pending.len() >= GATHER || byte == b'\n' {
            self.pass_on();
        } else if was_empty {
            let _ = self.waiting.write(1); // Fails only when the counter is full: it is readable then.
        }
    }

    /// Hands everything gathered to the host. Bytes that the host refuses are lost, as on a real
    /// line with nothing at the other end.
    pub fn pass_on(&mut self) {
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                // The kick that ends the machine: the reader may never come back.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    if self.control.has_ended() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        self.pending.clear();
        let _ = self.output.flush();
    }
}
