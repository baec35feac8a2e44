//! The paravirtual board: virtio devices on a PCI bus or in MMIO pages, and KVM's own features.

use std::io;
use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

use super::{Board, BoardError, Devices, Plugged, Reach, Surroundings};
use crate::backend::disk::{DiskImage, DiskOptions};
use crate::backend::net::NetOptions;
use crate::backend::output::Output;
use crate::backend::serial_port::SerialPort;
use crate::backend::share::{Budget, ShareError, ShareOptions};
use crate::boot::acpi::BoardTables;
use crate::boot::hardware::Hardware;
use crate::bus::Buses;
use crate::chipset::acpi_pm::PmModel;
use crate::control::protocol::DeviceSet;
use crate::memory::GuestRam;
use crate::pci::{self, PciBus, config_access};
use crate::rate_limit::RateLimit;
use crate::virtio::VirtioDevice;
use crate::virtio::balloon::{Balloon, BalloonOptions};
use crate::virtio::block::Block;
use crate::virtio::console::Console;
use crate::virtio::fs::VirtioFs;
use crate::virtio::net::VirtioNet;
use crate::virtio::rng::Rng;
use crate::virtio::slots::{MmioSlots, Occupied, PciSlots, Slots};
use crate::virtio::stats::QueueCounters;
use crate::virtio::transport::acpi as transport_acpi;
use crate::virtio::vsock::{Peer, VirtioVsock, VsockOptions};

/// Queues of a disk and queue pairs of a network: one per vCPU, up to this.
const MAX_QUEUES: u32 = 16;

/// Lets RDRAND seed the random numbers at once, as most distributions' kernels do by themselves:
/// who made the CPU or the host deceitful need not bend this to read the guest's memory.
const TRUST_CPU: &str = "random.trust_cpu=on";
/// Spares the kernel a search of the bus for chipsets with known faults, 250 exits.
const PCI: &str = "pci=noearly";
/// For a machine without a bus: there is mechanism #1, but nothing is looked for by it. `pci=off`
/// would spare as much, but has the kernel print an error at 100 exits.
const NO_PCI: &str = "pci=conf1,noearly";

/// How virtio devices are found and spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// PCI, with an interrupt for each queue (virtio 1.2, 4.1).
    #[default]
    Pci,
    /// A page of registers and a shared interrupt (4.2), described by ACPI: less for the guest to
    /// search at its start.
    Mmio,
}

/// What is on the board.
#[derive(Default)]
pub struct Options {
    /// See [`Transport`].
    pub transport: Transport,
    /// Disks, in the guest's order.
    pub disks: Vec<DiskOptions>,
    /// A virtio network each, in this order on the bus.
    pub nets: Vec<NetOptions>,
    /// Folders of the host, each with a tag of its own.
    pub shares: Vec<ShareOptions>,
    /// Streams between programs of host and guest.
    pub vsock: Option<VsockOptions>,
    /// A stream to this process, over the same device.
    pub vsock_peer: Option<Peer>,
    /// Random numbers from the host.
    pub rng: bool,
    /// A console without a serial port: hvc0.
    pub console: Option<SerialPort>,
    /// Memory that the guest gives back.
    pub balloon: Option<BalloonOptions>,
}

/// The board, with its devices made and not yet plugged in.
pub struct Paravirtual {
    transport: Transport,
    devices: Vec<Unplugged>,
    reach: Reach,
    around: Surroundings,
}

/// A device, and what counts the work of each of its queues.
struct Unplugged(Box<dyn VirtioDevice>, Vec<Arc<QueueCounters>>);

