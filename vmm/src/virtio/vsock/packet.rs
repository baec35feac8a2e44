//! The header in front of every packet (virtio 1.2, 5.10.6).

/// Bytes of `struct virtio_vsock_hdr`.
pub const HEADER_LENGTH: usize = 44;
/// The most payload in one packet; drivers use no more, and it bounds what is copied at a time.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// The host's context id (5.10.4).
pub const HOST_CID: u64 = 2;
/// The only socket type we have: VIRTIO_VSOCK_TYPE_STREAM.
pub const STREAM: u16 = 1;

/// VIRTIO_VSOCK_SHUTDOWN_RCV: the sender receives no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// VIRTIO_VSOCK_SHUTDOWN_SEND: the sender sends no more.
pub const SHUTDOWN_SEND: u32 = 2;

/// What a packet is for (5.10.6.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Operation {
    pub fn from_number(number: u16) -> Option<Self> {
        use Operation::*;
        [Request, Response, Reset, Shutdown, Data, CreditUpdate, CreditRequest]
            .into_iter()
            .find(|operation| *operation as u16 == number)
    }
}

/// `struct virtio_vsock_hdr`, all little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    pub source_cid: u64,
    pub destination_cid: u64,
    pub source_port: u32,
    pub destination_port: u32,
    /// Bytes of payload.
    pub length: u32,
    pub socket_type: u16,
    /// An [`Operation`], as far as it is one.
    pub operation: u16,
    pub flags: u32,
    /// Receive buffer of the sender.
    pub buffer_size: u32,
    /// Bytes the sender has consumed so far, modulo 2^32.
    pub forwarded: u32,
}

impl Header {
    pub fn from_bytes(bytes: &[u8; HEADER_LENGTH]) -> Self {
        let long = |at: usize| u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32;
        Self {
            source_cid: long(0),
            destination_cid: long(8),
            source_port: word(bytes, 16),
            destination_port: word(bytes, 20),
            length: word(bytes, 24),
            socket_type: word(bytes, 28) as u16,
            operation: (word(bytes, 28) >> 16) as u16,
            flags: word(bytes, 32),
            buffer_size: word(bytes, 36),
            forwarded: word(bytes, 40),
        }
    }

    pub fn to_bytes(self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..8].copy_from_slice(&self.source_cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.destination_cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.source_port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.destination_port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.socket_type.to_le_bytes());
        bytes[30..32].copy_from_slice(&self.operation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer_size.to_le_bytes());
        bytes[40..].copy_from_slice(&self.forwarded.to_le_bytes());
        bytes
    }
}

fn word(bytes: &[u8; HEADER_LENGTH], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_read_back_as_written() {
        let header = Header {
            source_cid: 0x0102_0304_0506_0708,
            destination_cid: HOST_CID,
            source_port: 1,
            destination_port: 0x8000_0002,
            length: 3,
            socket_type: STREAM,
            operation: Operation::Data as u16,
            flags: 4,
            buffer_size: 5,
            forwarded: 6,
        };
        assert_eq!(Header::from_bytes(&header.to_bytes()), header);
        assert_eq!(header.to_bytes()[28..32], [1, 0, 5, 0]);
        assert_eq!(Operation::from_number(0), None);
        assert_eq!(Operation::from_number(8), None);
    }
}
