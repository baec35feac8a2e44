//! A physical PC's board: PIIX chipset, IDE and e1000, and no hint of a hypervisor. A kernel is
//! started on it directly, or firmware that finds one.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;

use super::{Board, BoardError, Devices, Plugged, Reach, Surroundings};
use crate::backend::disk::{DiskCounters, DiskImage, DiskOptions};
use crate::backend::net::{MacAddress, NetOptions, TapSource};
use crate::backend::output::Output;
use crate::backend::poll_limit::PollLimit;
use crate::backend::tap::Tap;
use crate::boot::acpi::BoardTables;
use crate::boot::hardware::Hardware;
use crate::bus::Buses;
use crate::chipset::acpi_pm::PmModel;
use crate::control::protocol::DeviceSet;
use crate::emulated::acpi::{LEVEL_INTERRUPTS, pci_host_bridge};
use crate::emulated::assemble::{self, EmulatedConfig, EmulatedDevices, Nic, Start};
use crate::emulated::firmware;
use crate::emulated::firmware::debug_port::{self, DebugPort};
use crate::emulated::firmware::shadow::{self, Shadow};
use crate::emulated::ide::{DriveImage, Media};
use crate::kvm::interrupt_line;
use crate::memory::GuestRam;
use crate::rate_limit::RateLimit;

/// Two channels with two drives each.
pub(super) const MAX_DRIVES: usize = 4;
/// Channel and unit of each drive in turn. Two drives get a channel each, as the two of one
/// channel take turns.
const SPREAD: [(usize, usize); 2] = [(0, 0), (1, 0)];
const FILLED: [(usize, usize); MAX_DRIVES] = [(0, 0), (0, 1), (1, 0), (1, 1)];
/// Where the mailbox is, and the others around it.
const MAILBOX: (usize, usize) = (0, 1);
const AROUND_MAILBOX: [(usize, usize); MAX_DRIVES - 1] = [(0, 0), (1, 0), (1, 1)];

/// What is on the board.
#[derive(Default)]
pub struct Options {
    /// PC firmware to start instead of the machine's kernel, which then comes from a disk.
    pub firmware: Option<PathBuf>,
    /// Disks, in the guest's order.
    pub disks: Vec<DiskOptions>,
    /// ISO images in CD-ROM drives, behind the disks.
    pub cdroms: Vec<DiskOptions>,
    /// A further disk of the machine's owner, at a place where it is in no other's way: the second of a
    /// channel.
    pub mailbox: Option<DiskOptions>,
    /// An e1000 each, in this order on the bus.
    pub nets: Vec<NetOptions>,
}

/// The board, with images and taps open and no device made yet.
pub struct Pc {
    drives: Drives,
    nics: Vec<Nic>,
    /// The firmware's image, if that comes first.
    firmware: Option<Vec<u8>>,
    around: Surroundings,
}

impl Pc {
    /// Opens images, taps and firmware.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn open(options: Options, around: Surroundings) -> Result<Self, BoardError> {
        let drives = drives(&options)?;
        let nics = options.nets.iter().map(nic).collect::<Result<_, _>>()?;
        let firmware = options.firmware.as_deref().map(firmware::read_image).transpose()?;
        Ok(Self { drives, nics, firmware, around })
    }
}

impl Board for Pc {
    fn device_set(&self) -> DeviceSet {
        DeviceSet::Emulated
    }

    fn shows_kvm(&self) -> bool {
        false
    }

    fn power_management(&self) -> PmModel {
        PmModel::Piix4
    }

    fn hardware(&self) -> Option<Hardware> {
        let acpi = BoardTables {
            legacy: true,
            level_interrupts: &LEVEL_INTERRUPTS,
            definitions: pci_host_bridge(),
            tables: Vec::new(),
        };
        let hardware = Hardware { acpi, reserved: &[], linux_words: String::new() };
        self.firmware.is_none().then_some(hardware)
    }

    fn own_memory(&self) -> Option<Range<u64>> {
        self.firmware.as_ref().map(|_| shadow::RANGE)
    }

