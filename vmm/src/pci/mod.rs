//! A conventional PCI bus (PCI Local Bus 3.0), for virtio and emulated devices alike.
//!
//! A device implements [`PciFunction`] around a [`ConfigSpace`]; [`PciBus`] puts functions at
//! their device numbers and their BARs on the port and memory [buses](crate::bus::Bus), and
//! [`config_access`] shows the guest both ways to configuration space.
//!
//! ```text
//! ports  0x0CF8            configuration address (mechanism #1)
//!        0x0CFC..0x0D00    configuration data
//!        0xC000..0x10000   window for I/O BARs
//! memory 0xC000_0000..0xE000_0000  window for memory BARs, 32- and 64-bit
//!        0xE000_0000..0xE010_0000  ECAM of bus 0
//! ```

pub mod acpi;
mod bar;
pub mod bus;
pub mod config_access;
pub mod config_page;
pub mod config_registers;
pub mod config_space;
pub mod function;
pub mod host_bridge;
pub mod intx;
pub mod kvm_ecam;
pub mod kvm_msi;
pub mod msi;
pub mod msix;
#[cfg(test)]
pub(crate) mod testing;

pub use bar::{BarKind, BarMapping, BarSpace};
pub use bus::{PciBus, PciBusError};
pub use config_space::{ConfigSpace, Identity, InterruptPin};
pub use function::{PciFunction, SharedFunction};

use std::ops::Range;

/// I/O ports that BARs get at start.
pub const IO_WINDOW: Range<u64> = 0xC000..0x1_0000;
/// Guest-physical addresses that memory BARs get at start.
pub const MEMORY_WINDOW: Range<u64> = 0xC000_0000..0xE000_0000;
/// The memory-mapped configuration space (PCI Express base specification 7.2.2; ACPI MCFG).
pub const ECAM_BASE: u64 = 0xE000_0000;
/// One MiB: bus 0 is the only one.
pub const ECAM_LENGTH: u64 = 1 << 20;
/// The segment group (PCI Firmware specification 3.3, 4.1.2) in which the paravirtual machine's
/// tables have the bus. Linux uses ECAM for the first 256 bytes of a function only outside segment
/// 0; there, it prefers ports 0xCF8 and 0xCFC, at two exits a register. The ports reach the bus all
/// the same, for kernels that do not read the tables.
pub const ECAM_SEGMENT: u16 = 1;
