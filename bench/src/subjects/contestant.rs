//! A machine and the program that starts it, ours or a peer's.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::{Boot, Machine};
use super::peers::Peer;

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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::subjects::machine::{
        CMDLINE, CacheMode, Device, Disk, EngineKind, MAC, NO_PCI, Net,
    };
    use crate::subjects::own;
    use crate::subjects::peers::{self, firecracker, qemu};

    fn boot(scratch: &Path) -> Boot {
        Boot {
            kernel: "/k/vmlinux".into(),
            bzimage: Some("/k/bzImage".into()),
            initrd: "/i.cpio".into(),
            memory: 128 << 20,
            cpus: 3,
            scratch: scratch.to_owned(),
            device: None,
            poll: None,
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
