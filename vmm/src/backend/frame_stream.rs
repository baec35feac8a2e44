//! Ethernet frames over a stream socket, the length in front of each as a 32-bit big-endian number: what passt(1) and
//! QEMU (`-netdev stream`) speak. It needs no right on the host that a socket does not.
//!
//! There are no offloads: frames are whole and have their checksums, so that the virtio-net header that our devices put in
//! front says nothing, and is not sent.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::dup;

use super::net::{MAX_FRAME, NetBackend, VNET_HEADER_LENGTH};
use super::vectors::{Gather, Scatter};

/// Of a length.
const LENGTH: usize = 4;

/// One end of such a stream. It blocks nobody, whatever the other end does.
#[derive(Debug)]
pub struct FrameStream {
    socket: OwnedFd,
    /// Length and frame, as far as they have come.
    incoming: Vec<u8>,
    /// What of a frame the other end has not taken yet.
    outgoing: Vec<u8>,
}

impl FrameStream {
    /// An end that somebody else has open, who keeps it.
    ///
    /// # Errors
    /// It is not open, or the host is out of descriptors.
    pub fn adopt(fd: RawFd) -> io::Result<Self> {
        // SAFETY: borrowed for this call, which fails where nothing is open under this number.
        let socket = dup(unsafe { BorrowedFd::borrow_raw(fd) })?;
        Ok(Self { socket, incoming: Vec::new(), outgoing: Vec::new() })
    }

