//! The header in front of every frame on the back end (virtio 1.2, 5.1.6).

pub use virtio_bindings::virtio_net::{
    VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_ECN,
    VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_UDP_L4,
};

use crate::backend::net::VNET_HEADER_LENGTH;

/// `struct virtio_net_hdr_v1` without its last field, which is zero towards a tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// `VIRTIO_NET_HDR_F_*`.
    pub flags: u8,
    /// `VIRTIO_NET_HDR_GSO_*`.
    pub segmentation: u8,
    /// Length of the headers that each segment repeats.
    pub header_length: u16,
    /// Payload of each segment.
    pub segment_size: u16,
    /// Where summing starts.
    pub checksum_start: u16,
    /// Where the checksum goes, from there.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// Asks the host to sum from `start` to the end of the frame into `field`; a field that does
    /// not lie behind the start cannot be expressed.
    pub fn request_checksum(&mut self, start: usize, field: usize) -> bool {
        let offset = field.checked_sub(start).and_then(|o| u16::try_from(o).ok());
        let (Ok(start), Some(offset)) = (u16::try_from(start), offset) else { return false };
        self.flags |= VIRTIO_NET_HDR_F_NEEDS_CSUM as u8;
        self.checksum_start = start;
        self.checksum_offset = offset;
        true
    }

    pub fn to_bytes(self) -> [u8; VNET_HEADER_LENGTH] {
        let mut bytes = [0; VNET_HEADER_LENGTH];
        bytes[0] = self.flags;
        bytes[1] = self.segmentation;
        let words =
            [self.header_length, self.segment_size, self.checksum_start, self.checksum_offset];
        for (place, word) in bytes[2..10].chunks_exact_mut(2).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub fn from_bytes(bytes: &[u8; VNET_HEADER_LENGTH]) -> Self {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            segmentation: bytes[1],
            header_length: word(2),
            segment_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }
}
