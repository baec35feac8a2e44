//! The Intel 82540EM gigabit controller, which every PC operating system since 2000 has a driver
//! for ("e1000").
//!
//! Register accesses end in [`state::Registers`] under a short lock. Frames move on two threads:
//! [`tx::Transmitter`] is woken by the tail register only when it sleeps, so a busy driver pays
//! one exit per tail write and nothing more; [`rx::Receiver`] waits for the host. Each holds its own lock
//! for a batch, and a write that takes rings away (a reset, or clearing an enable bit) takes those
//! locks first: no thread touches guest memory that the driver has taken back.
//!
//! The tail registers cannot be ioeventfds: these drop the written value, and legacy descriptors
//! carry no mark of who owns them.
//!
//! Lock order: transmitter, receiver, registers.

mod checksum;
mod eeprom;
mod filter;
mod function;
mod interrupts;
mod phy;
mod registers;
mod ring;
mod rx;
mod state;
mod threads;
mod tx;
mod vnet;

#[cfg(test)]
mod tests;

pub use function::E1000Function;
pub use threads::{E1000, IoPorts, MemoryRegisters};

/// Intel.
pub const VENDOR_ID: u16 = 0x8086;
/// 82540EM, copper.
pub const DEVICE_ID: u16 = 0x100e;
/// Bytes of registers in memory space, BAR 0.
pub const MEMORY_LENGTH: u64 = 0x2_0000;
/// Ports in I/O space, BAR 1: an address and a data register, in a range of 64.
pub const IO_LENGTH: u64 = 0x40;