    /// Sends what is left of a frame; whether all of it is gone.
    fn flush(&mut self) -> io::Result<bool> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !self.outgoing.is_empty() {
            match send(self.socket.as_raw_fd(), &self.outgoing, flags) {
                Ok(sent) => drop(self.outgoing.drain(..sent)),
                Err(Errno::EAGAIN) => return Ok(false),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    self.outgoing.clear();
                    return Err(errno.into());
                }
            }
        }
        Ok(true)
    }

    /// Reads until `incoming` has so many bytes.
    fn fill(&mut self, length: usize) -> io::Result<()> {
        while self.incoming.len() < length {
            let had = self.incoming.len();
            self.incoming.resize(length, 0);
            let read =
                recv(self.socket.as_raw_fd(), &mut self.incoming[had..], MsgFlags::MSG_DONTWAIT);
            self.incoming.truncate(had + read.unwrap_or(0));
            match read {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }
}

impl NetBackend for FrameStream {
    /// A frame that the other end has taken a part of only is kept, and the guest's is told to wait: what is sent next is
    /// taken for the same frame, whose rest goes out.
    fn send(&mut self, frame: &Gather<'_>) -> io::Result<usize> {
        let total = frame.length();
        if self.outgoing.is_empty() {
            let Some(length) = total.checked_sub(VNET_HEADER_LENGTH).filter(|_| total <= MAX_FRAME)
            else {
                return Err(io::ErrorKind::InvalidInput.into());
            };
            // Below 2^17.
            let header = (length as u32).to_be_bytes();
            self.outgoing.extend(header);
            frame.copy_to(VNET_HEADER_LENGTH, &mut self.outgoing);
        }
        match self.flush()? {
            true => Ok(total),
            false => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn receive(&mut self, buffers: &mut Scatter<'_>) -> io::Result<usize> {
        self.fill(LENGTH)?;
        let length = self.incoming.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        let length = length as usize;
        if length > MAX_FRAME - VNET_HEADER_LENGTH {
            // Where the next begins nobody knows then.
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.fill(LENGTH + length)?;
        buffers.copy_from(&[&[0; VNET_HEADER_LENGTH], &self.incoming[LENGTH..]]);
        self.incoming.clear();
        Ok(VNET_HEADER_LENGTH + length)
    }

    fn set_offloads(&mut self, tun_flags: u32) -> io::Result<()> {
        match tun_flags {
            0 => Ok(()),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::backend::vectors::VectorBuffer;

    fn pair() -> (FrameStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (FrameStream::adopt(ours.as_raw_fd()).unwrap(), theirs)
    }

    fn send(stream: &mut FrameStream, frame: &[u8]) -> io::Result<usize> {
        let mut vectors = VectorBuffer::default();
        let mut gather = vectors.gather();
        // Split where no border is.
        let header = [7; VNET_HEADER_LENGTH];
        gather.add(&header[..5]);
        let rest = [&header[5..], frame].concat();
        gather.add(&rest);
        stream.send(&gather)
    }

    fn receive(stream: &mut FrameStream, room: usize) -> io::Result<(usize, Vec<u8>)> {
        let mut vectors = VectorBuffer::default();
        let (mut first, mut second) = (vec![0xEE; 20], vec![0xEE; room - 20]);
        let mut scatter = vectors.scatter();
        scatter.add(&mut first);
        scatter.add(&mut second);
        let length = stream.receive(&mut scatter)?;
        Ok((length, [first, second].concat()))
    }

    #[test]
    fn frames_have_their_length_in_front_and_no_header() {
        let (mut stream, mut other) = pair();
        assert_eq!(send(&mut stream, b"frame").unwrap(), VNET_HEADER_LENGTH + 5);
        let mut seen = [0; 9];
        other.read_exact(&mut seen).unwrap();
        assert_eq!(&seen, b"\0\0\0\x05frame");
        // Two at once, and one in pieces.
        other.write_all(b"\0\0\0\x03one\0\0\0\x0dand the other\0\0").unwrap();
        for frame in [&b"one"[..], b"and the other"] {
            let (length, bytes) = receive(&mut stream, 100).unwrap();
            assert_eq!(length, VNET_HEADER_LENGTH + frame.len());
            assert_eq!(bytes[..VNET_HEADER_LENGTH], [0; VNET_HEADER_LENGTH]);
            assert_eq!(&bytes[VNET_HEADER_LENGTH..length], frame);
        }
        let waits = |stream: &mut FrameStream| receive(stream, 100).unwrap_err().kind();
        assert_eq!(waits(&mut stream), io::ErrorKind::WouldBlock);
        other.write_all(b"\0\x02o").unwrap();
        assert_eq!(waits(&mut stream), io::ErrorKind::WouldBlock);
        other.write_all(b"k").unwrap();
        assert_eq!(receive(&mut stream, 100).unwrap().1[12..14], *b"ok");
        // What does not fit is lost, and no more than it.
        other.write_all(&[&[0, 0, 1, 0][..], &[1; 256], b"\0\0\0\x01a"].concat()).unwrap();
        assert_eq!(receive(&mut stream, 40).unwrap().0, VNET_HEADER_LENGTH + 256);
        assert_eq!(receive(&mut stream, 40).unwrap().1[12], b'a');
        drop(other);
        assert_eq!(waits(&mut stream), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_length_that_no_frame_has_ends_it() {
        let (mut stream, mut other) = pair();
        other.write_all(&[0xFF; 8]).unwrap();
        assert_eq!(receive(&mut stream, 100).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(stream.set_offloads(1).unwrap_err().kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn who_does_not_read_is_waited_for_and_gets_every_frame_once() {
        let (mut stream, mut other) = pair();
        let frame = |number: u8| vec![number; 60_000];
        let mut sent = 0;
        while send(&mut stream, &frame(sent)).is_ok() {
            sent += 1;
        }
        assert!(sent > 0);
        other.set_nonblocking(true).unwrap();
        let mut seen: Vec<u8> = Vec::new();
        // The driver offers the frame again that had to wait, then further ones.
        let last = sent + 3;
        while sent < last || seen.len() < usize::from(last) * 60_004 {
            if sent < last && send(&mut stream, &frame(sent)).is_ok() {
                sent += 1;
            }
            let mut buffer = [0; 4096];
            if let Ok(length) = other.read(&mut buffer) {
                seen.extend(&buffer[..length]);
            }
        }
        for (number, bytes) in (0..).zip(seen.chunks(60_004)) {
            assert_eq!(bytes[..4], 60_000u32.to_be_bytes());
            assert_eq!(bytes[4..], frame(number), "{number}");
        }
    }
}
