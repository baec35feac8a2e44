//! The controller as a PCI function.

use std::sync::Arc;

use super::{DEVICE_ID, E1000, IO_LENGTH, IoPorts, MEMORY_LENGTH, MemoryRegisters, VENDOR_ID};
use crate::bus::BusDevice;
use crate::pci::config_space::ConfigSpaceError;
use crate::pci::{BarKind, ConfigSpace, Identity, InterruptPin, PciFunction};

const MEMORY_BAR: usize = 0;
const IO_BAR: usize = 1;

/// An e1000 as a PCI function: BARs, interrupt pin, and the registers behind them.
pub struct E1000Function {
    config: ConfigSpace,
    memory: MemoryRegisters,
    io: IoPorts,
    _controller: Arc<E1000>,
}

impl E1000Function {
    /// The function of `controller`; `irq` goes into the interrupt line register.
    ///
    /// # Errors
    /// None that a valid layout of BARs can cause.
    pub fn new(controller: Arc<E1000>, irq: u8) -> Result<Self, ConfigSpaceError> {
        let mut config = ConfigSpace::new(&Identity {
            vendor: VENDOR_ID,
            device: DEVICE_ID,
            revision: 2,
            class: 0x02,
            subsystem_vendor: VENDOR_ID,
            subsystem: DEVICE_ID, // as its EEPROM says
            ..Identity::default()
        });
        config.add_bar(MEMORY_BAR, BarKind::Memory32, MEMORY_LENGTH)?;
        config.add_bar(IO_BAR, BarKind::Io, IO_LENGTH)?;
        config.set_interrupt(InterruptPin::A, irq);
        let (memory, io) = (controller.memory_registers(), controller.io_ports());
        Ok(Self { config, memory, io, _controller: controller })
    }
}

impl PciFunction for E1000Function {
    fn name(&self) -> &'static str {
        "e1000"
    }

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn read_bar(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        match bar {
            MEMORY_BAR => self.memory.read(offset, data),
            _ => self.io.read(offset, data),
        }
    }

    fn write_bar(&mut self, bar: usize, offset: u64, data: &[u8]) {
        match bar {
            MEMORY_BAR => self.memory.write(offset, data),
            _ => self.io.write(offset, data),
        }
    }
}
