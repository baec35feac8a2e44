//! Buffers in guest memory that lie in pieces, as drivers describe them to every kind of device.

use vm_memory::{Bytes, GuestAddress};

use crate::memory::GuestRam;

/// A piece of guest memory. Whoever accesses it checks it against [`GuestRam`]: it may be the
/// guest's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSegment {
    /// Guest-physical start.
    pub address: GuestAddress,
    /// Length in bytes.
    pub length: u32,
}

/// Bytes in `segments`. Cannot overflow: fewer than 2^32 segments of less than 2^32 bytes.
pub fn length(segments: &[GuestSegment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.length)).sum()
}

/// Copies guest memory to `data`, from `skip` bytes into `segments` on and until either ends; the
/// number of bytes copied, or `None` where a piece is outside RAM.
pub fn read(
    memory: &GuestRam,
    segments: &[GuestSegment],
    skip: u64,
    data: &mut [u8],
) -> Option<usize> {
    let length = data.len();
    for_each_piece(segments, skip, length, |address, range| {
        memory.read_slice(&mut data[range], address).ok()
    })
}

/// Copies `data` to guest memory, from `skip` bytes into `segments` on and until either ends; the
/// number of bytes copied, or `None` where a piece is outside RAM.
pub fn write(
    memory: &GuestRam,
    segments: &[GuestSegment],
    skip: u64,
    data: &[u8],
) -> Option<usize> {
    for_each_piece(segments, skip, data.len(), |address, range| {
        memory.write_slice(&data[range], address).ok()
    })
}

fn for_each_piece(
    segments: &[GuestSegment],
    mut skip: u64,
    length: usize,
    mut copy: impl FnMut(GuestAddress, std::ops::Range<usize>) -> Option<()>,
) -> Option<usize> {
    let mut done = 0;
    for segment in segments {
        if done == length {
            break;
        }
        let size = u64::from(segment.length);
        if skip >= size {
            skip -= size;
            continue;
        }
        // Below 2^32.
        let taken = ((size - skip) as usize).min(length - done);
        let start = segment.address.0.checked_add(skip)?;
        copy(GuestAddress(start), done..done + taken)?;
        skip = 0;
        done += taken;
    }
    Some(done)
}

/// Removes the first `count` bytes, through the middle of a piece if need be: a driver may frame a
/// request as it likes (virtio 1.2, 2.7.4). `None` if there are fewer.
pub fn cut_front(segments: &mut Vec<GuestSegment>, count: u64) -> Option<()> {
    let mut left = count;
    let mut whole = 0;
    while left > 0 {
        let segment = segments.get_mut(whole)?;
        let size = u64::from(segment.length);
        if left < size {
            segment.address = GuestAddress(segment.address.0.checked_add(left)?);
            // `left` is less than a u32.
            segment.length -= left as u32;
            break;
        }
        left -= size;
        whole += 1;
    }
    segments.drain(..whole);
    Some(())
}

/// Removes the last byte; its address, or `None` if there is none.
pub fn cut_last_byte(segments: &mut Vec<GuestSegment>) -> Option<GuestAddress> {
    let last = segments.last_mut()?;
    let before = last.length.checked_sub(1)?;
    let address = last.address.0.checked_add(before.into())?;
    last.length = before;
    if before == 0 {
        segments.pop();
    }
    Some(GuestAddress(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(list: &[(u64, u32)]) -> Vec<GuestSegment> {
        list.iter()
            .map(|&(address, length)| GuestSegment { address: GuestAddress(address), length })
            .collect()
    }

    #[test]
    fn cuts_between_and_inside_pieces() {
        let whole = || segments(&[(0x1000, 10), (0x2000, 20)]);
        let cases = [
            (0, vec![(0x1000, 10), (0x2000, 20)]),
            (4, vec![(0x1004, 6), (0x2000, 20)]),
            (10, vec![(0x2000, 20)]),
            (29, vec![(0x2013, 1)]),
            (30, vec![]),
        ];
        for (count, expected) in cases {
            let mut list = whole();
            assert_eq!(cut_front(&mut list, count), Some(()));
            assert_eq!(list, segments(&expected), "{count}");
        }
        assert_eq!(cut_front(&mut whole(), 31), None);
    }

    #[test]
    fn the_last_byte_may_be_a_piece_of_its_own() {
        let mut list = segments(&[(0x1000, 2), (0x2000, 1)]);
        let bytes: Vec<_> = std::iter::from_fn(|| cut_last_byte(&mut list)).map(|a| a.0).collect();
        assert_eq!(bytes, [0x2000, 0x1001, 0x1000]);
    }

    #[test]
    fn cutting_at_the_end_of_the_address_space_does_not_overflow() {
        assert_eq!(cut_front(&mut segments(&[(u64::MAX, 8)]), 4), None);
        assert_eq!(cut_last_byte(&mut segments(&[(u64::MAX, 8)])), None);
    }

    #[test]
    fn copies_stop_at_the_shorter_side_and_fail_outside_ram() {
        let memory = GuestRam::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let buffers = segments(&[(0x100, 3), (0x200, 3)]);
        assert_eq!(write(&memory, &buffers, 0, b"abcd"), Some(4));
        assert_eq!(write(&memory, &buffers, 4, b"efgh"), Some(2));
        let mut back = [0; 8];
        assert_eq!(read(&memory, &buffers, 0, &mut back), Some(6));
        assert_eq!(&back[..6], b"abcdef");
        assert_eq!(read(&memory, &buffers, 2, &mut back[..2]), Some(2));
        assert_eq!(&back[..2], b"cd");
        assert_eq!(read(&memory, &buffers, 6, &mut back), Some(0));
        assert_eq!(write(&memory, &segments(&[(0xffe, 3)]), 0, b"abc"), None);
        assert_eq!(read(&memory, &segments(&[(0x10000, 1)]), 0, &mut back), None);
        assert_eq!(read(&memory, &segments(&[(u64::MAX, 9)]), 1, &mut back), None);
    }
}
