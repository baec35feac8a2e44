//! What was read of a stream before its reader has a buffer for it.

use std::io::{self, Read};

/// The most that is read ahead, in bytes.
const SIZE: usize = 64 << 10;

/// Bytes on their way, the oldest first.
#[derive(Debug, Default)]
pub struct Ahead {
    /// Its length only grows, so that what is read into it is not cleared first.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl From<Vec<u8>> for Ahead {
    fn from(bytes: Vec<u8>) -> Self {
        Self { start: 0, end: bytes.len(), bytes }
    }
}

impl Ahead {
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Reads once, at most `most` bytes, when there is nothing left.
    ///
    /// # Errors
    /// Reading's own.
    pub fn fill(&mut self, mut source: impl Read, most: usize) -> io::Result<usize> {
        debug_assert!(self.is_empty());
        if self.bytes.len() < SIZE {
            self.bytes.resize(SIZE, 0);
        }
        (self.start, self.end) = (0, 0);
        self.end = source.read(&mut self.bytes[..most.min(SIZE)])?;
        Ok(self.end)
    }

    /// Fills `target` as far as there is something, and says how far.
    pub fn take(&mut self, target: &mut [u8]) -> usize {
        let length = target.len().min(self.end - self.start);
        target[..length].copy_from_slice(&self.bytes[self.start..self.start + length]);
        self.start += length;
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_in_order_whatever_the_pieces() {
        let mut ahead = Ahead::from(b"early".to_vec());
        let mut piece = [0; 3];
        assert_eq!((ahead.take(&mut piece), &piece), (3, b"ear"));
        assert_eq!((ahead.take(&mut piece), &piece[..2]), (2, &b"ly"[..]));
        assert!(ahead.is_empty());
        assert_eq!(ahead.fill(&b"abcdef"[..], 4).unwrap(), 4);
        assert_eq!((ahead.take(&mut piece), &piece), (3, b"abc"));
        assert_eq!((ahead.take(&mut piece), piece[0]), (1, b'd'));
        assert_eq!(ahead.fill(&vec![7; 2 * SIZE][..], usize::MAX).unwrap(), SIZE);
        assert_eq!(ahead.take(&mut vec![0; 2 * SIZE]), SIZE);
        assert_eq!(ahead.fill(&b""[..], 4).unwrap(), 0);
    }
}
