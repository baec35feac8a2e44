//! Puts the emulated devices into a machine: one function that shows all of them.

use std::io;
use std::sync::{Arc, Mutex};

use super::e1000::{E1000, E1000Function};
use super::ide::{COMPATIBILITY, DriveImage, IdeController};
use super::piix::host_bridge::{HostBridge, PamMapper, RamOnly};
use super::piix::ide_function::IdeFunction;
use super::piix::isa_bridge::{IsaBridge, USUAL_ROUTES};
use super::piix::pirq::{PirqRouter, pirq};
use super::piix::power_function::PowerFunction;
use super::piix::{FIRST_NETWORK_DEVICE, HOST_BRIDGE, IDE, ISA_BRIDGE, POWER};
use crate::backend::net::NetBackend;
use crate::bus::{Bus, BusError};
use crate::chipset::acpi_pm;
use crate::irq::IrqLine;
use crate::memory::GuestRam;
use crate::pci::bus::Address;
use crate::pci::config_space::ConfigSpaceError;
use crate::pci::{InterruptPin, PciBus, PciBusError, config_access};

/// A network controller to attach.
pub struct Nic {
    /// The Ethernet address that its EEPROM has.
    pub mac: [u8; 6],
    /// The back end's queue, for the transmitting thread.
    pub transmit: Box<dyn NetBackend>,
    /// The same queue, for the receiving thread.
    pub receive: Box<dyn NetBackend>,
}

/// What the first vCPU runs, and so who sets up PCI.
pub enum Start {
    /// A kernel: PCI is set up here, as firmware would have.
    Kernel,
    /// Firmware, which sets up PCI itself and finds ROM where the mapper has put it.
    Firmware(Box<dyn PamMapper>),
}

/// What is attached to the board beside its chipset.
pub struct EmulatedConfig {
    /// Primary master and slave, secondary master and slave.
    pub drives: [[Option<DriveImage>; 2]; 2],
    /// Network controllers, in their order on the bus.
    pub nics: Vec<Nic>,
    /// See [`Start`].
    pub start: Start,
}

