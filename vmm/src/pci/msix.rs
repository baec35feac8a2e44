//! MSI-X: the table, the pending bits and the capability (PCI Local Bus 3.0, 6.8.2).

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use super::msi::{MsiMessage, MsiRouter, MsiVector};

/// Capability id of MSI-X (PCI 3.0, appendix H).
pub const CAPABILITY_ID: u8 = 0x11;
/// Bytes of a table entry.
pub const ENTRY_LENGTH: u64 = 16;
/// Offset of the message control register in the capability.
pub const CONTROL_OFFSET: u8 = 2;

/// Bits of Message Control (PCI 3.0, 6.8.2.3).
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;
/// Vector control, the last dword of an entry: bit 0.
const VECTOR_CONTROL: usize = 12;
const MASKED: u8 = 1;

struct Entry {
    bytes: [u8; ENTRY_LENGTH as usize],
    vector: Arc<dyn MsiVector>,
    connected: Option<MsiMessage>,
}

impl Entry {
    fn dword(&self, at: usize) -> u32 {
        let b = &self.bytes;
        u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
    }

    fn is_masked(&self) -> bool {
        self.bytes[VECTOR_CONTROL] & MASKED != 0
    }

    fn message(&self) -> MsiMessage {
        // The two lowest address bits are reserved: messages are dwords.
        let low = self.dword(0) & !3;
        MsiMessage { address: u64::from(self.dword(4)) << 32 | u64::from(low), data: self.dword(8) }
    }

    fn is_pending(&self) -> bool {
        self.connected.is_none() && is_readable(self.vector.event().as_raw_fd())
    }
}

/// The MSI-X state of one function.
pub struct Msix {
    entries: Vec<Entry>,
    control: u16,
}

impl Msix {
    /// A table of `vectors` entries (1 to 2048), all masked.
    ///
    /// # Errors
    /// The host is out of file descriptors or interrupt numbers.
    pub fn new(router: &dyn MsiRouter, vectors: u16) -> io::Result<Self> {
        let mut entries = Vec::with_capacity(vectors.into());
        for _ in 0..vectors.clamp(1, 2048) {
            let mut bytes = [0; ENTRY_LENGTH as usize];
            bytes[VECTOR_CONTROL] = MASKED;
            entries.push(Entry { bytes, vector: router.allocate()?, connected: None });
        }
        Ok(Self { entries, control: 0 })
    }

    /// The capability's content and writable bits, for
    /// [`add_capability`](super::ConfigSpace::add_capability): table and pending bits in `bar`
    /// at the given offsets (multiples of 8).
    pub fn capability(&self, bar: u8, table: u32, pending: u32) -> ([u8; 10], [u8; 10]) {
        let mut body = [0; 10];
        body[..2].copy_from_slice(&(self.entries.len() as u16 - 1).to_le_bytes());
        body[2..6].copy_from_slice(&(table | u32::from(bar)).to_le_bytes());
        body[6..].copy_from_slice(&(pending | u32::from(bar)).to_le_bytes());
        let mut writable = [0; 10];
        writable[..2].copy_from_slice(&(ENABLE | FUNCTION_MASK).to_le_bytes());
        (body, writable)
    }

    /// Whether the guest uses MSI-X instead of INTx.
    pub fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// The vectors, by number.
    pub fn vectors(&self) -> Vec<Arc<dyn MsiVector>> {
        self.entries.iter().map(|entry| Arc::clone(&entry.vector)).collect()
    }

    /// Bytes of the table.
    pub fn table_length(&self) -> u64 {
        self.entries.len() as u64 * ENTRY_LENGTH
    }

    /// The guest wrote message control.
    pub fn set_control(&mut self, control: u16) {
        if self.control != control {
            self.control = control;
            (0..self.entries.len()).for_each(|index| self.reconnect(index));
        }
    }

    /// The guest reads the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            if let Some((index, at)) = self.locate(at) {
                *byte = self.entries[index].bytes[at];
            }
        }
    }

    /// The guest writes the table.
    pub fn write_table(&mut self, offset: u64, data: &[u8]) {
        let mut touched = None;
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            let Some((index, at)) = self.locate(at) else { break };
            let writable = match at {
                ..VECTOR_CONTROL => 0xFF,
                VECTOR_CONTROL => MASKED,
                _ => 0,
            };
            self.entries[index].bytes[at] = byte & writable;
            if let Some(done) = touched.replace(index).filter(|done| *done != index) {
                self.reconnect(done);
            }
        }
        if let Some(index) = touched {
            self.reconnect(index);
        }
    }

    /// The guest reads the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..=u64::MAX).zip(data) {
            let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
            let entries = self.entries.iter().skip(first).take(8);
            *byte =
                entries.enumerate().fold(0, |bits, (i, e)| bits | u8::from(e.is_pending()) << i);
        }
    }

    fn locate(&self, offset: u64) -> Option<(usize, usize)> {
        let index = usize::try_from(offset / ENTRY_LENGTH).ok()?;
        (index < self.entries.len()).then_some((index, (offset % ENTRY_LENGTH) as usize))
    }

    /// Brings vector `index` in line with enable, masks and message.
    fn reconnect(&mut self, index: usize) {
        let delivering = self.is_enabled() && self.control & FUNCTION_MASK == 0;
        let entry = &mut self.entries[index];
        let wanted = (delivering && !entry.is_masked()).then(|| entry.message());
        if wanted == entry.connected {
            return;
        }
        // A message that the hypervisor refuses leaves the vector pending: the guest named no
        // processor, so none is interrupted.
        let result = entry.vector.connect(wanted);
        entry.connected = wanted.filter(|_| result.is_ok());
    }
}

