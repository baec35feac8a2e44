//! The last lines of the guest's console, for an error message.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How much is kept, in bytes.
const LENGTH: usize = 4096;

/// Clones share what is kept.
#[derive(Clone, Default)]
pub(super) struct ConsoleTail(Arc<Mutex<Vec<u8>>>);

impl ConsoleTail {
    /// What is kept, without control characters: a guest's bytes go to a terminal.
    pub(super) fn text(&self) -> String {
        let printable = |c: &char| !c.is_control() || *c == '\n';
        String::from_utf8_lossy(&self.bytes()).chars().filter(printable).collect()
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        // Bytes are bytes, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for ConsoleTail {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut tail = self.bytes();
        tail.extend_from_slice(bytes);
        let excess = tail.len().saturating_sub(LENGTH);
        tail.drain(..excess);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_without_escape_sequences() {
        let mut console = ConsoleTail::default();
        console.write_all(&vec![b'x'; 2 * LENGTH]).unwrap();
        console.write_all(b"\x1b[31mthe end\r\n").unwrap();
        let text = console.text();
        assert!(text.ends_with("[31mthe end\n") && !text.contains('\x1b'));
        assert!(text.len() <= LENGTH);
    }
}
