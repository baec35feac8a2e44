//! Memory for readv(2) and writev(2), the guest's among it.
//!
//! The guest may change its memory at any moment, so no Rust reference to it may exist, and
//! `IoSlice` is one in disguise: it dereferences to bytes. The lists here hold bare addresses, and
//! hand them to the kernel, or to [`VolatileSlice`], and to nobody else.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{GuestMemory, Permissions, VolatileSlice};

use crate::memory::GuestRam;
use crate::segments::GuestSegment;

/// The most vectors that one system call takes (`UIO_MAXIOV`).
pub const MAX_VECTORS: usize = 1024;

/// Appends the host's addresses of `segments`; one that crosses memory regions becomes several.
/// `None` where one is not all in RAM.
pub fn translate(
    list: &mut Vec<libc::iovec>,
    memory: &GuestRam,
    segments: &[GuestSegment],
    access: Permissions,
) -> Option<()> {
    for segment in segments {
        let length = segment.length as usize;
        for slice in memory.get_slices(segment.address, length, access).ok()? {
            let slice = slice.ok()?;
            let base = slice.ptr_guard_mut().as_ptr().cast();
            list.push(libc::iovec { iov_base: base, iov_len: slice.len() });
        }
    }
    Some(())
}

/// The allocation of a list, used again for every frame.
#[derive(Default)]
pub struct VectorBuffer(Vec<libc::iovec>);

// SAFETY: the addresses left in it are never used: every list starts empty.
unsafe impl Send for VectorBuffer {}

impl VectorBuffer {
    /// An empty list of what is to be written.
    pub fn gather<'m>(&'m mut self) -> Gather<'m> {
        self.0.clear();
        Gather(&mut self.0)
    }

    /// An empty list of what is to be filled.
    pub fn scatter<'m>(&'m mut self) -> Scatter<'m> {
        self.0.clear();
        Scatter(&mut self.0)
    }
}

/// What writev(2) gathers. `'m` is the borrow of all memory in it.
pub struct Gather<'m>(&'m mut Vec<libc::iovec>);

impl<'m> Gather<'m> {
    /// Appends memory of the guest; `None` where a piece lies outside RAM.
    #[must_use]
    pub fn add_guest(&mut self, memory: &'m GuestRam, segments: &[GuestSegment]) -> Option<()> {
        translate(self.0, memory, segments, Permissions::Read)
    }

    /// Appends memory of our own.
    pub fn add(&mut self, bytes: &'m [u8]) {
        let iov_base = bytes.as_ptr().cast_mut().cast();
        self.0.push(libc::iovec { iov_base, iov_len: bytes.len() });
    }

    /// The sum of all lengths, in bytes.
    pub fn length(&self) -> usize {
        self.0.iter().map(|vector| vector.iov_len).sum()
    }

    /// Appends all behind the first `skip` bytes to a buffer of our own.
    pub fn copy_to(&self, mut skip: usize, buffer: &mut Vec<u8>) {
        for vector in self.0.iter() {
            let left_out = skip.min(vector.iov_len);
            skip -= left_out;
            let start = buffer.len();
            buffer.resize(start + vector.iov_len - left_out, 0);
            // SAFETY: the vector's memory is borrowed for 'm, and only read from here on.
            let memory = unsafe { VolatileSlice::new(vector.iov_base.cast(), vector.iov_len) };
            if let Ok(rest) = memory.offset(left_out) {
                rest.copy_to(&mut buffer[start..]);
            }
        }
    }

    /// Writes all in one call, as a frame is; the number of bytes taken.
    ///
    /// # Errors
    /// The host's.
    pub fn write_to(&self, file: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: each vector lies in memory that is borrowed for 'm, so it is mapped during this
        // call; the kernel only reads it.
        let written = unsafe { libc::writev(file.as_raw_fd(), self.0.as_ptr(), count(self.0)) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }

    /// Writes once, from `offset` of the file on; the number of bytes taken.
    ///
    /// # Errors
    /// The host's.
    pub fn write_at(&self, file: BorrowedFd<'_>, offset: i64) -> io::Result<usize> {
        // SAFETY: as in `write_to`.
        let written =
            unsafe { libc::pwritev(file.as_raw_fd(), self.0.as_ptr(), count(self.0), offset) };
        usize::try_from(written).map_err(|_| io::Error::last_os_error())
    }
}

/// What readv(2) scatters to. `'m` is the borrow of all memory in it.
pub struct Scatter<'m>(&'m mut Vec<libc::iovec>);

impl<'m> Scatter<'m> {
    /// Appends memory of the guest; `None` where a piece lies outside RAM.
    #[must_use]
    pub fn add_guest(&mut self, memory: &'m GuestRam, segments: &[GuestSegment]) -> Option<()> {
        translate(self.0, memory, segments, Permissions::Write)
    }

    /// Appends memory of our own.
    pub fn add(&mut self, buffer: &'m mut [u8]) {
        let iov_base = buffer.as_mut_ptr().cast();
        self.0.push(libc::iovec { iov_base, iov_len: buffer.len() });
    }

