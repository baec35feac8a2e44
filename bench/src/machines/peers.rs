//! How each VMM is told to run the same machine. Each gets what its own documentation recommends
//! for the quickest start of a Linux kernel: no firmware and no device but the serial console.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use serde_json::json;

/// The name of the bare machine in reports.
pub const OWN: &str = "vmm";

/// What all kernels are told. None of these machines has a PCI device.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 pci=off";

/// A VMM to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// QEMU's microvm machine.
    Qemu,
    /// Firecracker.
    Firecracker,
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// kvmtool, also known as lkvm.
    Kvmtool,
}

impl Peer {
    /// All of them.
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

    /// Its name in reports.
    fn subject(self) -> &'static str {
        match self {
            Peer::Qemu => "qemu-microvm",
            other => other.name(),
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

/// What every VMM boots.
pub struct Boot {
    pub kernel: PathBuf,
    pub bzimage: Option<PathBuf>,
    pub initrd: PathBuf,
    pub memory: u64,
    pub cpus: u32,
    /// For configuration files.
    pub scratch: PathBuf,
}

/// A VMM that is measured.
pub struct Subject {
    pub name: &'static str,
    program: PathBuf,
    /// `None`: our own.
    peer: Option<Peer>,
}

impl Subject {
    /// The bare machine of this project.
    pub fn own(program: &Path) -> Self {
        Self { name: OWN, program: program.to_owned(), peer: None }
    }

    /// A peer, if it can run here.
    ///
    /// # Errors
    /// What is missing.
    pub fn peer(peer: Peer, bzimage: Option<&Path>) -> Result<Self, String> {
        if peer == Peer::Kvmtool && bzimage.is_none() {
            return Err("it needs the kernel as a bzImage, and there is none beside it".into());
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let program = find(&path, peer.programs());
        let program =
            program.ok_or_else(|| format!("no {} on PATH", peer.programs().join(" or ")))?;
        Ok(Self { name: peer.subject(), program, peer: Some(peer) })
    }

    /// The command that boots. It ends when the guest reboots.
    ///
    /// # Errors
    /// A configuration file cannot be written.
    pub fn command(&self, boot: &Boot) -> io::Result<Command> {
        let mut command = Command::new(&self.program);
        command.args(match self.peer {
            None => own(boot),
            Some(Peer::Qemu) => qemu(boot),
            Some(Peer::Firecracker) => firecracker(boot)?,
            Some(Peer::CloudHypervisor) => cloud_hypervisor(boot),
            Some(Peer::Kvmtool) => kvmtool(boot),
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
    ($($argument:expr),* $(,)?) => { vec![$(OsString::from($argument)),*] };
}

fn own(boot: &Boot) -> Vec<OsString> {
    arguments![
        "vm",
        "run",
        "--kernel",
        &boot.kernel,
        "--initrd",
        &boot.initrd,
        "--memory",
        format!("{}M", mebibytes(boot)),
        "--cpus",
        boot.cpus.to_string(),
        "--cmdline",
        format!("{CMDLINE} reboot=k"),
    ]
}

/// docs/system/i386/microvm.rst: direct kernel boot by qboot, none of the optional devices but
/// the serial port and the RTC (which a kernel with its driver otherwise awaits for 1.5 s), and a
/// triple fault as the way to reboot, as there is no i8042.
fn qemu(boot: &Boot) -> Vec<OsString> {
    arguments![
        "-M",
        "microvm,accel=kvm,x-option-roms=off,isa-serial=on,rtc=on,pit=off,pic=off,acpi=off",
        "-cpu",
        "host",
        "-smp",
        boot.cpus.to_string(),
        "-m",
        format!("{}M", mebibytes(boot)),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
        "-kernel",
        &boot.kernel,
        "-initrd",
        &boot.initrd,
        "-append",
        format!("{CMDLINE} reboot=t"),
    ]
}

/// docs/getting-started.md, without the API server. Its ACPI tables promise no legacy interrupts,
/// so that a kernel without SERIAL_8250_PNP gives its UART none, and init's line would be lost;
/// with the MP table that it has as well there is an interrupt, and nothing slower.
fn firecracker(boot: &Boot) -> io::Result<Vec<OsString>> {
    let config = json!({
        "boot-source": {
            "kernel_image_path": boot.kernel,
            "initrd_path": boot.initrd,
            "boot_args": format!("{CMDLINE} reboot=k acpi=off"),
        },
        "drives": [],
        "machine-config": { "vcpu_count": boot.cpus, "mem_size_mib": mebibytes(boot) },
    });
    let path = boot.scratch.join("firecracker.json");
    fs::write(&path, config.to_string())?;
    Ok(arguments!["--no-api", "--config-file", path])
}

fn cloud_hypervisor(boot: &Boot) -> Vec<OsString> {
    arguments![
        "--kernel",
        &boot.kernel,
        "--initramfs",
        &boot.initrd,
        "--memory",
        format!("size={}M", mebibytes(boot)),
        "--cpus",
        format!("boot={}", boot.cpus),
        "--serial",
        "tty",
        "--console",
        "off",
        "--cmdline",
        format!("{CMDLINE} reboot=k"),
    ]
}

fn kvmtool(boot: &Boot) -> Vec<OsString> {
    // It takes no vmlinux; `Subject::peer` has seen to there being a bzImage.
    let kernel = boot.bzimage.as_ref().unwrap_or(&boot.kernel);
    arguments![
        "run",
        "--kernel",
        kernel,
        "--initrd",
        &boot.initrd,
        "--mem",
        mebibytes(boot).to_string(),
        "--cpus",
        boot.cpus.to_string(),
        "--console",
        "serial",
        "--network",
        "mode=none",
        "--params",
        format!("{CMDLINE} reboot=k"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn boot(scratch: &Path) -> Boot {
        Boot {
            kernel: "/k/vmlinux".into(),
            bzimage: Some("/k/bzImage".into()),
            initrd: "/i.cpio".into(),
            memory: 128 << 20,
            cpus: 3,
            scratch: scratch.to_owned(),
        }
    }

    #[test]
    fn names_are_read_back() {
        for peer in Peer::ALL {
            assert_eq!(peer.to_string().parse(), Ok(peer));
        }
        assert!("xen".parse::<Peer>().unwrap_err().contains("cloud-hypervisor"));
        let subjects: BTreeSet<_> = Peer::ALL.map(Peer::subject).into();
        assert_eq!(subjects.len(), Peer::ALL.len());
    }

    #[test]
    fn every_vmm_gets_the_same_machine() {
        let dir = tempfile::tempdir().unwrap();
        for peer in [None].into_iter().chain(Peer::ALL.map(Some)) {
            let subject = Subject { name: "", program: "/bin/vmm".into(), peer };
            let command = subject.command(&boot(dir.path())).unwrap();
            let mut words: String =
                command.get_args().map(|word| word.to_string_lossy() + "\n").collect();
            if peer == Some(Peer::Firecracker) {
                words += &fs::read_to_string(dir.path().join("firecracker.json")).unwrap();
            }
            let kernel = if peer == Some(Peer::Kvmtool) { "/k/bzImage" } else { "/k/vmlinux" };
            for part in [kernel, "/i.cpio", "128", "3", CMDLINE] {
                assert!(words.contains(part), "{peer:?} lacks {part}: {words}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_told() {
        let no_bzimage = Subject::peer(Peer::Kvmtool, None).err().unwrap();
        assert!(no_bzimage.contains("bzImage"), "{no_bzimage}");
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path().as_os_str(), &["a", "b"]), None);
        fs::write(dir.path().join("b"), "").unwrap();
        assert_eq!(find(dir.path().as_os_str(), &["a", "b"]), Some(dir.path().join("b")));
    }
}
