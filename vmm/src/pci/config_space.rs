//! The configuration space of one function: PCI Local Bus 3.0, chapter 6.

use std::sync::Arc;

use super::bar::{Bar, BarKind, BarMapping, BarSpace};
use super::config_page::{ConfigPage, InterruptStatus};
use super::config_registers::{LENGTH, command, register, status};

/// Where capabilities are put: behind the header.
const FIRST_CAPABILITY: usize = 0x40;

/// What a function is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision id.
    pub revision: u8,
    /// Base class.
    pub class: u8,
    /// Sub-class.
    pub subclass: u8,
    /// Programming interface.
    pub interface: u8,
    /// Subsystem vendor id.
    pub subsystem_vendor: u16,
    /// Subsystem id.
    pub subsystem: u16,
}

/// An interrupt pin of a device (PCI Local Bus 3.0, 6.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum InterruptPin {
    /// INTA#.
    A = 1,
    /// INTB#.
    B = 2,
    /// INTC#.
    C = 3,
    /// INTD#.
    D = 4,
}

/// A device that asks for something that configuration space cannot hold.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigSpaceError {
    /// A BAR that is too small, no power of two, or has no register left.
    #[error(
        "PCI: BAR {index} of {size:#x} bytes cannot be: it needs a free register (0 to 5, two for 64-bit BARs) and a power of two"
    )]
    BadBar {
        /// The first register's index.
        index: usize,
        /// Bytes that were asked for.
        size: u64,
    },
    /// The 192 bytes for capabilities are used up.
    #[error("PCI: no room for a capability of {length} bytes")]
    NoRoom {
        /// Bytes that were asked for.
        length: usize,
    },
}

/// A type 0 configuration space: bytes, and which of their bits the guest may write.
pub struct ConfigSpace {
    bytes: Arc<ConfigPage>,
    writable: [u8; LENGTH],
    bars: [Option<Bar>; 6],
    /// Where the pointer to the next capability is.
    capability_link: usize,
    capability_end: usize,
}

