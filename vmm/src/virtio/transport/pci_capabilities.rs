//! The layout of a virtio PCI device: one memory BAR, and the vendor capabilities that tell the
//! driver where in it everything is (virtio 1.2, 4.1.4).

use crate::pci::BarKind;
use crate::pci::config_space::{ConfigSpace, ConfigSpaceError};
use crate::pci::msix::{self, Msix};

/// The BAR that holds everything.
pub const BAR: usize = 0;
/// Bytes of that BAR.
pub const BAR_SIZE: u64 = 0x8000;
/// Room for each part.
pub const PART: u64 = 0x1000;
/// Offset of the common configuration (4.1.4.3).
pub const COMMON: u64 = 0x0000;
/// Offset of the ISR status (4.1.4.5).
pub const ISR: u64 = 0x1000;
/// Offset of the device's own configuration (4.1.4.6).
pub const DEVICE: u64 = 0x2000;
/// Notifications: [`NOTIFY_MULTIPLIER`] bytes for each queue.
pub const NOTIFY: u64 = 0x3000;
/// Offset of the MSI-X table.
pub const MSIX_TABLE: u64 = 0x4000;
/// Offset of the MSI-X pending bits.
pub const MSIX_PENDING: u64 = 0x5000;
/// notify_off_multiplier: an address of its own for each queue, so that ioeventfds need not
/// compare what was written.
pub const NOTIFY_MULTIPLIER: u32 = 4;

/// Bytes of `struct virtio_pci_common_cfg` up to queue_reset.
const COMMON_LENGTH: u32 = 0x3C;
/// Vendor-specific capability.
const VENDOR: u8 = 0x09;

/// cfg_type (4.1.4).
mod kind {
    pub const COMMON: u8 = 1;
    pub const NOTIFY: u8 = 2;
    pub const ISR: u8 = 3;
    pub const DEVICE: u8 = 4;
    pub const PCI: u8 = 5;
}

/// Where the two capabilities that are more than text ended up.
pub struct Offsets {
    /// Where the MSI-X capability is in configuration space.
    pub msix: u8,
    /// The window through configuration space, VIRTIO_PCI_CAP_PCI_CFG.
    pub window: u8,
}

/// Fields of the window capability, from its start.
pub mod window {
    /// Which BAR, 8 bits.
    pub const BAR: u8 = 4;
    /// Offset into it, 32 bits.
    pub const OFFSET: u8 = 8;
    /// How many bytes an access has, 32 bits: 1, 2 or 4.
    pub const LENGTH: u8 = 12;
    /// Reading or writing this is the access.
    pub const DATA: u8 = 16;
}

/// Gives `config` the BAR and all capabilities.
pub fn add(config: &mut ConfigSpace, msix: &Msix) -> Result<Offsets, ConfigSpaceError> {
    config.add_bar(BAR, BarKind::Memory32, BAR_SIZE)?;
    let (body, writable) = msix.capability(BAR as u8, MSIX_TABLE as u32, MSIX_PENDING as u32);
    let msix = config.add_capability(msix::CAPABILITY_ID, &body, &writable)?;
    config.add_capability(VENDOR, &location(kind::COMMON, COMMON, COMMON_LENGTH), &[])?;
    config.add_capability(VENDOR, &location(kind::ISR, ISR, 1), &[])?;
    config.add_capability(VENDOR, &location(kind::DEVICE, DEVICE, PART as u32), &[])?;
    let mut notify = [0; 18];
    notify[..14].copy_from_slice(&location(kind::NOTIFY, NOTIFY, PART as u32));
    notify[0] += 4;
    notify[14..].copy_from_slice(&NOTIFY_MULTIPLIER.to_le_bytes());
    config.add_capability(VENDOR, &notify, &[])?;
    let mut body = [0; 18];
    body[..14].copy_from_slice(&location(kind::PCI, 0, 0));
    body[0] += 4;
    let mut writable = [0xFF; 18];
    writable[..2].fill(0);
    writable[3..6].fill(0);
    let window = config.add_capability(VENDOR, &body, &writable)?;
    Ok(Offsets { msix, window })
}

/// `struct virtio_pci_cap` without its first two bytes.
fn location(kind: u8, offset: u64, length: u32) -> [u8; 14] {
    let mut body = [0; 14];
    body[..3].copy_from_slice(&[16, kind, BAR as u8]);
    body[6..10].copy_from_slice(&(offset as u32).to_le_bytes());
    body[10..].copy_from_slice(&length.to_le_bytes());
    body
}