/// Whether reading `fd` would give something now.
fn is_readable(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: the pointer is to one live `pollfd`, and the count is one.
    unsafe { libc::poll(&mut poll, 1, 0) == 1 && poll.revents & libc::POLLIN != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::testing::FakeRouter;

    const MESSAGE: MsiMessage = MsiMessage { address: 0xFEE0_1000, data: 0x4041 };

    fn program(msix: &mut Msix, index: u64, control: u32) {
        let at = index * ENTRY_LENGTH;
        msix.write_table(at, &0xFEE0_1003u64.to_le_bytes());
        msix.write_table(at + 8, &0x4041u32.to_le_bytes());
        msix.write_table(at + 12, &control.to_le_bytes());
    }

    fn pending(msix: &Msix) -> u64 {
        let mut bytes = [0xFF; 8];
        msix.read_pending(0, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    #[test]
    fn vectors_start_masked() {
        let router = FakeRouter::default();
        let mut msix = Msix::new(&router, 3).unwrap();
        msix.set_control(ENABLE);
        assert!(msix.is_enabled());
        let mut control = [0xFF; 4];
        msix.read_table(12, &mut control);
        assert_eq!(control, [1, 0, 0, 0]);
        msix.vectors()[0].trigger();
        assert_eq!(router.delivered(0), []);
        assert_eq!(pending(&msix), 0b001);
    }

    #[test]
    fn unmasking_delivers_what_was_pending() {
        let router = FakeRouter::default();
        let mut msix = Msix::new(&router, 10).unwrap();
        msix.set_control(ENABLE);
        msix.vectors()[9].trigger();
        assert_eq!(pending(&msix), 1 << 9);
        program(&mut msix, 9, 0);
        assert_eq!(router.delivered(9), [MESSAGE]);
        assert_eq!(pending(&msix), 0);
        msix.vectors()[9].trigger();
        assert_eq!(router.delivered(9), [MESSAGE, MESSAGE]);
        program(&mut msix, 9, 1);
        msix.vectors()[9].trigger();
        assert_eq!(router.delivered(9).len(), 2);
    }

    #[test]
    fn the_function_mask_and_the_enable_bit_hold_back_all() {
        let router = FakeRouter::default();
        let mut msix = Msix::new(&router, 2).unwrap();
        program(&mut msix, 0, 0);
        program(&mut msix, 1, 0);
        assert_eq!(router.connected(0), None);
        msix.set_control(ENABLE | FUNCTION_MASK);
        msix.vectors()[1].trigger();
        assert_eq!((router.connected(0), pending(&msix)), (None, 0b10));
        msix.set_control(ENABLE);
        assert_eq!((router.connected(0), router.delivered(1)), (Some(MESSAGE), vec![MESSAGE]));
        msix.set_control(0);
        assert_eq!(router.connected(0), None);
    }

    #[test]
    fn a_refused_message_leaves_the_vector_pending() {
        let router = FakeRouter::default();
        let mut msix = Msix::new(&router, 1).unwrap();
        msix.set_control(ENABLE);
        router.refuse(true);
        program(&mut msix, 0, 0);
        msix.vectors()[0].trigger();
        assert_eq!((router.delivered(0), pending(&msix)), (vec![], 1));
    }

    #[test]
    fn odd_accesses_stay_inside() {
        let router = FakeRouter::default();
        let mut msix = Msix::new(&router, 2).unwrap();
        msix.write_table(15, &[0xFF; 8]);
        msix.write_table(28, &[0xFF; 8]);
        msix.write_table(u64::MAX - 1, &[0xFF]);
        let mut data = [0xAA; 8];
        msix.read_table(28, &mut data);
        assert_eq!(data, [1, 0, 0, 0, 0xAA, 0xAA, 0xAA, 0xAA]);
        msix.read_pending(u64::MAX - 1, &mut data[..1]);
        assert_eq!(data[0], 0);
    }

    #[test]
    fn the_capability_tells_size_and_place() {
        let msix = Msix::new(&FakeRouter::default(), 5).unwrap();
        let (body, writable) = msix.capability(1, 0x4000, 0x5000);
        assert_eq!(body, [4, 0, 1, 0x40, 0, 0, 1, 0x50, 0, 0]);
        assert_eq!(writable[..3], [0, 0xC0, 0]);
    }
}