impl Paravirtual {
    /// Makes every device that `options` ask for. Their order is that of the slots.
    ///
    /// # Errors
    /// [`BoardError`].
    pub fn open(options: Options, around: Surroundings) -> Result<Self, BoardError> {
        let Options { transport, disks, nets, shares, vsock, vsock_peer, rng, console, balloon } =
            options;
        let mut board = Self { transport, devices: Vec::new(), reach: Reach::default(), around };
        let queues = around.cpus.min(MAX_QUEUES) as u16;
        for options in &disks {
            let image = DiskImage::open(options)?;
            board.reach.notes.extend(image.notes());
            board.reach.disks.push(image.counters());
            let device = Block::new(image, queues, options.rate);
            let device = device.map_err(BoardError::host("virtio-blk"))?;
            let device = device.with_polling(options.poll.into());
            board.add(device.counters(), device);
        }
        for options in &nets {
            let device = VirtioNet::open(options, queues, around.cpus)?;
            board.add(device.counters(), device);
        }
        board.share(&shares)?;
        if vsock.is_some() || vsock_peer.is_some() {
            let device = VirtioVsock::open(vsock.as_ref(), vsock_peer)?;
            board.add(device.counters(), device);
        }
        if rng {
            let device = Rng::new(RateLimit::default()).map_err(BoardError::host("virtio-rng"))?;
            board.add(device.counters(), device);
        }
        if let Some(port) = console {
            let device = board.console(port).map_err(BoardError::host("virtio-console"))?;
            board.add(device.counters(), device);
        }
        if let Some(options) = balloon {
            let device = Balloon::new(options).map_err(BoardError::host("virtio-balloon"))?;
            board.reach.balloon = Some(device.handle());
            board.add(device.counters(), device);
        }
        Ok(board)
    }

    fn share(&mut self, shares: &[ShareOptions]) -> Result<(), ShareError> {
        if shares.is_empty() {
            return Ok(());
        }
        let budget = Budget::of_this_process();
        for (number, options) in shares.iter().enumerate() {
            if shares[..number].iter().any(|other| other.tag == options.tag) {
                return Err(ShareError::Twice { tag: options.tag.clone() });
            }
            let device = VirtioFs::open(options, budget.clone())?;
            self.add(device.counters(), device);
        }
        Ok(())
    }

    fn console(&mut self, port: SerialPort) -> io::Result<Console> {
        let output = Output::new("hvc0", port.output, port.gather)?;
        let device = Console::new(output.clone(), port.input)?;
        self.reach.output = Some(output);
        self.reach.console = Some(device.handle());
        Ok(device)
    }

    fn add(&mut self, counters: Vec<Arc<QueueCounters>>, device: impl VirtioDevice + 'static) {
        self.devices.push(Unplugged(Box::new(device), counters));
    }
}

impl Board for Paravirtual {
    fn device_set(&self) -> DeviceSet {
        DeviceSet::Virtio
    }

    fn shows_kvm(&self) -> bool {
        true
    }

    fn power_management(&self) -> PmModel {
        PmModel::Minimal
    }

    fn hardware(&self) -> Option<Hardware> {
        let bus = (!self.devices.is_empty()).then_some(self.transport);
        let (definitions, tables, reserved) = match bus {
            None => (Vec::new(), Vec::new(), &[][..]),
            Some(Transport::Mmio) => {
                (transport_acpi::mmio_devices(self.devices.len()), Vec::new(), &[][..])
            }
            // Linux trusts the MCFG table only where the memory map says the same.
            Some(Transport::Pci) => (
                pci::acpi::host_bridge(pci::ECAM_SEGMENT, pci::intx::gsi, None),
                vec![pci::acpi::mcfg()],
                &[(pci::ECAM_BASE, pci::ECAM_LENGTH)][..],
            ),
        };
        let acpi = BoardTables { legacy: false, level_interrupts: &[], definitions, tables };
        let serial_ports = self.around.serial.iter().rposition(|there| *there).map_or(0, |n| n + 1);
        let pci_words = if bus == Some(Transport::Pci) { PCI } else { NO_PCI };
        let linux_words = format!("{pci_words} {TRUST_CPU} 8250.nr_uarts={serial_ports}");
        Some(Hardware { acpi, reserved, linux_words })
    }

