//! The data transfer modes that a host selects by SET FEATURES 03h.

/// Which mode of DMA is selected; IDENTIFY words 63 and 88 show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaMode {
    /// Multiword DMA 0 to 2.
    Multiword(u8),
    /// Ultra DMA 0 to 5.
    Ultra(u8),
}

impl DmaMode {
    /// What `count`, the count register of SET FEATURES 03h, selects (ATA/ATAPI-6 table 44): `None`
    /// where there is no such mode, `Some(None)` for PIO modes, which leave DMA as it is.
    pub fn selected_by(count: u8) -> Option<Option<Self>> {
        let mode = count & 7;
        match count >> 3 {
            0 if mode <= 1 => Some(None),
            1 if mode <= 4 => Some(None),
            4 if mode <= 2 => Some(Some(Self::Multiword(mode))),
            8 if mode <= 5 => Some(Some(Self::Ultra(mode))),
            _ => None,
        }
    }
}
