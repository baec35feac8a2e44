//! How each VMM is told to run the same machine: an adapter for each.

mod cloud_hypervisor;
mod firecracker;
mod kvmtool;
mod own;
mod qemu;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

pub use isolab_vmm::backend::disk::{CacheMode, EngineKind};

/// What every kernel is told.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// Added for a peer's machine without a PCI bus, so that none is looked for; ours tells its kernel
/// itself.
const NO_PCI: &str = " pci=off";

/// A VMM to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// QEMU.
    Qemu,
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// kvmtool, also known as lkvm.
    Kvmtool,
}

impl Peer {
    /// All that there are, in the order of the tables.
    pub const ALL: [Peer; 4] =
        [Peer::Qemu, Peer::Firecracker, Peer::CloudHypervisor, Peer::Kvmtool];

    /// What the operator calls it.
    pub fn name(self) -> &'static str {
        match self {
            Peer::Qemu => "qemu",
            Peer::Firecracker => "firecracker",
            Peer::CloudHypervisor => "cloud-hypervisor",
            Peer::Kvmtool => "kvmtool",
        }
    }

    /// The machine of the VMM that starts the quickest.
    pub fn lightest(self) -> Machine {
        match self {
            Peer::Qemu => Machine::QemuMicrovm,
            Peer::Firecracker => Machine::Firecracker,
            Peer::CloudHypervisor => Machine::CloudHypervisor,
            Peer::Kvmtool => Machine::Kvmtool,
        }
    }

    /// Its executable, by any of these names.
    fn programs(self) -> &'static [&'static str] {
        match self {
            Peer::Qemu => &["qemu-system-x86_64"],
            Peer::Firecracker => &["firecracker"],
            Peer::CloudHypervisor => &["cloud-hypervisor"],
            Peer::Kvmtool => &["lkvm", "kvmtool"],
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Peer::ALL.into_iter().find(|peer| peer.name() == text);
        found.ok_or_else(|| {
            format!("unknown peer `{text}`; there are {}", Peer::ALL.map(Peer::name).join(", "))
        })
    }
}

/// A machine that a VMM can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Ours, `--devices virtio`: virtio over PCI.
    OwnVirtio,
    /// Ours, `--devices emulated`: PIIX IDE and e1000, and no hint of a hypervisor.
    OwnEmulated,
    /// QEMU's microvm: virtio over MMIO, no PCI.
    QemuMicrovm,
    /// QEMU's q35: virtio over PCI.
    QemuQ35,
    /// QEMU's pc (i440FX) with PIIX IDE and e1000, and no hint of KVM either.
    QemuPc,
    /// Firecracker, without devices.
    Firecracker,
    /// Cloud Hypervisor, without devices.
    CloudHypervisor,
    /// kvmtool, without devices.
    Kvmtool,
}

impl Machine {
    /// The VMM whose it is; `None`: ours.
    pub fn peer(self) -> Option<Peer> {
        match self {
            Machine::OwnVirtio | Machine::OwnEmulated => None,
            Machine::QemuMicrovm | Machine::QemuQ35 | Machine::QemuPc => Some(Peer::Qemu),
            Machine::Firecracker => Some(Peer::Firecracker),
            Machine::CloudHypervisor => Some(Peer::CloudHypervisor),
            Machine::Kvmtool => Some(Peer::Kvmtool),
        }
    }

    /// Whether its devices are virtio's.
    pub fn is_paravirtual(self) -> bool {
        !matches!(self, Machine::OwnEmulated | Machine::QemuPc)
    }
}

/// What every VMM boots.
pub struct Boot {
    /// An uncompressed vmlinux.
    pub kernel: PathBuf,
    /// The same as a bzImage.
    pub bzimage: Option<PathBuf>,
    /// The initramfs, an uncompressed cpio archive.
    pub initrd: PathBuf,
    /// Guest RAM in bytes.
    pub memory: u64,
    /// vCPUs of the machine.
    pub cpus: u32,
    /// A folder for configuration files.
    pub scratch: PathBuf,
    /// At most one; our machines and QEMU's only.
    pub device: Option<Device>,
}

/// A device, and what is behind it.
#[derive(Clone, Debug)]
pub enum Device {
    /// A disk with a raw file or block device behind it.
    Disk(Disk),
    /// A network card with a tap behind it.
    Net(Net),
}

/// A raw file or block device, and how the VMM is to use it.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The disk's image, raw, or a block device.
    pub path: PathBuf,
    /// QEMU's and our word: `none`, `writeback`, `writethrough`.
    pub cache: CacheMode,
    /// How requests reach the host's kernel.
    pub engine: EngineKind,
}

/// A tap of the host's, and what the VMM is to make of it.
#[derive(Clone, Debug)]
pub struct Net {
    /// The tap's name.
    pub tap: String,
    /// Whether the host's kernel moves the frames.
    pub vhost: bool,
}

/// The address of every guest's card.
const MAC: &str = "02:00:00:00:77:02";

/// A cache mode in QEMU's and our words.
fn cache_word(cache: CacheMode) -> &'static str {
    match cache {
        CacheMode::Writeback => "writeback",
        CacheMode::Writethrough => "writethrough",
        CacheMode::None => "none",
    }
}

/// A VMM and the machine it is asked for.
#[derive(Clone, Debug)]
pub struct Subject {
    /// As it stands in the report.
    pub name: &'static str,
    /// The machine that it starts.
    pub machine: Machine,
    program: PathBuf,
}

impl Subject {
    /// A machine of this project, whose program is `program`.
    pub fn own(name: &'static str, machine: Machine, program: &Path) -> Self {
        Self { name, machine, program: program.to_owned() }
    }

