//! The levels `paravirt` and `fullvirt`: a virtual machine with our init as PID 1.

mod ask;
mod console_tail;
mod controller;
mod ending;
mod exec;
mod init;
mod instance;
mod line;
mod occurrence;
mod signals;
mod stats;
mod streams;

use std::os::fd::AsRawFd;
use std::sync::mpsc;

use isolab_guest::control::Session;
use isolab_guest::kernels::{self, GuestKernel};
use isolab_guest::{RootDisks, User, Workload, initramfs, modules};
use isolab_vmm::backend::disk::DiskOptions;
use isolab_vmm::backend::net::NetOptions;
use isolab_vmm::backend::serial_port::SerialPort;
use isolab_vmm::backend::share::ShareOptions;
use isolab_vmm::board::{BoardConfig, paravirtual, pc};
use isolab_vmm::boot::initrd::InitrdPart;
use isolab_vmm::boot::load::KernelConfig;
use isolab_vmm::config::MachineConfig;
use isolab_vmm::machine::Machine;
use oci_spec::runtime::{LinuxResources, Process, Spec};
use tracing::{debug_span, info_span};

use self::console_tail::ConsoleTail;
use self::init::Init;
use self::instance::{MachineInstance, State};
use self::line::{ControlLine, LineDevice, LineKind};
use self::occurrence::Occurrence;
use self::streams::Carried;
use crate::controller::Stdio;
use crate::error::IsolationError;
use crate::filesystem::guest::GuestMounts;
use crate::filesystem::{Filesystem, hosts};
use crate::instance::{Instance, InstanceSpec, Isolation};
use crate::level::Level;
use crate::name_files::Names;
use crate::network::Link;
use crate::scratch_disk;
use crate::security::guest as security;
use crate::tap_network::TapNetwork;
use crate::timeline::now;

/// Guest RAM where no memory limit is asked for, in bytes.
const DEFAULT_MEMORY: u64 = 512 << 20;

/// What a level's guest finds, and needs to find it.
struct Hardware {
    /// What carries the control channel.
    line: LineKind,
    /// What the disks are called, up to a letter.
    disks: &'static str,
    /// Drivers and file systems, for kernels that have them as modules. The file systems look for
    /// crc32c by its name, which is no dependency that depmod could see.
    modules: &'static [&'static str],
    /// The network controller's driver, likewise.
    network_driver: &'static str,
    /// What the kernel's command line has besides.
    kernel_words: &'static str,
}

/// What spares a guest that knows its machine some of its start
/// (Documentation/admin-guide/kernel-parameters.txt):
///
/// - `noapic`: some 900 accesses to the I/O APIC, each an exit. All that interrupts by wire is the
///   serial port, for which the 8259 will do; virtio has MSI-X.
/// - `percpu_alloc=page`: without it the kernel clears 2 MiB for each CPU's variables, and gives most
///   of it back.
const PARAVIRT_WORDS: &str = " noapic percpu_alloc=page";

const VIRTIO: Hardware = Hardware {
    line: LineKind::Vsock,
    disks: "/dev/vd",
    modules: &[
        "virtio_pci",
        "virtio_blk",
        "vmw_vsock_virtio_transport",
        "crc32c_generic",
        "erofs",
        "ext4",
        "overlay",
    ],
    network_driver: "virtio_net",
    kernel_words: PARAVIRT_WORDS,
};
/// Image, scratch, mailbox and a volume, whichever is which.
const PC_DISKS: [&str; 4] = ["/dev/sda", "/dev/sdb", "/dev/sdc", "/dev/sdd"];
/// Of a folder that the host shares.
const SHARE_DRIVER: &str = "virtiofs";
const EMULATED: Hardware = Hardware {
    line: LineKind::SerialAndDisk { names: &PC_DISKS },
    disks: "/dev/sd",
    modules: &["ata_piix", "sd_mod", "crc32c_generic", "erofs", "ext4", "overlay"],
    network_driver: "e1000",
    kernel_words: "",
};

impl Hardware {
    /// What its disks may be called, with so many volumes' among them.
    fn disk_names(&self, volumes: usize) -> Vec<String> {
        let own = match self.line {
            LineKind::Vsock => 2,
            LineKind::SerialAndDisk { .. } => 3,
        };
        ('a'..='z').take(own + volumes).map(|letter| format!("{}{letter}", self.disks)).collect()
    }
}

/// One of the two VM levels.
pub struct MachineLevel {
    level: Level,
}

impl MachineLevel {
    /// `Paravirt` or `Fullvirt`.
    pub fn new(level: Level) -> Self {
        Self { level }
    }

    fn hardware(&self) -> &'static Hardware {
        match self.level {
            Level::Fullvirt => &EMULATED,
            _ => &VIRTIO,
        }
    }
}

/// The variable that names the kernel of guests for which none is named otherwise.
pub const KERNEL_VARIABLE: &str = "ISOLAB_KERNEL";

/// What [`KERNEL_VARIABLE`] names, to choose by; none if it is empty.
pub fn kernel_of_environment() -> Option<String> {
    let kernel = std::env::var_os(KERNEL_VARIABLE).filter(|kernel| !kernel.is_empty())?;
    // No kernel has a name that is no UTF-8: what is left of one is refused by its reader.
    Some(kernel.to_string_lossy().into_owned())
}

