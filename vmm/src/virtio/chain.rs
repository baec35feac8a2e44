//! Descriptor chains as devices want them: what to read and what to write, nothing trusted.

use vm_memory::{Bytes, GuestAddress};

use crate::backend::disk::GuestSegment;
use crate::memory::GuestRam;

/// Longest chain taken, in descriptors. Indirect tables may be longer than the ring when the
/// driver chose a small ring, but none of our devices invites more than this.
pub const MAX_CHAIN_LENGTH: usize = 1024;

/// Why a chain cannot be used. What was read of it before the fault is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// It loops, leaves its table, nests indirect tables, or is longer than 2^32 bytes; where it
    /// would have ended is unknown.
    #[error("the descriptor chain has no end")]
    Endless,
    /// A device-readable descriptor follows a device-writable one (virtio 1.2, 2.7.4.2).
    #[error("a device-readable descriptor follows a device-writable one")]
    Order,
}

/// One request: a descriptor chain taken apart.
///
/// Addresses are the driver's word; every access goes through [`GuestRam`], which checks them.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    /// The head's index, to give back in the used ring.
    pub head: u16,
    /// Device-readable buffers. None is empty.
    pub readable: Vec<GuestSegment>,
    /// Device-writable buffers. None is empty.
    pub writable: Vec<GuestSegment>,
    /// What is wrong with it, if anything.
    pub fault: Option<ChainFault>,
}

impl Chain {
    pub(super) fn parse(mut descriptors: virtio_queue::DescriptorChain<&GuestRam>) -> Self {
        let mut chain = Self { head: descriptors.head_index(), ..Self::default() };
        let mut unfinished = true;
        for descriptor in descriptors.by_ref().take(MAX_CHAIN_LENGTH) {
            unfinished = descriptor.has_next();
            if !descriptor.is_write_only() && !chain.writable.is_empty() {
                chain.fault = Some(ChainFault::Order);
            }
            // Nothing forbids empty buffers, and they say nothing.
            if descriptor.len() == 0 {
                continue;
            }
            let segment = GuestSegment { address: descriptor.addr(), length: descriptor.len() };
            if descriptor.is_write_only() {
                chain.writable.push(segment);
            } else {
                chain.readable.push(segment);
            }
        }
        if unfinished {
            chain.fault = Some(ChainFault::Endless);
        }
        chain
    }

    /// Bytes the device may read.
    pub fn readable_length(&self) -> u64 {
        length(&self.readable)
    }

    /// Bytes the device may write.
    pub fn writable_length(&self) -> u64 {
        length(&self.writable)
    }
}

/// Bytes in `segments`. Cannot overflow: fewer than 2^32 segments of less than 2^32 bytes.
pub fn length(segments: &[GuestSegment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.length)).sum()
}

/// Cuts `segments` in two after `at` bytes, through the middle of one if need be: a driver may
/// frame a request as it likes (virtio 1.2, 2.7.4). `None` if they are shorter than that.
pub fn split_at(
    mut segments: Vec<GuestSegment>,
    at: u64,
) -> Option<(Vec<GuestSegment>, Vec<GuestSegment>)> {
    let mut left = at;
    for index in 0..segments.len() {
        let segment = segments[index];
        let size = u64::from(segment.length);
        if left >= size {
            left -= size;
            continue;
        }
        let mut tail = segments.split_off(index);
        if left > 0 {
            // `left` < `size`, which is a u32.
            let head_length = u32::try_from(left).ok()?;
            segments.push(GuestSegment { address: segment.address, length: head_length });
            tail[0] = GuestSegment {
                address: GuestAddress(segment.address.0.checked_add(left)?),
                length: segment.length - head_length,
            };
        }
        return Some((segments, tail));
    }
    (left == 0).then_some((segments, Vec::new()))
}

/// Copies from guest memory until `data` or `segments` end; the number of bytes copied, or `None`
/// where a segment is outside RAM.
pub fn read(memory: &GuestRam, segments: &[GuestSegment], data: &mut [u8]) -> Option<usize> {
    let mut done = 0;
    for segment in segments {
        let size = (data.len() - done).min(segment.length as usize);
        memory.read_slice(&mut data[done..done + size], segment.address).ok()?;
        done += size;
    }
    Some(done)
}

/// Copies to guest memory until `data` or `segments` end; the number of bytes copied, or `None`
/// where a segment is outside RAM.
pub fn write(memory: &GuestRam, segments: &[GuestSegment], data: &[u8]) -> Option<usize> {
    let mut done = 0;
    for segment in segments {
        let size = (data.len() - done).min(segment.length as usize);
        memory.write_slice(&data[done..done + size], segment.address).ok()?;
        done += size;
    }
    Some(done)
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
    fn splits_between_and_inside_segments() {
        let whole = segments(&[(0x1000, 10), (0x2000, 20)]);
        let cases = [
            (0, vec![], vec![(0x1000, 10), (0x2000, 20)]),
            (4, vec![(0x1000, 4)], vec![(0x1004, 6), (0x2000, 20)]),
            (10, vec![(0x1000, 10)], vec![(0x2000, 20)]),
            (29, vec![(0x1000, 10), (0x2000, 19)], vec![(0x2013, 1)]),
            (30, vec![(0x1000, 10), (0x2000, 20)], vec![]),
        ];
        for (at, head, tail) in cases {
            let expected = Some((segments(&head), segments(&tail)));
            assert_eq!(split_at(whole.clone(), at), expected, "at {at}");
        }
        assert_eq!(split_at(whole, 31), None);
    }

    #[test]
    fn splitting_at_the_end_of_the_address_space_does_not_overflow() {
        assert_eq!(split_at(segments(&[(u64::MAX, 8)]), 4), None);
    }

    #[test]
    fn copies_stop_at_the_shorter_side_and_fail_outside_ram() {
        let memory = GuestRam::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        let buffers = segments(&[(0x100, 3), (0x200, 3)]);
        assert_eq!(write(&memory, &buffers, b"abcd"), Some(4));
        let mut back = [0; 8];
        assert_eq!(read(&memory, &buffers, &mut back), Some(6));
        assert_eq!(&back[..4], b"abcd");
        assert_eq!(write(&memory, &segments(&[(0xffe, 3)]), b"abc"), None);
        assert_eq!(read(&memory, &segments(&[(0x10000, 1)]), &mut back), None);
    }
}
