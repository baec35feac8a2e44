//! IDE as a PCI function: PIIX3 function 1 (data sheet 290550, 2.3). The command blocks stay at
//! their old ports; the bus masters are in BAR 4.

use std::sync::Arc;

use crate::bus::BusDevice;
use crate::emulated::ide::{BUS_MASTER_LENGTH, BusMasterPorts, IdeController};
use crate::pci::config_space::ConfigSpaceError;
use crate::pci::{BarKind, ConfigSpace, Identity, PciFunction};

const BUS_MASTER_BAR: usize = 4;
/// IDE timing, one register of 16 bits for each channel.
const TIMING: u8 = 0x40;
/// Bit 15: the channel's ports are decoded. Drivers do not look for drives where it is clear.
const DECODE_ENABLE: u16 = 0x8000;

/// The PIIX3's IDE controller as a PCI function: its BAR and the channels' enable bits.
pub struct IdeFunction {
    config: ConfigSpace,
    ports: BusMasterPorts,
    _controller: Arc<IdeController>,
}

impl IdeFunction {
    /// The function of `controller`. Channels with drives are marked as decoded, for drivers that
    /// start without firmware; their ports answer in any case.
    ///
    /// # Errors
    /// None that a valid layout of BARs can cause.
    pub fn new(controller: Arc<IdeController>) -> Result<Self, ConfigSpaceError> {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 0x8086,
            device: 0x7010,
            class: 0x01,
            subclass: 0x01,
            interface: 0x80, // bus master; both channels in compatibility mode
            ..Identity::default()
        });
        config.add_bar(BUS_MASTER_BAR, BarKind::Io, BUS_MASTER_LENGTH)?;
        config.set(0x06, &[0x80, 0x02]); // fast back-to-back, medium DEVSEL timing
        config.set_writable(TIMING, &[0xff; 4]);
        config.set_writable(0x44, &[0xff]); // slave timing
        for channel in 0..2 {
            if controller.has_drives(channel) {
                let register = TIMING + 2 * channel as u8;
                config.set(register, &DECODE_ENABLE.to_le_bytes());
            }
        }
        let ports = controller.bus_master_ports();
        Ok(Self { config, ports, _controller: controller })
    }
}

impl PciFunction for IdeFunction {
    fn name(&self) -> &'static str {
        "ide-dma"
    }

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn read_bar(&mut self, _bar: usize, offset: u64, data: &mut [u8]) {
        self.ports.read(offset, data);
    }

    fn write_bar(&mut self, _bar: usize, offset: u64, data: &[u8]) {
        self.ports.write(offset, data);
    }
}
