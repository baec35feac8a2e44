//! An archive whose headers are no longer than an honest sender's.

use std::cell::Cell;
use std::io::{self, Read};

/// How much may be read to get at a member: its header, a long name, attributes. The tar crate keeps all of that in
/// memory, as long as the sender says that it is.
pub(crate) const MAX_HEADER: u64 = 1 << 20;

/// A reader that gives so many bytes and then fails.
pub(crate) struct Metered<'a, R> {
    input: R,
    left: &'a Cell<u64>,
}

impl<'a, R: Read> Metered<'a, R> {
    /// `left` is how much may be read from now on, and is counted down.
    pub(crate) fn new(input: R, left: &'a Cell<u64>) -> Self {
        Self { input, left }
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.left.get()).unwrap_or(usize::MAX));
        if length == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!("a header of more than {MAX_HEADER} bytes")));
        }
        let read = self.input.read(&mut buffer[..length])?;
        self.left.set(self.left.get() - read as u64);
        Ok(read)
    }
}