/// The kernel that a VM level runs: the one chosen, else for `paravirt` the quickest there is, and
/// for `fullvirt`, which stands for an unmodified OS, a stock one.
///
/// # Errors
/// There is none.
pub fn guest_kernel(level: Level, choice: Option<&str>) -> Result<GuestKernel, IsolationError> {
    let preferred = match level {
        Level::Fullvirt => ["stock", "cloud", "slim"],
        _ => ["slim", "cloud", "stock"],
    };
    Ok(kernels::find(choice, &preferred)?)
}

/// The quickest kernel that runs at both VM levels with all that they have, to compare them by: Debian's cloud kernel has no
/// driver for `fullvirt`'s network card.
///
/// # Errors
/// There is none.
pub fn kernel_of_both_levels() -> Result<GuestKernel, IsolationError> {
    Ok(kernels::find(None, &["slim", "stock", "cloud"])?)
}

impl Isolation for MachineLevel {
    fn create(&self, mut spec: InstanceSpec) -> Result<Box<dyn Instance>, IsolationError> {
        spec.network.check(self.level)?;
        let stdio = std::mem::replace(&mut spec.stdio, Stdio::Inherit { stdin: false });
        let carried = Carried::new(stdio);
        let carried = carried.map_err(IsolationError::host("make the workload's streams"))?;
        let kernel = guest_kernel(self.level, spec.kernel.as_deref())?;
        let hardware = self.hardware();
        let init = Init::open()?;
        let taps = match &spec.network.link {
            Link::Taps(taps) => &taps[..],
            _ => &[],
        };
        let volumes = Filesystem::prepare_guest(self.level, &spec)?;
        let workload = workload(&spec, taps, &volumes, &carried, hardware)?;
        let mut drivers = hardware.modules.to_vec();
        drivers.extend(volumes.shares.first().map(|_| SHARE_DRIVER));
        drivers.extend(taps.first().map(|_| hardware.network_driver));
        let initramfs = debug_span!("initramfs", kernel = %kernel).in_scope(|| {
            let modules = modules::with_dependencies(&kernel, &drivers)?;
            initramfs::pack(&workload, &modules, &volumes.files, init.length)
                .map_err(IsolationError::host("pack the initramfs"))
        })?;
        let image = DiskOptions { read_only: true, ..DiskOptions::new(spec.image.root_disk()?) };
        let scratch_file = match spec.folder.serves_further_runs() {
            true => scratch_disk::lasting(spec.folder.path(), spec.folder.shared())?,
            false => scratch_disk::passing(spec.folder.shared())?,
        };
        let scratch = DiskOptions {
            id: Some("scratch".to_owned()),
            // Whatever its last guest may have written over its beginning.
            raw: true,
            ..DiskOptions::new(format!("/proc/self/fd/{}", scratch_file.as_raw_fd()))
        };
        let disks = volumes.disks.iter().map(|disk| DiskOptions {
            read_only: disk.read_only,
            raw: true,
            ..DiskOptions::new(&disk.path)
        });
        let disks = disks.collect();
        let shares = volumes.shares.iter().map(|share| ShareOptions {
            read_only: share.read_only,
            ..ShareOptions::new(&share.path, &share.tag)
        });
        let shares = shares.collect();
        let line = ControlLine::new(hardware.line);
        let ControlLine { ours, mailbox, port, device } =
            line.map_err(IsolationError::host("make the control channel"))?;
        let (occurrences, received) = mpsc::channel();
        let on_end = {
            let occurrences = occurrences.clone();
            // A failed send means that nobody waits any more.
            move |end| drop(occurrences.send(Occurrence::Reported(end)))
        };
        let Carried { streams, terminal, size, .. } = carried;
        let session = Session::new(ours, mailbox, streams, on_end)
            .map_err(IsolationError::host("prepare the control channel"))?;
        let console = ConsoleTail::default();
        let links: Vec<String> = taps.iter().filter_map(|tap| tap.link.clone()).collect();
        let nets = taps.iter().map(|tap| tap.tap.clone()).collect();
        let config = MachineConfig {
            kernel: KernelConfig {
                initrd: vec![
                    InitrdPart::Bytes(initramfs.before_init.into()),
                    InitrdPart::File(init.path()),
                    InitrdPart::Bytes(initramfs.after_init.into()),
                ],
                cmdline: format!(
                    "console=ttyS0 quiet reboot=k panic=-1 rdinit={}{}",
                    initramfs::INIT_PATH,
                    hardware.kernel_words
                ),
                ..KernelConfig::new(&kernel.image)
            },
            memory: memory(&spec.spec)?,
            cpus: cpus(&spec.spec),
            board: board([vec![image, scratch], disks].concat(), nets, shares, device),
            serial: [Some(SerialPort::output_only(console.clone())), port, None, None],
        };
        let machine = info_span!("machine")
            .in_scope(|| Machine::new(config))
            .map_err(|error| machine_error(error, &console))?;
        Ok(Box::new(MachineInstance {
            handle: machine.handle(),
            machine: State::Created(Box::new(machine)),
            session,
            terminal,
            has_terminal: size.is_some(),
            links,
            occurrences,
            received,
            early: None,
            console,
            created: now(),
            patience: spec.patience,
            _image: spec.image,
            _volumes: volumes.leases,
            folder: Some(spec.folder),
        }))
    }
}

