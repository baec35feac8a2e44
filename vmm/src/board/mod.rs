//! A board: the devices that a machine has beside RAM, CPUs and chipset, and how its kernel learns
//! of them. There are two: [`paravirtual`], with virtio devices, and [`pc`], with those of a
//! physical PC.

pub mod paravirtual;
pub mod pc;

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use kvm_ioctls::VmFd;

use self::paravirtual::Paravirtual;
use self::pc::Pc;
use crate::backend::disk::{DiskCounters, DiskError};
use crate::backend::output::Output;
use crate::backend::share::ShareError;
use crate::backend::tap::TapError;
use crate::boot::hardware::Hardware;
use crate::bus::{BusError, Buses};
use crate::chipset::acpi_pm::PmModel;
use crate::control::protocol::DeviceSet;
use crate::emulated::assemble::AssembleError;
use crate::emulated::firmware::FirmwareError;
use crate::emulated::firmware::shadow::ShadowError;
use crate::memory::GuestRam;
use crate::virtio::balloon::BalloonHandle;
use crate::virtio::console::ConsoleHandle;
use crate::virtio::net::NetError;
use crate::virtio::slots::SlotError;
use crate::virtio::stats::DeviceCounters;
use crate::virtio::vsock::VsockError;

/// Which board, and what is on it. Neither can be asked for what only the other has.
pub enum BoardConfig {
    /// See [`Paravirtual`].
    Paravirtual(paravirtual::Options),
    /// See [`Pc`].
    Pc(pc::Options),
}

impl Default for BoardConfig {
    /// Paravirtual, without any device.
    fn default() -> Self {
        Self::Paravirtual(paravirtual::Options::default())
    }
}

/// What the rest of the machine tells its board.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings {
    /// Guest RAM in bytes.
    pub memory: u64,
    /// How many vCPUs the tables name, at least 1.
    pub cpus: u32,
    /// Which of COM1 to COM4 there are.
    pub serial: [bool; 4],
}

/// A board with its devices, whose back ends are open, and which no guest can find yet.
pub trait Board {
    /// Its name on the control socket.
    fn device_set(&self) -> DeviceSet;

    /// Whether CPUID tells the guest that it runs on KVM.
    fn shows_kvm(&self) -> bool;

    /// The chipset's power management.
    fn power_management(&self) -> PmModel;

    /// What its kernel is told. `None` if firmware finds out by itself, and starts the kernel.
    fn hardware(&self) -> Option<Hardware>;

    /// Guest-physical addresses of RAM that the board maps itself.
    fn own_memory(&self) -> Option<Range<u64>> {
        None
    }

    /// Plugs the devices in.
    ///
    /// # Errors
    /// [`BoardError`].
    fn plug_in(
        self: Box<Self>,
        vm: &Arc<VmFd>,
        ram: &GuestRam,
        buses: &Buses,
    ) -> Result<Devices, BoardError>;
}

/// Opens what `config` asks for.
///
/// # Errors
/// [`BoardError`].
pub fn open(config: BoardConfig, around: Surroundings) -> Result<Box<dyn Board>, BoardError> {
    Ok(match config {
        BoardConfig::Paravirtual(options) => Box::new(Paravirtual::open(options, around)?),
        BoardConfig::Pc(options) => Box::new(Pc::open(options, around)?),
    })
}

/// The devices of a machine, and how the rest of it reaches them.
#[derive(Default)]
pub struct Devices {
    /// The devices themselves, if there are any.
    pub plugged: Option<Arc<dyn Plugged>>,
    /// How they are reached.
    pub reach: Reach,
}

/// Devices where a guest finds them. Dropping them stops them too.
pub trait Plugged: Send + Sync {
    /// Stops all devices and lets go of what they hold on the host; requests under way are
    /// completed first. For a guest that no longer runs.
    fn shut_down(&self);
}

/// How the operator reaches devices.
#[derive(Clone, Default)]
pub struct Reach {
    /// What the operator should know of the back ends: fallbacks, and what is lost.
    pub notes: Vec<String>,
    /// What each queue of each device did.
    pub counters: DeviceCounters,
    /// What went to and from each disk.
    pub disks: Vec<Arc<DiskCounters>>,
    /// Asks the guest for memory.
    pub balloon: Option<BalloonHandle>,
    /// Tells the guest of the terminal's size.
    pub console: Option<ConsoleHandle>,
    /// What the console prints waits here for the host.
    pub output: Option<Output>,
}

/// A board that the machine cannot have.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// A disk or ISO image cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A virtio network cannot be used.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A tap cannot be used.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// The host's socket cannot be made.
    #[error(transparent)]
    Vsock(#[from] VsockError),
    /// A folder cannot be shared.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// There is no slot for a device.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// A PC has room for four.
    #[error("{drives} disks and CD-ROMs: emulated IDE has room for {}", pc::MAX_DRIVES)]
    TooManyDrives {
        /// Disks and CD-ROMs that were asked for.
        drives: usize,
    },
    /// What only a virtio network has.
    #[error("net: {0} needs a virtio device; the emulated controller has one queue in user space")]
    NetOption(&'static str),
    /// What only a virtio disk has.
    #[error("disk `{}`: {option} needs a virtio device", path.display())]
    DiskOption {
        /// The disk's image, as it was named.
        path: PathBuf,
        /// What was asked for.
        option: &'static str,
    },
    /// The firmware cannot be used.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The firmware cannot be put in place.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// A PC's device cannot be attached.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// An address is taken already.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The host refused something.
    #[error("cannot make the device {device}")]
    Host {
        /// The device's name, as statistics have it.
        device: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

impl BoardError {
    /// For `map_err`: names the device.
    fn host(device: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { device, source }
    }
}