    fn plug_in(
        self: Box<Self>,
        vm: &Arc<VmFd>,
        ram: &GuestRam,
        buses: &Buses,
    ) -> Result<Devices, BoardError> {
        let Self { drives, nics, firmware, around } = *self;
        let Drives { places: drives, boot_order, notes, counters } = drives;
        let start = match &firmware {
            None => Start::Kernel,
            Some(image) => {
                let shadow = put_firmware(image, &boot_order, around, vm, ram, buses)?;
                Start::Firmware(Box::new(shadow))
            }
        };
        let devices = EmulatedConfig { drives, nics, start };
        let line = |number| interrupt_line(vm, number);
        let devices = assemble::build(ram, &buses.ports, &buses.mmio, line, devices)?;
        let reach = Reach { notes, disks: counters, ..Reach::default() };
        Ok(Devices { plugged: Some(Arc::new(devices)), reach })
    }
}

impl Plugged for EmulatedDevices {
    /// They have nothing of the host's that its end would not take.
    fn shut_down(&self) {}
}

/// Puts firmware and what it talks to in place.
fn put_firmware(
    image: &[u8],
    boot_order: &[String],
    around: Surroundings,
    vm: &Arc<VmFd>,
    ram: &GuestRam,
    buses: &Buses,
) -> Result<Shadow, BoardError> {
    let shadow = Shadow::new(Arc::clone(vm), ram.clone(), image)?;
    let writes = Arc::new(Mutex::new(shadow.writes()));
    let length = shadow::RANGE.end - shadow::RANGE.start;
    buses.mmio.insert("shadow-ram", shadow::RANGE.start, length, writes)?;
    let description = firmware::Description {
        memory: around.memory,
        cpus: around.cpus,
        serial_console: around.serial[0],
        boot_order,
    };
    firmware::insert_devices(&buses.ports, ram, &description)?;
    if std::env::var_os("ISOLAB_FIRMWARE_LOG").is_some() {
        let log = Output::new("firmware-log", Box::new(io::stderr()), true);
        let log = DebugPort(log.map_err(BoardError::host("firmware log"))?);
        buses.ports.insert("debug", debug_port::PORT, 1, Arc::new(Mutex::new(log)))?;
    }
    Ok(shadow)
}

/// The open images, and what firmware and the operator are told of them.
#[derive(Default)]
struct Drives {
    /// By channel and unit.
    places: [[Option<DriveImage>; 2]; 2],
    /// Their names to the firmware.
    boot_order: Vec<String>,
    /// What the operator should know.
    notes: Vec<String>,
    /// Of all but the mailbox, whose bytes are no disk's to the guest.
    counters: Vec<Arc<DiskCounters>>,
}

/// Opens the images, disks first, and names them for the firmware in the order of booting.
fn drives(options: &Options) -> Result<Drives, BoardError> {
    let count = options.disks.len() + options.cdroms.len();
    let places: &[(usize, usize)] = match &options.mailbox {
        Some(_) => &AROUND_MAILBOX,
        None if count <= SPREAD.len() => &SPREAD,
        None => &FILLED,
    };
    if count > places.len() {
        let mailbox = usize::from(options.mailbox.is_some());
        return Err(BoardError::TooManyDrives { drives: count + mailbox });
    }
    let disks = options.disks.iter().map(|options| (options, false));
    let cdroms = options.cdroms.iter().map(|options| (options, true));
    let mut drives = Drives::default();
    for ((options, is_cdrom), &(channel, unit)) in disks.chain(cdroms).zip(places) {
        let (drive, image) = open(options, is_cdrom)?;
        drives.places[channel][unit] = Some(drive);
        drives.notes.extend(image.notes());
        drives.counters.push(image.counters());
        drives.boot_order.push(format!("/pci@i0cf8/ide@1,1/drive@{channel}/disk@{unit}"));
    }
    if let Some(options) = &options.mailbox {
        let (channel, unit) = MAILBOX;
        drives.places[channel][unit] = Some(open(options, false)?.0);
    }
    Ok(drives)
}

fn open(options: &DiskOptions, is_cdrom: bool) -> Result<(DriveImage, Arc<DiskImage>), BoardError> {
    let refused = |option| BoardError::DiskOption { path: options.path.clone(), option };
    if options.rate != RateLimit::default() {
        return Err(refused("a rate limit"));
    }
    if options.poll != PollLimit::default() {
        return Err(refused("poll="));
    }
    let read_only = options.read_only || is_cdrom;
    let image = DiskImage::open(&DiskOptions { read_only, ..options.clone() })?;
    let media = if is_cdrom { Media::CdRom } else { Media::HardDisk { read_only } };
    // IDE has one command in flight per channel.
    let engine = image.engine(1).map_err(BoardError::host("ide"))?;
    let (bytes, serial) = (image.size(), image.serial().to_owned());
    Ok((DriveImage { media, bytes, serial, engine }, image))
}

