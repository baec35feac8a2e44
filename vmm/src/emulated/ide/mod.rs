//! IDE as the PIIX3 has it: two channels with a master and a slave each, at the ports PCs have had
//! since 1984, with programmed I/O and bus-master DMA.
//!
//! [`channel`] is the state machine, [`worker`] the thread that does the I/O; [`ports`] is what
//! the buses see of them.

mod atapi;
mod busmaster;
mod channel;
mod commands;
mod data_register;
mod dma_mode;
mod drive;
mod hard_disk;
mod identify;
mod packet;
mod ports;
mod taskfile;
mod transfer;
mod worker;

#[cfg(test)]
mod tests;

pub use ports::{BusMasterPorts, CommandPorts, ControlPort, DriveImage, IdeController, Media};

/// I/O ports and ISA interrupts of the two channels in compatibility mode
/// (PCI IDE Controller Specification 1.0, table 1).
pub const COMPATIBILITY: [CompatibilityChannel; 2] = [
    CompatibilityChannel { command: 0x1f0, control: 0x3f6, irq: 14 },
    CompatibilityChannel { command: 0x170, control: 0x376, irq: 15 },
];

/// Where a channel sits in compatibility mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompatibilityChannel {
    /// First port of the command block, which is 8 ports long.
    pub command: u16,
    /// Port of the device control and alternate status registers.
    pub control: u16,
    /// ISA interrupt.
    pub irq: u8,
}

/// Ports in the bus master's BAR: 8 per channel.
pub const BUS_MASTER_LENGTH: u64 = 16;