    /// A peer's machine, if it can run here.
    ///
    /// # Errors
    /// What is missing.
    pub fn peer(
        name: &'static str,
        machine: Machine,
        bzimage: Option<&Path>,
    ) -> Result<Self, String> {
        if machine == Machine::Kvmtool && bzimage.is_none() {
            return Err("it needs the kernel as a bzImage, and there is none beside it".into());
        }
        let programs = machine.peer().map_or(&[][..], Peer::programs);
        let found = find(&env::var_os("PATH").unwrap_or_default(), programs);
        let program = found.ok_or_else(|| format!("no {} on PATH", programs.join(" or ")))?;
        Ok(Self { name, machine, program })
    }

    /// The command that boots, with the guest's console on standard input and output. It ends
    /// when the guest reboots.
    ///
    /// # Errors
    /// A configuration file cannot be written.
    pub fn command(&self, boot: &Boot) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(match self.machine {
            Machine::OwnVirtio | Machine::OwnEmulated => own::arguments(self.machine, boot),
            Machine::QemuMicrovm | Machine::QemuQ35 | Machine::QemuPc => {
                qemu::arguments(self.machine, boot)
            }
            Machine::Firecracker => firecracker::arguments(boot)?,
            Machine::CloudHypervisor => cloud_hypervisor::arguments(boot),
            Machine::Kvmtool => kvmtool::arguments(boot),
        });
        Ok(command)
    }
}

fn find(path: &OsStr, programs: &[&str]) -> Option<PathBuf> {
    let candidates = env::split_paths(path)
        .flat_map(|folder| programs.iter().map(move |program| folder.join(program)));
    candidates.into_iter().find(|candidate| candidate.is_file())
}

fn mebibytes(boot: &Boot) -> u64 {
    boot.memory >> 20
}

/// Words and paths as arguments.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { vec![$(std::ffi::OsString::from($argument)),*] };
}
use arguments;

/// A path as part of an option: a comma in it is doubled (qemu(1), "-drive"; ours alike).
fn as_option(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    const MACHINES: [Machine; 8] = [
        Machine::OwnVirtio,
        Machine::OwnEmulated,
        Machine::QemuMicrovm,
        Machine::QemuQ35,
        Machine::QemuPc,
        Machine::Firecracker,
        Machine::CloudHypervisor,
        Machine::Kvmtool,
    ];

    fn boot(scratch: &Path) -> Boot {
        Boot {
            kernel: "/k/vmlinux".into(),
            bzimage: Some("/k/bzImage".into()),
            initrd: "/i.cpio".into(),
            memory: 128 << 20,
            cpus: 3,
            scratch: scratch.to_owned(),
            device: None,
        }
    }

    fn words(machine: Machine, boot: &Boot) -> String {
        let subject = Subject::own("", machine, Path::new("/bin/vmm"));
        let command = subject.command(boot).unwrap();
        command.get_args().map(|word| word.to_string_lossy() + "\n").collect()
    }

    #[test]
    fn names_are_read_back() {
        for peer in Peer::ALL {
            assert_eq!(peer.to_string().parse(), Ok(peer));
            assert_eq!(peer.lightest().peer(), Some(peer));
        }
        assert!("xen".parse::<Peer>().unwrap_err().contains("cloud-hypervisor"));
        let names: BTreeSet<_> = Peer::ALL.map(Peer::name).into();
        assert_eq!(names.len(), Peer::ALL.len());
    }

    #[test]
    fn every_vmm_gets_the_same_machine() {
        let dir = tempfile::tempdir().unwrap();
        for machine in MACHINES {
            let mut words = words(machine, &boot(dir.path()));
            if machine == Machine::Firecracker {
                words += &fs::read_to_string(dir.path().join("firecracker.json")).unwrap();
            }
            let kernel = if machine == Machine::Kvmtool { "/k/bzImage" } else { "/k/vmlinux" };
            for part in [kernel, "/i.cpio", "128", "3", CMDLINE] {
                assert!(words.contains(part), "{machine:?} lacks {part}: {words}");
            }
        }
    }

    #[test]
    fn every_machine_gets_the_same_back_end() {
        let dir = tempfile::tempdir().unwrap();
        let ours_and_qemus = &MACHINES[..5];
        for machine in ours_and_qemus {
            let mut boot = boot(dir.path());
            boot.device = Some(Device::Disk(Disk {
                path: "/d,isk".into(),
                cache: CacheMode::None,
                engine: EngineKind::IoUring,
            }));
            let disk = words(*machine, &boot);
            for part in ["/d,,isk,", "cache=none", "io_uring"] {
                assert!(disk.contains(part), "{machine:?} lacks {part}: {disk}");
            }
            assert!(!disk.contains(NO_PCI) || *machine == Machine::QemuMicrovm, "{disk}");
            boot.device = Some(Device::Net(Net { tap: "tap7".into(), vhost: false }));
            let net = words(*machine, &boot);
            for part in ["tap7", MAC] {
                assert!(net.contains(part), "{machine:?} lacks {part}: {net}");
            }
            assert!(!net.contains("vhost=on"), "{net}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let no_bzimage = Subject::peer("kvmtool", Machine::Kvmtool, None).unwrap_err();
        assert!(no_bzimage.contains("bzImage"), "{no_bzimage}");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path().as_os_str(), &["a", "b"]), None);
        fs::write(dir.path().join("b"), "").unwrap();
        assert_eq!(find(dir.path().as_os_str(), &["a", "b"]), Some(dir.path().join("b")));
    }
}
