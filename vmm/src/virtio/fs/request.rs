//! A FUSE request in a descriptor chain (virtio 1.2, 5.11.6).

use nix::errno::Errno;
use vm_memory::GuestAddress;

use super::protocol::{Header, opcode};
use crate::memory::GuestRam;
use crate::segments::{self, GuestSegment};
use crate::virtio::chain::Chain;

/// `struct fuse_write_in`: what follows it is content, which stays where it is.
const WRITE_ARGUMENTS: usize = 40;
/// Where the content of a write is in the chain's readable buffers.
pub const WRITE_CONTENT: u64 = (Header::LENGTH + WRITE_ARGUMENTS) as u64;
/// More than any other request has: a value of an attribute with its name, or pages of forgotten
/// numbers.
const MAX_ARGUMENTS: usize = 128 << 10;

/// Reads a request's header and its arguments, once: what the guest changes later is not seen. `None`
/// where there is no header, and so nothing to answer.
///
/// The result is EINVAL where a request is not what it says, E2BIG where it is too long.
pub fn read(
    memory: &GuestRam,
    chain: &Chain,
    arguments: &mut Vec<u8>,
) -> Option<(Header, Result<(), Errno>)> {
    let mut header = [0; Header::LENGTH];
    let length = segments::read(memory, &chain.readable, 0, &mut header)?;
    if length < header.len() {
        return None;
    }
    let header = Header::parse(&header);
    arguments.clear();
    Some((header, read_arguments(memory, chain, &header, arguments)))
}

fn read_arguments(
    memory: &GuestRam,
    chain: &Chain,
    header: &Header,
    arguments: &mut Vec<u8>,
) -> Result<(), Errno> {
    let length = u64::from(header.length);
    if chain.fault.is_some() || length > chain.readable_length() {
        return Err(Errno::EINVAL);
    }
    let behind = length.checked_sub(Header::LENGTH as u64).ok_or(Errno::EINVAL)?;
    // Below 2^32.
    let wanted = match behind as usize {
        behind if header.opcode == opcode::WRITE => behind.min(WRITE_ARGUMENTS),
        behind if behind <= MAX_ARGUMENTS => behind,
        _ => return Err(Errno::E2BIG),
    };
    arguments.resize(wanted, 0);
    match segments::read(memory, &chain.readable, Header::LENGTH as u64, arguments) {
        Some(read) if read == wanted => Ok(()),
        _ => Err(Errno::EFAULT),
    }
}

/// `count` bytes of `segments` behind the first `skip`; `None` where there are fewer.
pub fn part(segments: &[GuestSegment], mut skip: u64, count: u64) -> Option<Vec<GuestSegment>> {
    let mut left = count;
    let mut part = Vec::with_capacity(segments.len());
    for segment in segments {
        let size = u64::from(segment.length);
        if left == 0 {
            break;
        }
        if skip >= size {
            skip -= size;
            continue;
        }
        let address = GuestAddress(segment.address.0.checked_add(skip)?);
        // At most a segment's length, a u32.
        let length = left.min(size - skip) as u32;
        part.push(GuestSegment { address, length });
        left -= u64::from(length);
        skip = 0;
    }
    (left == 0).then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_may_begin_and_end_inside_a_piece() {
        let segment = |address, length| GuestSegment { address: GuestAddress(address), length };
        let whole = [segment(0x1000, 16), segment(0x2000, 100), segment(0x3000, 8)];
        for (skip, count, expected) in [
            (0, 0, Some(vec![])),
            (16, 10, Some(vec![segment(0x2000, 10)])),
            (10, 107, Some(vec![segment(0x100a, 6), segment(0x2000, 100), segment(0x3000, 1)])),
            (124, 0, Some(vec![])),
            (120, 5, None),
            (u64::MAX, 1, None),
        ] {
            assert_eq!(part(&whole, skip, count), expected, "{skip} {count}");
        }
        assert_eq!(part(&[segment(u64::MAX, 8)], 4, 1), None);
    }
}
