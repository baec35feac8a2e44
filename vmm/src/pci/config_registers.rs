//! The registers of a conventional configuration space, and their bits (PCI Local Bus 3.0, chapter 6).

/// Bytes of conventional configuration space.
pub const LENGTH: usize = 256;

/// Register offsets (PCI Local Bus 3.0, 6.1).
pub mod register {
    /// Command, 16 bits.
    pub const COMMAND: u8 = 0x04;
    /// Status, 16 bits.
    pub const STATUS: u8 = 0x06;
    /// Header type; bit 7: the device has several functions.
    pub const HEADER_TYPE: u8 = 0x0E;
    /// First base address register.
    pub const BAR0: u8 = 0x10;
    /// Offset of the first capability.
    pub const CAPABILITIES: u8 = 0x34;
    /// For software only; names the interrupt input on a PC.
    pub const INTERRUPT_LINE: u8 = 0x3C;
    /// Which INTx pin the function drives.
    pub const INTERRUPT_PIN: u8 = 0x3D;
}

/// Command register bits (PCI Local Bus 3.0, 6.2.2).
pub mod command {
    /// I/O BARs are decoded.
    pub const IO: u16 = 1 << 0;
    /// Memory BARs are decoded.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may read and write guest memory.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// INTx must not be asserted.
    pub const INTX_DISABLE: u16 = 1 << 10;
    /// What a guest may set; parity and system errors do not happen here, but the bits stick.
    pub const WRITABLE: u16 = IO | MEMORY | BUS_MASTER | 1 << 6 | 1 << 8 | INTX_DISABLE;
}

/// Status register bits (PCI Local Bus 3.0, 6.2.3).
pub mod status {
    /// INTx is asserted (or would be, were it not disabled).
    pub const INTERRUPT: u16 = 1 << 3;
    /// There is a list of capabilities.
    pub const CAPABILITIES: u16 = 1 << 4;
}
