//! From the operator's words to the virtio devices of a machine.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;

use super::VirtioDevice;
use super::balloon::{Balloon, BalloonHandle};
use super::block::Block;
use super::console::{Console, ConsoleHandle};
use super::net::{NetError, VirtioNet};
use super::rng::Rng;
use super::stats::{DeviceCounters, QueueCounters};
use super::transport::pci::Resources;
use super::transport::{KvmNotifyRegistrar, NotifyRegistrar, TransportError, VirtioPci};
use super::vsock::{VirtioVsock, VsockError};
use crate::backend::disk::{DiskError, DiskImage};
use crate::bus::BusError;
use crate::config::MachineConfig;
use crate::irq::IrqLine;
use crate::kvm::interrupt_line;
use crate::memory::GuestRam;
use crate::pci::bus::Address;
use crate::pci::host_bridge::HostBridge;
use crate::pci::intx::{self, SharedLine};
use crate::pci::kvm_msi::KvmMsiRouter;
use crate::pci::{InterruptPin, PciBus, PciBusError, config_access};
use crate::rate_limit::RateLimit;
use crate::vcpu::run::Buses;

/// Queues of a disk: one per vCPU, up to this.
const MAX_DISK_QUEUES: u32 = 16;

/// Devices that the machine cannot have.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// A disk cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A network cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The host's socket cannot be made.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// A device and its transport do not fit together.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The PCI bus is full.
    #[error(transparent)]
    Pci(#[from] PciBusError),
    /// An address is taken already.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The host refused something.
    #[error("cannot make the device {device}")]
    Host {
        /// Which device.
        device: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// The devices of a machine.
pub struct VirtioDevices {
    pci: Arc<Mutex<PciBus>>,
    /// What each queue of each device did.
    pub counters: DeviceCounters,
    /// Asks the guest for memory.
    pub balloon: Option<BalloonHandle>,
    /// Tells the guest of the terminal's size.
    pub console: Option<ConsoleHandle>,
}

impl VirtioDevices {
    /// Stops all devices and lets go of what they hold on the host; requests under way are
    /// completed first. For a guest that no longer runs.
    pub fn shut_down(&self) {
        self.pci.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }
}

impl Drop for VirtioDevices {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Whether `config` asks for any; without, the machine has no PCI bus for its kernel to search.
pub fn wanted(config: &MachineConfig) -> bool {
    !config.disks.is_empty()
        || !config.nets.is_empty()
        || config.vsock.is_some()
        || config.console.is_some()
        || config.balloon.is_some()
        || config.rng
}

/// Attaches what `config` asks for to the buses of the machine.
///
/// # Errors
/// [`AttachError`].
pub fn attach(
    config: &mut MachineConfig,
    vm: &Arc<VmFd>,
    ram: &GuestRam,
    buses: &Buses,
) -> Result<VirtioDevices, AttachError> {
    let mut pci = PciBus::new(Arc::clone(&buses.ports), Arc::clone(&buses.mmio));
    pci.add(Address { device: 0, function: 0 }, Arc::new(Mutex::new(HostBridge::default())))?;
    let mut slots = Slots {
        pci,
        ram: ram.clone(),
        vm: Arc::clone(vm),
        msi: KvmMsiRouter::new(Arc::clone(vm)),
        notify: Arc::new(KvmNotifyRegistrar(Arc::clone(vm))),
        wires: BTreeMap::new(),
        counters: Vec::new(),
    };
    let host = |device| move |source| AttachError::Host { device, source };

    for options in &config.disks {
        let image = DiskImage::open(options)?;
        let queues = config.cpus.min(MAX_DISK_QUEUES) as u16;
        let device = Block::new(image, queues, options.rate).map_err(host("virtio-blk"))?;
        let counters = device.counters();
        slots.plug(device, counters)?;
    }
    for options in &config.nets {
        let device = VirtioNet::open(options)?;
        let counters = device.counters();
        slots.plug(device, counters)?;
    }
    if let Some(options) = &config.vsock {
        let device = VirtioVsock::open(options)?;
        let counters = device.counters();
        slots.plug(device, counters)?;
    }
    if config.rng {
        let device = Rng::new(RateLimit::default()).map_err(host("virtio-rng"))?;
        let counters = device.counters();
        slots.plug(device, counters)?;
    }
    let mut console = None;
    if let Some(port) = config.console.take() {
        let device = Console::new(port.output, port.input);
        console = Some(device.handle());
        let counters = device.counters();
        slots.plug(device, counters)?;
    }
    let mut balloon = None;
    if let Some(options) = config.balloon {
        let device = Balloon::new(options).map_err(host("virtio-balloon"))?;
        balloon = Some(device.handle());
        let counters = device.counters();
        slots.plug(device, counters)?;
    }

    let Slots { mut pci, counters, .. } = slots;
    pci.assign_addresses()?;
    let pci = Arc::new(Mutex::new(pci));
    config_access::insert_ports(&buses.ports, &pci)?;
    config_access::insert_ecam(&buses.mmio, &pci)?;
    Ok(VirtioDevices { pci, counters: counters.into(), balloon, console })
}

/// The bus while it fills.
struct Slots {
    pci: PciBus,
    ram: GuestRam,
    vm: Arc<VmFd>,
    msi: KvmMsiRouter,
    notify: Arc<dyn NotifyRegistrar>,
    wires: BTreeMap<u32, SharedLine>,
    counters: Vec<(String, Vec<Arc<QueueCounters>>)>,
}

impl Slots {
    /// Puts a device into the next free slot.
    fn plug(
        &mut self,
        device: impl VirtioDevice + 'static,
        counters: Vec<Arc<QueueCounters>>,
    ) -> Result<(), AttachError> {
        let name = device.name();
        let slot = self.pci.free_device().ok_or(PciBusError::Full { name })?;
        let gsi = intx::gsi(slot, InterruptPin::A);
        let resources = Resources {
            memory: self.ram.clone(),
            msi: &self.msi,
            notify: Arc::clone(&self.notify),
            intx: wire(&mut self.wires, &self.vm, gsi),
            gsi,
        };
        let function = VirtioPci::new(Box::new(device), resources)?;
        let address = Address { device: slot, function: 0 };
        self.pci.add(address, Arc::new(Mutex::new(function)))?;
        self.counters.push((format!("00:{slot:02x}.0 {name}"), counters));
        Ok(())
    }
}

fn wire(wires: &mut BTreeMap<u32, SharedLine>, vm: &Arc<VmFd>, gsi: u32) -> IrqLine {
    wires.entry(gsi).or_insert_with(|| SharedLine::new(interrupt_line(vm, gsi))).input()
}
