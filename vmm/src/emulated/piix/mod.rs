//! The chipset around the bus: Intel 440FX and PIIX3, with the power management of the PIIX4, at
//! the places where firmware and drivers of the time look for them.
//!
//! | function | id        | part                                                     |
//! |----------|-----------|----------------------------------------------------------|
//! | 00:00.0  | 8086:1237 | [`host_bridge`]: memory controller, shadow RAM           |
//! | 00:01.0  | 8086:7000 | [`isa_bridge`]: PCI interrupt routing                    |
//! | 00:01.1  | 8086:7010 | [`ide_function`]: IDE, bus-master registers in BAR 4     |
//! | 00:01.3  | 8086:7113 | [`power_function`]: where the ACPI registers are         |
//! | 00:03.0… | 8086:100e | [e1000](super::e1000) controllers                        |

pub mod host_bridge;
pub mod ide_function;
pub mod isa_bridge;
pub mod pirq;
pub mod power_function;

use crate::pci::bus::Address;

/// 440FX.
pub const HOST_BRIDGE: Address = Address { device: 0, function: 0 };
/// PIIX3.
pub const ISA_BRIDGE: Address = Address { device: 1, function: 0 };
/// PIIX3.
pub const IDE: Address = Address { device: 1, function: 1 };
/// PIIX4.
pub const POWER: Address = Address { device: 1, function: 3 };
/// Network controllers go here and behind.
pub const FIRST_NETWORK_DEVICE: u8 = 3;
