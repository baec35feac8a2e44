//! The machines of virtual machine monitors: what each boots, and by which command.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

pub use isolab_vmm::backend::disk::{CacheMode, EngineKind};

use super::peers::Peer;

/// What every kernel is told.
pub(super) const CMDLINE: &str = "console=ttyS0 quiet panic=-1";
/// Added for a peer's machine without a PCI bus, so that none is looked for; ours tells its kernel
/// itself.
pub(super) const NO_PCI: &str = " pci=off";

/// A machine that a VMM can be asked for.
#[derive(Debug)]
pub struct Machine {
    /// The name of the peer whose it is; none: ours.
    pub peer: Option<&'static str>,
    /// As it stands in reports where the VMM's start is measured.
    pub name: &'static str,
    /// Whether it boots a bzImage only, and no vmlinux.
    pub needs_bzimage: bool,
    /// The exit code of the VMM when its guest reboots.
    pub reboot_code: i32,
    /// What the VMM is told. A configuration file may have to be written.
    pub(super) arguments: fn(&Boot) -> io::Result<Vec<OsString>>,
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
pub(super) const MAC: &str = "02:00:00:00:77:02";

/// A cache mode in QEMU's and our words.
pub(super) fn cache_word(cache: CacheMode) -> &'static str {
    match cache {
        CacheMode::Writeback => "writeback",
        CacheMode::Writethrough => "writethrough",
        CacheMode::None => "none",
    }
}

/// A VMM and the machine it is asked for.
#[derive(Clone, Debug)]
pub struct MachineSubject {
    /// As it stands in the report.
    pub name: &'static str,
    /// The machine that it starts.
    pub machine: &'static Machine,
    program: PathBuf,
}

impl MachineSubject {
    /// A machine of this project, whose program is `program`.
    pub fn own(name: &'static str, machine: &'static Machine, program: &Path) -> Self {
        Self { name, machine, program: program.to_owned() }
    }

    /// A peer's machine, if it can run here.
    ///
    /// # Errors
    /// What is missing.
    pub fn peer(
        name: &'static str,
        machine: &'static Machine,
        peer: Peer,
        bzimage: Option<&Path>,
    ) -> Result<Self, String> {
        if machine.needs_bzimage && bzimage.is_none() {
            return Err("it needs the kernel as a bzImage, and there is none beside it".into());
        }
        Ok(Self { name, machine, program: peer.program()? })
    }

    /// The command that boots, with the guest's console on standard input and output. It ends
    /// when the guest reboots.
    ///
    /// # Errors
    /// A configuration file cannot be written.
    pub fn command(&self, boot: &Boot) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args((self.machine.arguments)(boot)?);
        Ok(command)
    }
}

pub(super) fn mebibytes(boot: &Boot) -> u64 {
    boot.memory >> 20
}

/// Words and paths as arguments.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { vec![$(std::ffi::OsString::from($argument)),*] };
}
pub(super) use arguments;

/// A path as part of an option: a comma in it is doubled (qemu(1), "-drive"; ours alike).
pub(super) fn as_option(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::own;
    use super::super::peers::{self, firecracker, qemu};
    use super::*;

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

    fn words(machine: &'static Machine, boot: &Boot) -> String {
        let subject = MachineSubject::own("", machine, Path::new("/bin/vmm"));
        let command = subject.command(boot).unwrap();
        command.get_args().map(|word| word.to_string_lossy() + "\n").collect()
    }

    #[test]
    fn every_vmm_gets_the_same_machine() {
        let dir = tempfile::tempdir().unwrap();
        let theirs = peers::all().flat_map(|peer| peer.machines().iter().copied());
        for machine in [&own::VIRTIO, &own::EMULATED].into_iter().chain(theirs) {
            let mut words = words(machine, &boot(dir.path()));
            if machine.name == firecracker::MACHINE.name {
                words += &fs::read_to_string(dir.path().join("firecracker.json")).unwrap();
            }
            let kernel = if machine.needs_bzimage { "/k/bzImage" } else { "/k/vmlinux" };
            for part in [kernel, "/i.cpio", "128", "3", CMDLINE] {
                assert!(words.contains(part), "{machine:?} lacks {part}: {words}");
            }
        }
    }

    #[test]
    fn every_machine_gets_the_same_back_end() {
        let dir = tempfile::tempdir().unwrap();
        for machine in [&own::VIRTIO, &own::EMULATED, &qemu::MICROVM, &qemu::Q35, &qemu::PC] {
            let mut boot = boot(dir.path());
            boot.device = Some(Device::Disk(Disk {
                path: "/d,isk".into(),
                cache: CacheMode::None,
                engine: EngineKind::IoUring,
            }));
            let disk = words(machine, &boot);
            for part in ["/d,,isk,", "cache=none", "io_uring"] {
                assert!(disk.contains(part), "{machine:?} lacks {part}: {disk}");
            }
            assert!(!disk.contains(NO_PCI) || machine.name == qemu::MICROVM.name, "{disk}");
            boot.device = Some(Device::Net(Net { tap: "tap7".into(), vhost: false }));
            let net = words(machine, &boot);
            for part in ["tap7", MAC] {
                assert!(net.contains(part), "{machine:?} lacks {part}: {net}");
            }
            assert!(!net.contains("vhost=on"), "{net}");
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let kvmtool: Peer = "kvmtool".parse().unwrap();
        let machine = kvmtool.lightest().unwrap();
        let no_bzimage = MachineSubject::peer("kvmtool", machine, kvmtool, None).unwrap_err();
        assert!(no_bzimage.contains("bzImage"), "{no_bzimage}");
    }
}
