//! Port 0x402, where SeaBIOS writes what it is doing when a device answers there.

use std::io::Write;

use crate::bus::BusDevice;

/// Where it is.
pub const PORT: u64 = 0x402;
/// What a reading of the port returns, by which firmware knows that somebody listens.
const PRESENT: u8 = 0xe9;

/// Gathers lines and passes them on.
pub struct DebugPort {
    output: Box<dyn Write + Send>,
    line: Vec<u8>,
}

impl DebugPort {
    /// Longer lines are passed on in pieces.
    const LINE: usize = 256;

    /// A port that writes to `output`.
    pub fn new(output: impl Write + Send + 'static) -> Self {
        Self { output: Box::new(output), line: Vec::new() }
    }
}

impl BusDevice for DebugPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let Some(first) = data.first_mut() {
            *first = PRESENT;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        for &byte in data {
            self.line.push(byte);
            if byte == b'\n' || self.line.len() == Self::LINE {
                // Nobody to read it is no reason to stop the guest.
                let _ = self.output.write_all(&self.line);
                self.line.clear();
            }
        }
    }
}