fn machine_error(source: isolab_vmm::machine::Error, console: &ConsoleTail) -> IsolationError {
    IsolationError::Machine { source: Box::new(source), console: console.text() }
}

/// The board that a device is for, with disks, networks and shared folders, of which a PC has none.
fn board(
    disks: Vec<DiskOptions>,
    nets: Vec<NetOptions>,
    shares: Vec<ShareOptions>,
    device: LineDevice,
) -> BoardConfig {
    match device {
        LineDevice::Vsock(peer) => BoardConfig::Paravirtual(paravirtual::Options {
            disks,
            nets,
            shares,
            vsock_peer: Some(peer),
            ..Default::default()
        }),
        LineDevice::Mailbox(mailbox) => BoardConfig::Pc(pc::Options {
            disks,
            nets,
            mailbox: Some(mailbox),
            ..Default::default()
        }),
    }
}

/// What init is told of the workload and its machine.
fn workload(
    spec: &InstanceSpec,
    taps: &[TapNetwork],
    volumes: &GuestMounts,
    carried: &Carried,
    hardware: &Hardware,
) -> Result<Workload, IsolationError> {
    let process = spec.spec.process().as_ref().ok_or_else(|| IsolationError::Setting {
        field: "process",
        why: "the specification has none".to_owned(),
    })?;
    let hostname = spec.spec.hostname().clone().unwrap_or_default();
    let names = Names { hostname: Some(&hostname), network: &spec.network };
    let mut name_files = names.files();
    hosts::add(&mut name_files, &spec.filesystem.hosts);
    Ok(Workload {
        process: guest_process(process, carried),
        line: hardware.line.for_guest(),
        name_files,
        hostname,
        modules: Vec::new(),
        root: RootDisks {
            devices: hardware.disk_names(volumes.disks.len()),
            image: "erofs".to_owned(),
            scratch: "ext4".to_owned(),
            scratch_lasts: spec.folder.serves_further_runs(),
        },
        interfaces: taps.iter().map(|tap| tap.interface.clone()).collect(),
        mounts: volumes.mounts.clone(),
        read_only: spec.filesystem.read_only,
        kernel: security::kernel_settings(&spec.spec),
    })
}

/// The OCI process as init takes it.
fn guest_process(process: &Process, carried: &Carried) -> isolab_guest::Process {
    let user = process.user();
    isolab_guest::Process {
        args: process.args().clone().unwrap_or_default(),
        env: process.env().clone().unwrap_or_default(),
        cwd: process.cwd().display().to_string(),
        user: User {
            uid: user.uid(),
            gid: user.gid(),
            additional_gids: user.additional_gids().clone().unwrap_or_default(),
            umask: user.umask(),
        },
        rights: security::rights(process),
        terminal: carried.size,
        stdin: carried.stdin,
    }
}

fn resources(spec: &Spec) -> Option<&LinuxResources> {
    spec.linux().as_ref()?.resources().as_ref()
}

/// Guest RAM: the memory limit, rounded up to whole pages.
fn memory(spec: &Spec) -> Result<u64, IsolationError> {
    let limit = resources(spec).and_then(|r| r.memory().as_ref()).and_then(|m| m.limit());
    let limit = limit.unwrap_or(DEFAULT_MEMORY as i64);
    let limit = u64::try_from(limit).ok().and_then(|limit| limit.checked_next_multiple_of(4096));
    limit.ok_or_else(|| IsolationError::Setting {
        field: "memory",
        why: "a guest cannot have unlimited memory; give a size".to_owned(),
    })
}

/// vCPUs: the CPU limit, rounded up to whole processors.
fn cpus(spec: &Spec) -> u32 {
    let cpu = resources(spec).and_then(|resources| resources.cpu().as_ref());
    let limit = cpu.and_then(|cpu| Some((cpu.quota()?, cpu.period().filter(|p| *p > 0)?)));
    match limit {
        Some((quota, period)) if quota > 0 => {
            u32::try_from((quota as u64).div_ceil(period)).unwrap_or(u32::MAX)
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_container::{Limits, default_spec};

    fn spec(limits: Limits) -> Spec {
        default_spec("host", vec!["true".to_owned()], vec![], limits).unwrap()
    }

    #[test]
    fn limits_become_ram_and_processors() {
        let limited =
            Limits { memory_bytes: Some((64 << 20) + 1), cpus: Some(1.5), ..Limits::default() };
        assert_eq!(memory(&spec(limited)).unwrap(), (64 << 20) + 4096);
        assert_eq!(cpus(&spec(limited)), 2);
        assert_eq!(memory(&spec(Limits::default())).unwrap(), DEFAULT_MEMORY);
        assert_eq!(cpus(&spec(Limits::default())), 1);
    }
}
