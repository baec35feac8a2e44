//! From the operator's words to the virtio devices of a machine.

use std::io;
use std::sync::Arc;

use kvm_ioctls::VmFd;

use super::balloon::{Balloon, BalloonHandle};
use super::block::Block;
use super::console::{Console, ConsoleHandle};
use super::net::{NetError, VirtioNet};
use super::rng::Rng;
use super::slots::{MmioSlots, PciSlots, Plugged, Slots};
use super::stats::DeviceCounters;
use super::transport::TransportError;
use super::vsock::{VirtioVsock, VsockError};
use crate::backend::disk::{DiskError, DiskImage};
use crate::backend::output::Output;
use crate::bus::BusError;
use crate::config::{MachineConfig, VirtioTransport};
use crate::memory::GuestRam;
use crate::pci::PciBusError;
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
    plugged: Plugged,
    /// What the operator should know of their back ends.
    pub notes: Vec<String>,
    /// What each queue of each device did.
    pub counters: DeviceCounters,
    /// Asks the guest for memory.
    pub balloon: Option<BalloonHandle>,
    /// Tells the guest of the terminal's size.
    pub console: Option<ConsoleHandle>,
    /// What the console prints waits here for the host.
    pub output: Option<Output>,
}

impl VirtioDevices {
    /// Stops all devices and lets go of what they hold on the host; requests under way are
    /// completed first. For a guest that no longer runs.
    pub fn shut_down(&self) {
        self.plugged.clear();
    }
}

impl Drop for VirtioDevices {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// How many devices `config` asks for; without any, the machine has no bus for its kernel to search.
pub fn count(config: &MachineConfig) -> usize {
    let single =
        [config.vsock.is_some(), config.console.is_some(), config.balloon.is_some(), config.rng];
    config.disks.len() + config.nets.len() + single.into_iter().filter(|wanted| *wanted).count()
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
    let mut slots: Box<dyn Slots> = match config.transport {
        VirtioTransport::Pci => Box::new(PciSlots::new(vm, ram, buses)?),
        VirtioTransport::Mmio => Box::new(MmioSlots::new(vm, ram, buses)),
    };
    let host = |device| move |source| AttachError::Host { device, source };

    let mut notes = Vec::new();
    for options in &config.disks {
        let image = DiskImage::open(options)?;
        notes.extend(image.notes());
        let queues = config.cpus.min(MAX_DISK_QUEUES) as u16;
        let device = Block::new(image, queues, options.rate).map_err(host("virtio-blk"))?;
        let counters = device.counters();
        slots.plug(Box::new(device), counters)?;
    }
    for options in &config.nets {
        let device = VirtioNet::open(options)?;
        let counters = device.counters();
        slots.plug(Box::new(device), counters)?;
    }
    if let Some(options) = &config.vsock {
        let device = VirtioVsock::open(options)?;
        let counters = device.counters();
        slots.plug(Box::new(device), counters)?;
    }
    if config.rng {
        let device = Rng::new(RateLimit::default()).map_err(host("virtio-rng"))?;
        let counters = device.counters();
        slots.plug(Box::new(device), counters)?;
    }
    let (mut console, mut output) = (None, None);
    if let Some(port) = config.console.take() {
        let sink = Output::new("hvc0", port.output, port.gather).map_err(host("virtio-console"))?;
        output = Some(sink.clone());
        let device = Console::new(sink, port.input).map_err(host("virtio-console"))?;
        console = Some(device.handle());
        let counters = device.counters();
        slots.plug(Box::new(device), counters)?;
    }
    let mut balloon = None;
    if let Some(options) = config.balloon {
        let device = Balloon::new(options).map_err(host("virtio-balloon"))?;
        balloon = Some(device.handle());
        let counters = device.counters();
        slots.plug(Box::new(device), counters)?;
    }

    let (plugged, counters) = slots.finish()?;
    Ok(VirtioDevices { plugged, notes, counters: counters.into(), balloon, console, output })
}
