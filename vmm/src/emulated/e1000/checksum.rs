//! The Internet checksum (RFC 1071) over frames in host memory.

/// The ones' complement sum of `data` as big-endian 16-bit words, folded, not inverted.
pub fn sum(data: &[u8]) -> u16 {
    // Sums of 32-bit pieces fold to the sum of 16-bit words, in either byte order (RFC 1071, 2).
    let mut chunks = data.chunks_exact(4);
    let mut total: u64 = 0;
    for chunk in &mut chunks {
        total += u64::from(u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]));
    }
    let mut rest = [0; 4];
    rest[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
    total += u64::from(u32::from_ne_bytes(rest));
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::from_be_bytes((total as u16).to_ne_bytes())
}

/// Adds two folded sums.
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum.wrapping_add(u16::from(carry))
}

/// Sums `frame[start..end]`, what is in the checksum field included, and puts the inverted sum at
/// `field`. Does nothing when these lie outside of the frame.
pub fn insert(frame: &mut [u8], start: usize, end: usize, field: usize) {
    let end = end.min(frame.len());
    if start >= end || field + 2 > frame.len() {
        return;
    }
    let value = !sum(&frame[start..end]);
    frame[field..field + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_with_its_checksum_sums_up_to_all_ones() {
        // The example of RFC 1071, section 3.
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0xab]), 0xab00);
        let mut header = vec![0x45, 0, 0, 60, 1, 2, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        insert(&mut header, 0, 20, 10);
        assert_eq!(sum(&header), 0xffff);
        let before = header.clone();
        insert(&mut header, 20, 40, 10);
        insert(&mut header, 0, 20, 19);
        assert_eq!(header, before);
    }
}
