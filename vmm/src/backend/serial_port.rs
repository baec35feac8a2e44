//! What is at the other end of a serial port or console.

use std::io::Write;
use std::os::fd::OwnedFd;

/// The host side of a serial port or of a virtio console.
pub struct SerialPort {
    /// What the guest sends.
    pub output: Box<dyn Write + Send>,
    /// Whether output is gathered: written and flushed at line ends, and within milliseconds
    /// otherwise. A terminal wants that; a protocol wants every byte at once.
    pub gather: bool,
    /// What the guest receives: anything that can be polled and read. At its end the guest
    /// simply receives nothing more.
    pub input: Option<OwnedFd>,
}

impl SerialPort {
    /// A port that sends to `output` and receives nothing.
    pub fn output_only(output: impl Write + Send + 'static) -> Self {
        Self { output: Box::new(output), gather: true, input: None }
    }
}
