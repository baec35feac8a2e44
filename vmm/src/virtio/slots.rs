//! Where a machine's virtio devices go: slots of a PCI bus, or pages of registers (MMIO).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;

use super::VirtioDevice;
use super::stats::QueueCounters;
use super::transport::{
    KvmNotifyRegistrar, NotifyRegistrar, TransportError, VirtioMmio, VirtioPci, mmio, pci,
};
use crate::bus::{Bus, BusError, Buses};
use crate::irq::{IrqLine, SharedWire};
use crate::kvm::interrupt_line;
use crate::memory::GuestRam;
use crate::pci::bus::Address;
use crate::pci::host_bridge::HostBridge;
use crate::pci::intx;
use crate::pci::kvm_ecam::KvmEcam;
use crate::pci::kvm_msi::KvmMsiRouter;
use crate::pci::{InterruptPin, PciBus, PciBusError, config_access};
use crate::poison::unpoisoned;

/// The queues' counters of every device, by its name in statistics.
pub type Counters = Vec<(String, Vec<Arc<QueueCounters>>)>;

/// A device for which there is no slot.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// The device and its transport do not fit together.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The PCI bus is full.
    #[error(transparent)]
    Pci(#[from] PciBusError),
    /// An address is taken already.
    #[error(transparent)]
    Bus(#[from] BusError),
}

/// A bus that devices are plugged into: PCI slots, or pages of MMIO registers.
pub trait Slots {
    /// Puts a device into the next free slot.
    ///
    /// # Errors
    /// There is none, or the device does not fit the transport.
    fn plug(
        &mut self,
        device: Box<dyn VirtioDevice>,
        counters: Vec<Arc<QueueCounters>>,
    ) -> Result<(), SlotError>;

    /// All devices are in: the guest may find them.
    ///
    /// # Errors
    /// An address is taken.
    fn finish(self: Box<Self>) -> Result<(Occupied, Counters), SlotError>;
}

/// Slots with devices in them.
pub enum Occupied {
    /// On a PCI bus.
    Pci(Arc<Mutex<PciBus>>),
    /// At addresses of their own on the bus of memory.
    Mmio {
        /// Where the pages of registers go.
        memory: Arc<Bus>,
        /// Guest-physical, one a device.
        addresses: Vec<u64>,
    },
}

impl Occupied {
    /// Drops all devices, which completes requests under way and lets go of the host's things.
    pub fn clear(&self) {
        match self {
            Occupied::Pci(bus) => unpoisoned(bus.lock()).clear(),
            Occupied::Mmio { memory, addresses } => {
                for address in addresses {
                    memory.remove(*address);
                }
            }
        }
    }
}

/// Slots of PCI bus 0; INTx wires are shared, MSI-X messages are each queue's own.
pub struct PciSlots {
    bus: PciBus,
    buses: Buses,
    ram: GuestRam,
    vm: Arc<VmFd>,
    msi: KvmMsiRouter,
    notify: Arc<dyn NotifyRegistrar>,
    wires: Wires,
    counters: Counters,
}

impl PciSlots {
    /// An empty bus with a host bridge.
    ///
    /// # Errors
    /// [`SlotError::Pci`].
    pub fn new(vm: &Arc<VmFd>, ram: &GuestRam, buses: &Buses) -> Result<Self, SlotError> {
        let mut bus = PciBus::new(&buses.ports, &buses.mmio);
        bus.add(Address { device: 0, function: 0 }, Arc::new(Mutex::new(HostBridge::default())))?;
        Ok(Self {
            bus,
            buses: buses.clone(),
            ram: ram.clone(),
            vm: Arc::clone(vm),
            msi: KvmMsiRouter::new(Arc::clone(vm)),
            notify: Arc::new(KvmNotifyRegistrar(Arc::clone(vm))),
            wires: Wires::default(),
            counters: Vec::new(),
        })
    }
}

impl Slots for PciSlots {
    fn plug(
        &mut self,
        device: Box<dyn VirtioDevice>,
        counters: Vec<Arc<QueueCounters>>,
    ) -> Result<(), SlotError> {
        let name = device.name();
        let slot = self.bus.free_device().ok_or(PciBusError::Full { name })?;
        let gsi = intx::gsi(slot, InterruptPin::A);
        let resources = pci::Resources {
            memory: self.ram.clone(),
            msi: &self.msi,
            notify: Arc::clone(&self.notify),
            intx: self.wires.input(&self.vm, gsi),
            gsi,
        };
        let function = VirtioPci::new(device, resources)?;
        let address = Address { device: slot, function: 0 };
        self.bus.add(address, Arc::new(Mutex::new(function)))?;
        self.counters.push((format!("00:{slot:02x}.0 {name}"), counters));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(Occupied, Counters), SlotError> {
        let Self { mut bus, buses, vm, counters, .. } = *self;
        bus.assign_addresses()?;
        bus.read_directly(KvmEcam::new(vm));
        let bus = Arc::new(Mutex::new(bus));
        config_access::insert_ports(&buses.ports, &bus)?;
        config_access::insert_ecam(&buses.mmio, &bus)?;
        Ok((Occupied::Pci(bus), counters))
    }
}

/// Pages of registers in the order of [`mmio::place`].
pub struct MmioSlots {
    memory: Arc<Bus>,
    ram: GuestRam,
    vm: Arc<VmFd>,
    notify: Arc<dyn NotifyRegistrar>,
    wires: Wires,
    addresses: Vec<u64>,
    counters: Counters,
}

impl MmioSlots {
    /// Without devices; the first page is free.
    pub fn new(vm: &Arc<VmFd>, ram: &GuestRam, buses: &Buses) -> Self {
        Self {
            memory: Arc::clone(&buses.mmio),
            ram: ram.clone(),
            vm: Arc::clone(vm),
            notify: Arc::new(KvmNotifyRegistrar(Arc::clone(vm))),
            wires: Wires::default(),
            addresses: Vec::new(),
            counters: Vec::new(),
        }
    }
}

impl Slots for MmioSlots {
    fn plug(
        &mut self,
        device: Box<dyn VirtioDevice>,
        counters: Vec<Arc<QueueCounters>>,
    ) -> Result<(), SlotError> {
        let name = device.name();
        let place = mmio::place(self.addresses.len());
        let resources = mmio::Resources {
            memory: self.ram.clone(),
            address: place.address,
            notify: Arc::clone(&self.notify),
            line: self.wires.input(&self.vm, place.gsi),
            trigger: mmio::Trigger::Level,
        };
        let device = VirtioMmio::new(device, resources)?;
        self.memory.insert(name, place.address, mmio::LENGTH, Arc::new(Mutex::new(device)))?;
        self.addresses.push(place.address);
        self.counters.push((format!("{:#x} {name}", place.address), counters));
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(Occupied, Counters), SlotError> {
        let Self { memory, addresses, counters, .. } = *self;
        Ok((Occupied::Mmio { memory, addresses }, counters))
    }
}

/// Inputs of the IOAPIC that devices share, level-triggered.
#[derive(Default)]
struct Wires(BTreeMap<u32, SharedWire>);

impl Wires {
    fn input(&mut self, vm: &Arc<VmFd>, gsi: u32) -> IrqLine {
        self.0.entry(gsi).or_insert_with(|| SharedWire::new(interrupt_line(vm, gsi))).driver()
    }
}