    /// Fills it with these parts, one behind the other, as far as there is room.
    pub fn copy_from(&mut self, parts: &[&[u8]]) {
        let mut parts = parts.iter().copied();
        let mut part = parts.next().unwrap_or_default();
        for vector in self.0.iter() {
            // SAFETY: the vector lies in guest RAM, which nobody borrows as Rust memory, or in a buffer that is
            // borrowed exclusively for 'm.
            let mut memory = unsafe { VolatileSlice::new(vector.iov_base.cast(), vector.iov_len) };
            while !memory.is_empty() {
                while part.is_empty() {
                    let Some(next) = parts.next() else { return };
                    part = next;
                }
                let length = memory.len().min(part.len());
                memory.copy_from(&part[..length]);
                part = &part[length..];
                let Ok(rest) = memory.offset(length) else { break };
                memory = rest;
            }
        }
    }

    /// Reads once; the number of bytes.
    ///
    /// # Errors
    /// The host's.
    pub fn read_from(&mut self, file: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: each vector lies in guest RAM, which nobody borrows as Rust memory and which the
        // kernel may write as a device would, or in a buffer that is borrowed exclusively for 'm.
        // Both are mapped during this call. Vectors may overlap if the guest made them so.
        let read = unsafe { libc::readv(file.as_raw_fd(), self.0.as_ptr(), count(self.0)) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Reads once, from `offset` of the file on; the number of bytes, 0 at its end.
    ///
    /// # Errors
    /// The host's.
    pub fn read_at(&mut self, file: BorrowedFd<'_>, offset: i64) -> io::Result<usize> {
        // SAFETY: as in `read_from`.
        let read =
            unsafe { libc::preadv(file.as_raw_fd(), self.0.as_ptr(), count(self.0), offset) };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }
}

/// More than the kernel takes is the kernel's error, not a shorter frame.
fn count(list: &[libc::iovec]) -> libc::c_int {
    libc::c_int::try_from(list.len()).unwrap_or(libc::c_int::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;

    use vm_memory::{Bytes, GuestAddress};

    use super::*;

    fn memory() -> GuestRam {
        GuestRam::from_ranges(&[(GuestAddress(0), 0x1000), (GuestAddress(0x1000), 0x1000)]).unwrap()
    }

    fn segment(address: u64, length: u32) -> GuestSegment {
        GuestSegment { address: GuestAddress(address), length }
    }

    #[test]
    fn memory_of_both_sides_goes_out_and_comes_in_as_one() {
        let memory = memory();
        let (mut reader, mut writer) = io::pipe().unwrap();
        let mut buffer = VectorBuffer::default();
        memory.write_slice(b"the guest's", GuestAddress(0xFFA)).unwrap();
        let mut out = buffer.gather();
        out.add(b"ours, ");
        // Crosses a border of regions.
        out.add_guest(&memory, &[segment(0xFFA, 11)]).unwrap();
        assert_eq!(out.length(), 17);
        assert_eq!(out.write_to(writer.as_fd()).unwrap(), 17);
        let mut all = [0; 17];
        reader.read_exact(&mut all).unwrap();
        assert_eq!(&all, b"ours, the guest's");

        writer.write_all(&all).unwrap();
        let mut head = [0; 6];
        let mut into = buffer.scatter();
        into.add(&mut head);
        into.add_guest(&memory, &[segment(0x100, 4), segment(0x200, 100)]).unwrap();
        assert_eq!(into.read_from(reader.as_fd()).unwrap(), 17);
        assert_eq!(&head, b"ours, ");
        let mut rest = [0; 7];
        memory.read_slice(&mut rest, GuestAddress(0x200)).unwrap();
        assert_eq!(&rest, b"guest's");
    }

    #[test]
    fn parts_are_copied_over_every_border() {
        let memory = memory();
        let mut buffer = VectorBuffer::default();
        let mut head = [0; 3];
        let mut into = buffer.scatter();
        into.add(&mut head);
        into.add_guest(&memory, &[segment(0xFFE, 6), segment(0x100, 100)]).unwrap();
        into.copy_from(&[b"ab", b"", b"cdefghijkl"]);
        assert_eq!(&head, b"abc");
        for (skip, expected) in [(0, "defghijkl\0"), (6, "jkl\0"), (8, "l\0"), (10, ""), (99, "")] {
            let mut out = buffer.gather();
            out.add_guest(&memory, &[segment(0xFFE, 6), segment(0x100, 4)]).unwrap();
            let mut copied = b"before ".to_vec();
            out.copy_to(skip, &mut copied);
            assert_eq!(copied, format!("before {expected}").as_bytes(), "{skip}");
        }
        // Less room than there is to put into it.
        let mut small = [0; 2];
        let mut into = buffer.scatter();
        into.add(&mut small);
        into.copy_from(&[b"xyz"]);
        assert_eq!(&small, b"xy");
    }

    #[test]
    fn what_is_outside_ram_is_refused() {
        let memory = memory();
        let mut buffer = VectorBuffer::default();
        for outside in [segment(0x1FFF, 2), segment(0x2000, 1), segment(u64::MAX, 1)] {
            assert_eq!(buffer.gather().add_guest(&memory, &[outside]), None);
            assert_eq!(buffer.scatter().add_guest(&memory, &[outside]), None);
        }
    }
}