impl ConfigSpace {
    /// A header with nothing but an identity.
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: Arc::default(),
            writable: [0; LENGTH],
            bars: [None; 6],
            capability_link: register::CAPABILITIES.into(),
            capability_end: FIRST_CAPABILITY,
        };
        space.set(0x00, &identity.vendor.to_le_bytes());
        space.set(0x02, &identity.device.to_le_bytes());
        space
            .set(0x08, &[identity.revision, identity.interface, identity.subclass, identity.class]);
        space.set(0x2C, &identity.subsystem_vendor.to_le_bytes());
        space.set(0x2E, &identity.subsystem.to_le_bytes());
        space.set_writable(register::COMMAND, &command::WRITABLE.to_le_bytes());
        space.set_writable(0x0C, &[0xFF, 0xFF]); // Cache line size and latency timer: no effect.
        space
    }

    /// Function 0 of a device with several functions must say so.
    pub fn set_multifunction(&mut self) {
        let header_type = self.u8_at(register::HEADER_TYPE);
        self.set(register::HEADER_TYPE, &[header_type | 0x80]);
    }

    /// The function interrupts through `pin`; `line` is what firmware would have stored.
    pub fn set_interrupt(&mut self, pin: InterruptPin, line: u8) {
        self.set(register::INTERRUPT_LINE, &[line, pin as u8]);
        self.set_writable(register::INTERRUPT_LINE, &[0xFF]);
    }

    /// Adds a BAR of `size` bytes at register `index` (0 to 5), unassigned.
    ///
    /// # Errors
    /// [`ConfigSpaceError::BadBar`].
    pub fn add_bar(
        &mut self,
        index: usize,
        kind: BarKind,
        size: u64,
    ) -> Result<(), ConfigSpaceError> {
        let bad = ConfigSpaceError::BadBar { index, size };
        let registers = if kind == BarKind::Memory64 { 2 } else { 1 };
        let fits = kind == BarKind::Memory64 || size <= 1 << 31;
        let usable = size.is_power_of_two() && size >= kind.smallest() && fits;
        if !usable || index + registers > 6 || !self.bar_registers_free(index, registers) {
            return Err(bad);
        }
        self.bars[index] = Some(Bar { kind, size });
        let mask = !(size - 1);
        let low = bar_register(index);
        self.set(low, &kind.flags().to_le_bytes());
        self.set_writable(low, &(mask as u32).to_le_bytes());
        if kind == BarKind::Memory64 {
            self.set_writable(low + 4, &((mask >> 32) as u32).to_le_bytes());
        }
        Ok(())
    }

    fn bar_registers_free(&self, index: usize, registers: usize) -> bool {
        let after_wide =
            index > 0 && self.bars[index - 1].is_some_and(|bar| bar.kind == BarKind::Memory64);
        !after_wide && self.bars[index..index + registers].iter().all(Option::is_none)
    }

    /// Appends a capability whose content after id and link is `body`; `writable` are the bits
    /// the guest may write, none where it is shorter than `body`. Returns its offset.
    ///
    /// # Errors
    /// [`ConfigSpaceError::NoRoom`].
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u8, ConfigSpaceError> {
        let start = self.capability_end;
        let length = 2 + body.len();
        if start + length > LENGTH {
            return Err(ConfigSpaceError::NoRoom { length });
        }
        self.bytes.store(self.capability_link, start as u8);
        let status = self.u16_at(register::STATUS) | status::CAPABILITIES;
        self.set(register::STATUS, &status.to_le_bytes());
        self.set(start as u8, &[id]);
        self.set(start as u8 + 2, body);
        let masked = writable.len().min(body.len());
        self.writable[start + 2..start + 2 + masked].copy_from_slice(&writable[..masked]);
        self.capability_link = start + 1;
        // Capabilities start on a dword boundary (6.7).
        self.capability_end = (start + length).next_multiple_of(4);
        Ok(start as u8)
    }

    /// Sets registers as the device, whatever the guest may write. Bytes beyond the end are
    /// dropped.
    pub fn set(&mut self, offset: u8, bytes: &[u8]) {
        for (at, byte) in (usize::from(offset)..LENGTH).zip(bytes) {
            self.bytes.store(at, *byte);
        }
    }

    /// Sets which bits of registers the guest may write.
    pub fn set_writable(&mut self, offset: u8, mask: &[u8]) {
        for (to, from) in self.writable[offset.into()..].iter_mut().zip(mask) {
            *to = *from;
        }
    }

    /// The byte at `offset`.
    pub fn u8_at(&self, offset: u8) -> u8 {
        self.bytes.load(offset.into())
    }

    /// The 16 bits at `offset`, little-endian.
    pub fn u16_at(&self, offset: u8) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset.into(), &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// The 32 bits at `offset`, little-endian.
    pub fn u32_at(&self, offset: u8) -> u32 {
        let mut bytes = [0; 4];
        self.read(offset.into(), &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// The guest reads. Beyond the 256 bytes of a conventional function there is nothing.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (i, byte) in data.iter_mut().enumerate() {
            *byte = self.bytes.load(usize::from(offset) + i);
        }
    }

    /// Writes as the guest does: bits that it may not write stay.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let registers = self.writable.iter().enumerate().skip(offset.into());
        for ((at, mask), new) in registers.zip(data) {
            if *mask != 0 {
                self.bytes.store(at, self.bytes.load(at) & !mask | new & mask);
            }
        }
    }

    /// The command register, see [`command`].
    pub fn command(&self) -> u16 {
        self.u16_at(register::COMMAND)
    }

    /// The function may read and write guest memory.
    pub fn is_bus_master(&self) -> bool {
        self.command() & command::BUS_MASTER != 0
    }

    /// INTx must not be asserted.
    pub fn is_intx_disabled(&self) -> bool {
        self.command() & command::INTX_DISABLE != 0
    }

    /// The memory behind it, which changes with it.
    pub fn page(&self) -> &Arc<ConfigPage> {
        &self.bytes
    }

    /// For whoever drives the function's interrupt pin.
    pub fn interrupt_status(&self) -> InterruptStatus {
        InterruptStatus(Arc::clone(&self.bytes))
    }

    /// What the BAR at register `index` asks for.
    pub fn bar(&self, index: usize) -> Option<(BarKind, u64)> {
        self.bars.get(index).copied().flatten().map(|bar| (bar.kind, bar.size))
    }

    /// The address in a BAR, whether decoded or not.
    pub fn bar_address(&self, index: usize) -> Option<u64> {
        let bar = self.bars.get(index).copied().flatten()?;
        let low = self.u32_at(bar_register(index)) & !(bar.size - 1) as u32;
        let high = match bar.kind {
            BarKind::Memory64 => self.u32_at(bar_register(index) + 4),
            BarKind::Io | BarKind::Memory32 => 0,
        };
        Some(u64::from(high) << 32 | u64::from(low))
    }

    /// Puts an address into a BAR, as firmware would.
    pub fn set_bar_address(&mut self, index: usize, address: u64) {
        let Some(bar) = self.bars.get(index).copied().flatten() else { return };
        self.write(bar_register(index).into(), &(address as u32).to_le_bytes());
        if bar.kind == BarKind::Memory64 {
            self.write(u16::from(bar_register(index)) + 4, &((address >> 32) as u32).to_le_bytes());
        }
    }

    /// Where the guest wants a BAR decoded: nowhere while the command register says no, while it
    /// is unassigned (0), and while it is being sized (the range reaches the end of its space).
    pub fn bar_mapping(&self, index: usize) -> Option<BarMapping> {
        let bar = self.bars.get(index).copied().flatten()?;
        let space = bar.kind.space();
        let (enable, last) = match (space, bar.kind) {
            (BarSpace::Io, _) => (command::IO, 0xFFFF),
            (BarSpace::Memory, BarKind::Memory64) => (command::MEMORY, u64::MAX),
            (BarSpace::Memory, _) => (command::MEMORY, u32::MAX.into()),
        };
        let address = self.bar_address(index)?;
        let end = address.checked_add(bar.size - 1)?;
        let usable = self.command() & enable != 0 && address != 0 && end < last;
        usable.then_some(BarMapping { space, address, size: bar.size })
    }
}