/// Devices that cannot be attached.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// An address is taken already.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The PCI bus is full.
    #[error(transparent)]
    Pci(#[from] PciBusError),
    /// A function does not fit its configuration space.
    #[error(transparent)]
    ConfigSpace(#[from] ConfigSpaceError),
    /// The host refused something.
    #[error("cannot start {device}")]
    Host {
        /// The device's name, as statistics have it.
        device: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// The devices of a machine. Their threads end when this and the buses are dropped.
pub struct EmulatedDevices {
    /// Bus 0, the only one.
    pub pci: Arc<Mutex<PciBus>>,
    /// The IDE controller, with both channels.
    pub ide: Arc<IdeController>,
    /// Network controllers, in the order given.
    pub nics: Vec<Arc<E1000>>,
}

/// Attaches all devices to `ports` and `memory`; `line` makes the wire of an interrupt input. The
/// ACPI registers are on `ports` already.
///
/// # Errors
/// [`AssembleError`].
pub fn build(
    ram: &GuestRam,
    ports: &Arc<Bus>,
    memory: &Arc<Bus>,
    line: impl Fn(u32) -> IrqLine,
    config: EmulatedConfig,
) -> Result<EmulatedDevices, AssembleError> {
    let mut pci = PciBus::new(ports, memory);
    let (from_kernel, mapper) = match config.start {
        Start::Kernel => (true, Box::new(RamOnly) as Box<dyn PamMapper>),
        Start::Firmware(mapper) => (false, mapper),
    };

    let router = PirqRouter::new(|irq| line(irq.into()));
    let mut host_bridge = HostBridge::new(mapper);
    let mut isa_bridge = IsaBridge::new(router.clone());
    if from_kernel {
        host_bridge.enable_ram();
        isa_bridge.set_usual_routes();
    }
    pci.add(HOST_BRIDGE, Arc::new(Mutex::new(host_bridge)))?;
    pci.add(ISA_BRIDGE, Arc::new(Mutex::new(isa_bridge)))?;
    let usual = u64::from(acpi_pm::PORT);
    if let Some((registers, ..)) = ports.find(usual) {
        let power = PowerFunction::new(ports, registers, from_kernel);
        pci.add(POWER, Arc::new(Mutex::new(power)))?;
    }

    let ide = attach_ide(ram, ports, &line, config.drives)?;
    pci.add(IDE, Arc::new(Mutex::new(IdeFunction::new(Arc::clone(&ide))?)))?;

    let mut nics = Vec::new();
    for (device, nic) in (FIRST_NETWORK_DEVICE..).zip(config.nics) {
        let wire = router.input(device, InterruptPin::A);
        let controller = E1000::new(ram, nic.mac, nic.transmit, nic.receive, wire)
            .map_err(|source| AssembleError::Host { device: "e1000", source })?;
        let controller = Arc::new(controller);
        let irq = if from_kernel { USUAL_ROUTES[pirq(device, InterruptPin::A)] } else { 0 };
        let function = E1000Function::new(Arc::clone(&controller), irq)?;
        pci.add(Address { device, function: 0 }, Arc::new(Mutex::new(function)))?;
        nics.push(controller);
    }

    if from_kernel {
        pci.assign_addresses()?;
    }
    let pci = Arc::new(Mutex::new(pci));
    config_access::insert_ports(ports, &pci)?;
    Ok(EmulatedDevices { pci, ide, nics })
}

fn attach_ide(
    ram: &GuestRam,
    ports: &Bus,
    line: &impl Fn(u32) -> IrqLine,
    drives: [[Option<DriveImage>; 2]; 2],
) -> Result<Arc<IdeController>, AssembleError> {
    let lines = COMPATIBILITY.map(|channel| line(channel.irq.into()));
    let ide = IdeController::new(ram, drives, lines)
        .map_err(|source| AssembleError::Host { device: "ide", source })?;
    for (number, place) in COMPATIBILITY.iter().enumerate() {
        let command = Arc::new(Mutex::new(ide.command_ports(number)));
        ports.insert("ide", place.command.into(), 8, command)?;
        let control = Arc::new(Mutex::new(ide.control_port(number)));
        ports.insert("ide", place.control.into(), 1, control)?;
    }
    Ok(Arc::new(ide))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chipset::acpi_pm::{AcpiPm, PmModel};
    use crate::control::Control;
    use crate::emulated::ide::Media;
    use crate::emulated::testing::{MemoryDisk, Network, Wire, ram};

    fn config_read(ports: &Bus, device: u32, function: u32, register: u32) -> u32 {
        let address = 1 << 31 | device << 11 | function << 8 | register;
        let (latch, _, offset) = ports.find(0xcf8).unwrap();
        latch.lock().unwrap().write(offset, &address.to_le_bytes());
        let (data, _, offset) = ports.find(0xcfc).unwrap();
        let mut bytes = [0; 4];
        data.lock().unwrap().read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn drivers_find_the_devices_where_they_expect_them() {
        let (ports, memory) = (Arc::new(Bus::default()), Arc::new(Bus::default()));
        let image = DriveImage {
            media: Media::HardDisk { read_only: false },
            bytes: 1 << 20,
            serial: "S".into(),
            engine: Box::new(MemoryDisk::new(vec![0; 1 << 20])),
        };
        let network = Network::new();
        let nic = Nic {
            mac: [2, 0, 0, 0, 0, 1],
            transmit: Box::new(network.clone()),
            receive: Box::new(network),
        };
        let config = EmulatedConfig {
            drives: [[Some(image), None], [None, None]],
            nics: vec![nic],
            start: Start::Kernel,
        };
        let line = |_| Wire::new() as IrqLine;
        let pm = AcpiPm::new(line(9), Control::default(), PmModel::Piix4);
        let pm = Arc::new(Mutex::new(pm));
        ports.insert("acpi-pm", acpi_pm::PORT.into(), acpi_pm::PORTS, pm).unwrap();
        let _devices = build(&ram(0x10_0000), &ports, &memory, line, config).unwrap();
        let ids = [(0, 0), (1, 0), (1, 1), (1, 3), (3, 0)]
            .map(|(device, function)| config_read(&ports, device, function, 0));
        assert_eq!(ids, [0x1237_8086, 0x7000_8086, 0x7010_8086, 0x7113_8086, 0x100e_8086]);
        assert_eq!(config_read(&ports, 1, 1, 0x40), 0x8000, "only the primary channel has drives");
        assert_eq!(config_read(&ports, 1, 0, 0x60), 0x0b0b_0a0a);
        assert_eq!(config_read(&ports, 3, 0, 0x3c) & 0xffff, 0x010b);
        let registers = u64::from(config_read(&ports, 3, 0, 0x10));
        let (device, name, offset) = memory.find(registers + 8).unwrap();
        assert_eq!(name, "e1000");
        let mut status = [0; 4];
        device.lock().unwrap().read(offset, &mut status);
        assert_eq!(status[0] & 3, 3, "link up, full duplex");
        assert!(ports.find(0x1f7).is_some() && ports.find(0x376).is_some());
        let bus_master = u64::from(config_read(&ports, 1, 1, 0x20) & !3);
        assert_eq!(ports.find(bus_master).unwrap().1, "ide-dma");
    }
}
