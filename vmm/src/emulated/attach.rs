//! From the operator's words to the emulated devices of a machine.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;

use super::assemble::{self, EmulatedConfig, EmulatedDevices, EmulatedError, Nic, Start};
use super::firmware::debug_port::{self, DebugPort};
use super::firmware::shadow::{self, Shadow, ShadowError};
use super::firmware::{self, FirmwareError};
use super::ide::{DriveImage, Media};
use crate::backend::disk::DiskOptions;
use crate::backend::disk::{DiskError, DiskImage};
use crate::backend::net::{MacAddress, NetOptions};
use crate::backend::output::Output;
use crate::backend::tap::{Tap, TapError};
use crate::bus::BusError;
use crate::config::MachineConfig;
use crate::kvm::interrupt_line;
use crate::memory::GuestRam;
use crate::rate_limit::RateLimit;
use crate::vcpu::run::Buses;

/// Two channels with two drives each.
const MAX_DRIVES: usize = 4;
/// Channel and unit of each drive in turn. Two drives get a channel each, as the two of one
/// channel take turns.
const SPREAD: [(usize, usize); 2] = [(0, 0), (1, 0)];
const FILLED: [(usize, usize); MAX_DRIVES] = [(0, 0), (0, 1), (1, 0), (1, 1)];