/// Offset of BAR `index` (0 to 5).
fn bar_register(index: usize) -> u8 {
    register::BAR0 + 4 * index as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(&Identity {
            vendor: 0x1AF4,
            device: 0x1041,
            revision: 1,
            class: 2,
            subsystem: 0x40,
            ..Identity::default()
        })
    }

    fn size_of_bar(space: &mut ConfigSpace, register: u16) -> u32 {
        space.write(register, &[0xFF; 4]);
        let mut bytes = [0; 4];
        space.read(register, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn identity_is_read_only_at_every_width() {
        let mut space = space();
        space.write(0, &[0xFF; 8]);
        assert_eq!(space.u32_at(0), 0x1041_1AF4);
        assert_eq!(space.u8_at(0x0B), 2);
        assert_eq!(space.u16_at(0x2E), 0x40);
        assert_eq!(space.command(), command::WRITABLE);
        assert_eq!(space.u16_at(register::STATUS), 0);
        let mut byte = [0];
        space.read(3, &mut byte);
        assert_eq!(byte, [0x10]);
    }

    #[test]
    fn bars_are_sized_by_writing_ones() {
        let mut space = space();
        space.add_bar(0, BarKind::Memory32, 0x8000).unwrap();
        space.add_bar(1, BarKind::Io, 0x20).unwrap();
        space.add_bar(2, BarKind::Memory64, 1 << 33).unwrap();
        assert_eq!(size_of_bar(&mut space, 0x10), 0xFFFF_8000);
        assert_eq!(size_of_bar(&mut space, 0x14), 0xFFFF_FFE1);
        assert_eq!(size_of_bar(&mut space, 0x18), 0x0000_0004);
        assert_eq!(size_of_bar(&mut space, 0x1C), 0xFFFF_FFFE);
        assert_eq!(size_of_bar(&mut space, 0x20), 0);
    }

    #[test]
    fn bars_that_cannot_be_are_refused() {
        let mut space = space();
        space.add_bar(0, BarKind::Memory64, 0x1000).unwrap();
        for (index, kind, size) in [
            (0, BarKind::Io, 4),
            (1, BarKind::Io, 4),
            (2, BarKind::Io, 2),
            (2, BarKind::Memory32, 24),
            (2, BarKind::Memory32, 1 << 32),
            (5, BarKind::Memory64, 0x1000),
            (6, BarKind::Memory32, 0x1000),
        ] {
            let refused = space.add_bar(index, kind, size);
            assert_eq!(refused, Err(ConfigSpaceError::BadBar { index, size }));
        }
    }

    #[test]
    fn a_bar_is_decoded_when_enabled_and_sensible() {
        let mut space = space();
        space.add_bar(0, BarKind::Memory32, 0x1000).unwrap();
        space.add_bar(1, BarKind::Io, 8).unwrap();
        space.add_bar(2, BarKind::Memory64, 0x1000).unwrap();
        space.set_bar_address(0, 0xC000_0123);
        assert_eq!(space.bar_address(0), Some(0xC000_0000));
        assert_eq!(space.bar_mapping(0), None);
        space.write(0x04, &command::MEMORY.to_le_bytes());
        let mapping = BarMapping { space: BarSpace::Memory, address: 0xC000_0000, size: 0x1000 };
        assert_eq!(space.bar_mapping(0), Some(mapping));
        assert_eq!(space.bar_mapping(1), None);
        for bad in [0, 0xFFFF_F000] {
            space.set_bar_address(0, bad);
            assert_eq!(space.bar_mapping(0), None);
        }
        space.write(0x04, &[0xFF, 0xFF]);
        space.set_bar_address(1, 0x1_0000);
        assert_eq!(space.bar_mapping(1), None);
        space.set_bar_address(2, 0xFFFF_FFFF_FFFF_F000);
        assert_eq!(space.bar_mapping(2), None);
        space.set_bar_address(2, 0x10_0000_0000);
        assert_eq!(space.bar_mapping(2).unwrap().address, 0x10_0000_0000);
        assert_eq!(space.bar_mapping(6), None);
    }

    #[test]
    fn capabilities_form_a_list() {
        let mut space = space();
        let first = space.add_capability(0x09, &[1, 2, 3], &[]).unwrap();
        let second = space.add_capability(0x11, &[0; 10], &[0, 0xC0]).unwrap();
        assert_eq!((first, second), (0x40, 0x48));
        assert_eq!(space.u16_at(register::STATUS), status::CAPABILITIES);
        assert_eq!(space.u8_at(register::CAPABILITIES), first);
        assert_eq!(space.u16_at(first), u16::from(second) << 8 | 0x09);
        assert_eq!(space.u16_at(second), 0x11);
        space.write(u16::from(second), &[0xFF; 4]);
        assert_eq!(space.u32_at(second), 0xC000_0011);
        let refused = space.add_capability(0x09, &[0; 200], &[]);
        assert_eq!(refused, Err(ConfigSpaceError::NoRoom { length: 202 }));
    }

    #[test]
    fn accesses_beyond_the_end_do_nothing() {
        let mut space = space();
        space.write(0xFE, &[1, 2, 3, 4]);
        space.write(0xFFF, &[1]);
        let mut data = [0; 4];
        space.read(0xFE, &mut data);
        assert_eq!(data, [0, 0, 0xFF, 0xFF]);
        space.read(0xFFC, &mut data);
        assert_eq!(data, [0xFF; 4]);
    }
}