    fn plug_in(
        self: Box<Self>,
        vm: &Arc<VmFd>,
        ram: &GuestRam,
        buses: &Buses,
    ) -> Result<Devices, BoardError> {
        let Self { transport, devices, mut reach, .. } = *self;
        if devices.is_empty() || transport == Transport::Mmio {
            let empty = PciBus::new(&buses.ports, &buses.mmio);
            config_access::insert_ports(&buses.ports, &Arc::new(Mutex::new(empty)))?;
        }
        if devices.is_empty() {
            return Ok(Devices { plugged: None, reach });
        }
        let mut slots: Box<dyn Slots> = match transport {
            Transport::Pci => Box::new(PciSlots::new(vm, ram, buses)?),
            Transport::Mmio => Box::new(MmioSlots::new(vm, ram, buses)),
        };
        for Unplugged(device, counters) in devices {
            slots.plug(device, counters)?;
        }
        let (occupied, counters) = slots.finish()?;
        reach.counters = counters.into();
        Ok(Devices { plugged: Some(Arc::new(VirtioDevices(occupied))), reach })
    }
}

struct VirtioDevices(Occupied);

impl Plugged for VirtioDevices {
    fn shut_down(&self) {
        self.0.clear();
    }
}

impl Drop for VirtioDevices {
    fn drop(&mut self) {
        self.shut_down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AROUND: Surroundings =
        Surroundings { memory: 128 << 20, cpus: 1, serial: [true, false, false, false] };

    fn hardware(transport: Transport, rng: bool) -> Hardware {
        let options = Options { transport, rng, ..Options::default() };
        Paravirtual::open(options, AROUND).unwrap().hardware().unwrap()
    }

    #[test]
    fn a_kernel_is_told_of_the_bus_that_there_is() {
        let names = |hardware: &Hardware, name: &[u8]| {
            hardware.acpi.definitions.windows(name.len()).any(|window| window == name)
        };
        for transport in [Transport::Pci, Transport::Mmio] {
            let bare = hardware(transport, false);
            let words = "pci=conf1,noearly random.trust_cpu=on 8250.nr_uarts=1";
            assert_eq!(bare.linux_words, words, "{transport:?}");
            assert!(bare.acpi.definitions.is_empty() && bare.acpi.tables.is_empty());
        }
        let pci = hardware(Transport::Pci, true);
        assert!(names(&pci, b"PCI0") && !pci.linux_words.contains(NO_PCI));
        assert_eq!((pci.acpi.tables.len(), pci.reserved.len()), (1, 1));
        let mmio = hardware(Transport::Mmio, true);
        assert!(names(&mmio, b"LNRO0005") && mmio.linux_words.contains(NO_PCI));
        assert!(mmio.acpi.tables.is_empty() && mmio.reserved.is_empty());
    }

    #[test]
    fn shared_folders_have_tags_of_their_own() {
        let share = |tag| ShareOptions::new("/tmp", tag);
        let open = |shares| Paravirtual::open(Options { shares, ..Options::default() }, AROUND);
        assert_eq!(open(vec![share("a"), share("b")]).unwrap().devices.len(), 2);
        let error = open(vec![share("a"), share("a")]).err().unwrap();
        assert!(matches!(error, BoardError::Share(ShareError::Twice { .. })), "{error}");
        let error = open(vec![ShareOptions::new("/dev/null", "a")]).err().unwrap();
        assert!(matches!(error, BoardError::Share(ShareError::Open { .. })), "{error}");
    }

    #[test]
    fn each_device_that_is_asked_for_takes_a_slot() {
        let options = Options {
            rng: true,
            console: Some(SerialPort::output_only(io::sink())),
            balloon: Some(BalloonOptions {
                target: 0,
                deflate_on_oom: true,
                free_page_reporting: true,
            }),
            ..Options::default()
        };
        let board = Paravirtual::open(options, AROUND).unwrap();
        let names: Vec<_> =
            board.devices.iter().map(|Unplugged(device, _)| device.name()).collect();
        assert_eq!(names, ["virtio-rng", "virtio-console", "virtio-balloon"]);
        assert!(board.reach.balloon.is_some() && board.reach.output.is_some());
    }
}