fn nic(options: &NetOptions) -> Result<Nic, BoardError> {
    if options.vhost == Some(true) {
        return Err(BoardError::NetOption("vhost"));
    }
    if options.queue_pairs.is_some_and(|pairs| pairs != 1) {
        return Err(BoardError::NetOption("more than one queue pair"));
    }
    if options.rate != RateLimit::default() {
        return Err(BoardError::NetOption("a rate limit"));
    }
    if options.poll.is_some() {
        return Err(BoardError::NetOption("poll="));
    }
    let MacAddress(mac) = options.mac.unwrap_or_else(MacAddress::random);
    // Its drivers leave checksums and segments to a tap behind it, and a stream has neither.
    if let TapSource::Stream(_) = options.tap {
        return Err(BoardError::NetOption("a stream of frames"));
    }
    let tap = Tap::open(&options.tap, 1)?;
    let no_queue = || BoardError::host("e1000")(io::ErrorKind::NotFound.into());
    let receive = tap.into_queues().pop().ok_or_else(no_queue)?;
    let transmit = receive.try_clone().map_err(BoardError::host("e1000"))?;
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
        let mut board = Options::default();
        board.disks.push(options(&folder, "a"));
        board.cdroms.push(options(&folder, "b"));
        let Drives { places, boot_order, .. } = drives(&board).unwrap();
        assert!(places[0][0].is_some() && places[1][0].is_some() && places[0][1].is_none());
        assert_eq!(places[1][0].as_ref().map(|d| d.media), Some(Media::CdRom));
        assert_eq!(boot_order[1], "/pci@i0cf8/ide@1,1/drive@1/disk@0");
        drop(places);
        board.mailbox = Some(options(&folder, "m"));
        let Drives { places, boot_order, .. } = drives(&board).unwrap();
        assert!(places[0][1].is_some() && places[1][1].is_none());
        assert_eq!(boot_order.len(), 2, "nobody boots from it");
        drop(places);
        board.disks.push(options(&folder, "c"));
        let Drives { places, .. } = drives(&board).unwrap();
        assert!(places.iter().flatten().all(Option::is_some));
        assert_eq!(places[0][1].as_ref().map(|drive| drive.serial.as_str()), Some("m"));
        drop(places);
        board.disks.push(options(&folder, "x"));
        assert!(matches!(drives(&board), Err(BoardError::TooManyDrives { drives: 5 })));
        board.disks.pop();
        board.mailbox = None;
        let Drives { places, .. } = drives(&board).unwrap();
        assert!(places[0][1].is_some() && places[1][1].is_none());
        drop(places);
        board.disks.extend([options(&folder, "d"), options(&folder, "e")]);
        assert!(matches!(drives(&board), Err(BoardError::TooManyDrives { drives: 5 })));
    }

    #[test]
    fn options_of_virtio_devices_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut limited = options(&folder, "a");
        limited.rate.operations_per_second = std::num::NonZeroU64::new(1);
        let refused = |options: &DiskOptions| match open(options, false) {
            Err(BoardError::DiskOption { option, .. }) => option,
            _ => panic!("taken"),
        };
        assert_eq!(refused(&limited), "a rate limit");
        let poll = PollLimit::from_micros(1);
        assert_eq!(refused(&DiskOptions { poll, ..options(&folder, "b") }), "poll=");
        let polled = NetOptions { poll: Some(poll), ..NetOptions::default() };
        assert!(matches!(nic(&polled), Err(BoardError::NetOption("poll="))));
        let limited = NetOptions { rate: limited.rate, ..NetOptions::default() };
        assert!(matches!(nic(&limited), Err(BoardError::NetOption("a rate limit"))));
        let vhost = NetOptions { vhost: Some(true), ..NetOptions::default() };
        assert!(matches!(nic(&vhost), Err(BoardError::NetOption("vhost"))));
        let queues = NetOptions { queue_pairs: Some(2), ..NetOptions::default() };
        assert!(matches!(nic(&queues), Err(BoardError::NetOption(_))));
    }
}
