//! Base address registers: PCI Local Bus 3.0, 6.2.5.1.

/// What a BAR asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports, 64 Ki of them.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes two BAR registers.
    Memory64,
}

impl BarKind {
    /// The read-only bits at the bottom of the register.
    pub(super) fn flags(self) -> u32 {
        match self {
            Self::Io => 0b01,
            Self::Memory32 => 0b000,
            Self::Memory64 => 0b100,
        }
    }

    /// The address space the BAR lies in.
    pub fn space(self) -> BarSpace {
        match self {
            Self::Io => BarSpace::Io,
            Self::Memory32 | Self::Memory64 => BarSpace::Memory,
        }
    }

    /// The smallest size: four ports, sixteen bytes.
    pub(super) fn smallest(self) -> u64 {
        match self.space() {
            BarSpace::Io => 4,
            BarSpace::Memory => 16,
        }
    }
}

/// An address space that a BAR lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarSpace {
    /// I/O ports, 64 Ki of them.
    Io,
    /// Guest-physical memory.
    Memory,
}

/// Where the guest wants a BAR to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarMapping {
    /// The space that `address` is in.
    pub space: BarSpace,
    /// First address; a multiple of the BAR's size.
    pub address: u64,
    /// Bytes; a power of two.
    pub size: u64,
}

/// A BAR of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    pub kind: BarKind,
    pub size: u64,
}