/// Devices that the machine cannot have.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// IDE has room for four.
    #[error("{drives} disks and CD-ROMs: emulated IDE has room for {MAX_DRIVES}")]
    TooManyDrives {
        /// Asked for.
        drives: usize,
    },
    /// A disk or ISO image cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A network cannot be used.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// An option that only virtio devices have.
    #[error("net: {0} needs a virtio device; the emulated controller has one queue in user space")]
    NetOption(&'static str),
    /// Likewise.
    #[error("disk `{}`: bps= and iops= need a virtio device; emulated IDE has no rate limit", path.display())]
    RateLimit {
        /// The image.
        path: PathBuf,
    },
    /// The firmware cannot be used.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// The firmware cannot be put in place.
    #[error(transparent)]
    Shadow(#[from] ShadowError),
    /// A device cannot be attached.
    #[error(transparent)]
    Device(#[from] EmulatedError),
    /// An address is taken already.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The host refused something.
    #[error("cannot {action}")]
    Host {
        /// What was attempted.
        action: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// Attaches what `config` asks for to the buses of the machine; beside it, what the operator should
/// know. `serial_console` tells firmware to talk through COM1.
///
/// # Errors
/// [`AttachError`].
pub fn attach(
    config: &MachineConfig,
    serial_console: bool,
    vm: &Arc<VmFd>,
    ram: &GuestRam,
    buses: &Buses,
) -> Result<(EmulatedDevices, Vec<String>), AttachError> {
    let Drives { places: drives, boot_order, notes } = drives(config)?;
    let nics = config.nets.iter().map(nic).collect::<Result<_, _>>()?;
    let start = match &config.firmware {
        None => Start::Kernel,
        Some(path) => {
            let image = firmware::read_image(path)?;
            let shadow = Shadow::new(Arc::clone(vm), ram.clone(), &image)?;
            let writes = Arc::new(Mutex::new(shadow.writes()));
            let length = shadow::RANGE.end - shadow::RANGE.start;
            buses.mmio.insert("shadow-ram", shadow::RANGE.start, length, writes)?;
            let description = firmware::Description {
                memory: config.memory,
                cpus: config.cpus,
                serial_console,
                boot_order: &boot_order,
            };
            firmware::insert_devices(&buses.ports, ram, &description)?;
            if std::env::var_os("ISOLAB_FIRMWARE_LOG").is_some() {
                let log = Output::new("firmware-log", Box::new(io::stderr()), true);
                let log = DebugPort(log.map_err(|source| AttachError::Host {
                    action: "start the firmware log's thread",
                    source,
                })?);
                buses.ports.insert("debug", debug_port::PORT, 1, Arc::new(Mutex::new(log)))?;
            }
            Start::Firmware(Box::new(shadow))
        }
    };
    let devices = EmulatedConfig { drives, nics, start };
    let line = |number| interrupt_line(vm, number);
    Ok((assemble::build(ram, &buses.ports, &buses.mmio, line, devices)?, notes))
}

/// The open images.
#[derive(Default)]
struct Drives {
    /// By channel and unit.
    places: [[Option<DriveImage>; 2]; 2],
    /// Their names to the firmware.
    boot_order: Vec<String>,
    /// What the operator should know.
    notes: Vec<String>,
}

/// Opens the images, disks first, and names them for the firmware in the order of booting.
fn drives(config: &MachineConfig) -> Result<Drives, AttachError> {
    let count = config.disks.len() + config.cdroms.len();
    if count > MAX_DRIVES {
        return Err(AttachError::TooManyDrives { drives: count });
    }
    let places: &[(usize, usize)] = if count <= SPREAD.len() { &SPREAD } else { &FILLED };
    let disks = config.disks.iter().map(|options| (options, false));
    let cdroms = config.cdroms.iter().map(|options| (options, true));
    let mut drives = Drives::default();
    for ((options, is_cdrom), &(channel, unit)) in disks.chain(cdroms).zip(places) {
        let (image, notes) = open(options, is_cdrom)?;
        drives.places[channel][unit] = Some(image);
        drives.notes.extend(notes);
        drives.boot_order.push(format!("/pci@i0cf8/ide@1,1/drive@{channel}/disk@{unit}"));
    }
    Ok(drives)
}

fn open(options: &DiskOptions, is_cdrom: bool) -> Result<(DriveImage, Vec<String>), AttachError> {
    if options.rate != RateLimit::default() {
        return Err(AttachError::RateLimit { path: options.path.clone() });
    }
    let read_only = options.read_only || is_cdrom;
    let image = DiskImage::open(&DiskOptions { read_only, ..options.clone() })?;
    let media = if is_cdrom { Media::CdRom } else { Media::HardDisk { read_only } };
    // IDE has one command in flight per channel.
    let engine = image
        .engine(1)
        .map_err(|source| AttachError::Host { action: "start the disk engine", source })?;
    let (bytes, serial) = (image.size(), image.serial().to_owned());
    Ok((DriveImage { media, bytes, serial, engine }, image.notes()))
}

fn nic(options: &NetOptions) -> Result<Nic, AttachError> {
    if options.vhost {
        return Err(AttachError::NetOption("vhost"));
    }
    if options.queue_pairs != 1 {
        return Err(AttachError::NetOption("more than one queue pair"));
    }
    let tap = Tap::open(&options.tap, 1)?;
    let refused = |source| AttachError::Host { action: "share the tap between threads", source };
    let receive = tap.into_queues().pop().ok_or_else(|| refused(io::ErrorKind::NotFound.into()))?;
    let transmit = receive.try_clone().map_err(refused)?;
    let MacAddress(mac) = options.mac.unwrap_or_else(MacAddress::random);
    Ok(Nic { mac, transmit: Box::new(transmit), receive: Box::new(receive) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::disk::EngineKind;

    fn options(folder: &tempfile::TempDir, name: &str) -> DiskOptions {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![0; 4096]).unwrap();
        DiskOptions { engine: EngineKind::Sync, ..DiskOptions::new(path) }
    }

    #[test]
    fn two_drives_get_a_channel_each_and_more_fill_them_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = MachineConfig::new("");
        config.disks.push(options(&folder, "a"));
        config.cdroms.push(options(&folder, "b"));
        let Drives { places, boot_order, .. } = drives(&config).unwrap();
        assert!(places[0][0].is_some() && places[1][0].is_some() && places[0][1].is_none());
        assert_eq!(places[1][0].as_ref().map(|d| d.media), Some(Media::CdRom));
        assert_eq!(boot_order[1], "/pci@i0cf8/ide@1,1/drive@1/disk@0");
        drop(places);
        config.disks.push(options(&folder, "c"));
        let Drives { places, .. } = drives(&config).unwrap();
        assert!(places[0][1].is_some() && places[1][1].is_none());
        drop(places);
        config.disks.extend([options(&folder, "d"), options(&folder, "e")]);
        assert!(matches!(drives(&config), Err(AttachError::TooManyDrives { drives: 5 })));
    }

    #[test]
    fn options_of_virtio_devices_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut limited = options(&folder, "a");
        limited.rate.operations_per_second = std::num::NonZeroU64::new(1);
        assert!(matches!(open(&limited, false), Err(AttachError::RateLimit { .. })));
        let vhost = NetOptions { vhost: true, ..NetOptions::default() };
        assert!(matches!(nic(&vhost), Err(AttachError::NetOption("vhost"))));
        let queues = NetOptions { queue_pairs: 2, ..NetOptions::default() };
        assert!(matches!(nic(&queues), Err(AttachError::NetOption(_))));
    }
}
