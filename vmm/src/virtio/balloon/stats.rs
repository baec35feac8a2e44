//! What a guest tells of its memory (virtio 1.2, 5.5.6.4).

use serde::{Deserialize, Serialize};

/// `struct virtio_balloon_stat`: a 16-bit tag and a 64-bit value, packed.
pub const ENTRY_LENGTH: usize = 10;

/// The guest's statistics; what it does not tell is `None`. Amounts in bytes, the others counts
/// since the guest's boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStats {
    /// Bytes read back from swap since boot.
    pub swap_in: Option<u64>,
    /// Bytes written to swap since boot.
    pub swap_out: Option<u64>,
    /// Page faults that read from a disk.
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    pub minor_faults: Option<u64>,
    /// Not used for anything.
    pub free: Option<u64>,
    /// All the guest knows of.
    pub total: Option<u64>,
    /// Could be used by new processes without swapping.
    pub available: Option<u64>,
    /// Caches that can be given up without writing.
    pub disk_caches: Option<u64>,
    /// Huge pages that were allocated since boot.
    pub huge_page_allocations: Option<u64>,
    /// Huge pages that could not be allocated.
    pub huge_page_failures: Option<u64>,
}

impl BalloonStats {
    /// Reads the guest's buffer; unknown tags and an incomplete last entry are left out.
    pub fn parse(raw: &[u8]) -> Self {
        let mut stats = Self::default();
        for entry in raw.chunks_exact(ENTRY_LENGTH) {
            let (tag, value) = entry.split_at(2);
            let tag = u16::from_le_bytes([tag[0], tag[1]]);
            let mut bytes = [0; 8];
            bytes.copy_from_slice(value);
            if let Some(field) = stats.field(tag) {
                *field = Some(u64::from_le_bytes(bytes));
            }
        }
        stats
    }

    fn field(&mut self, tag: u16) -> Option<&mut Option<u64>> {
        Some(match tag {
            0 => &mut self.swap_in,
            1 => &mut self.swap_out,
            2 => &mut self.major_faults,
            3 => &mut self.minor_faults,
            4 => &mut self.free,
            5 => &mut self.total,
            6 => &mut self.available,
            7 => &mut self.disk_caches,
            8 => &mut self.huge_page_allocations,
            9 => &mut self.huge_page_failures,
            _ => return None,
        })
    }
}
