//! What the host sees of a VMM whose guest runs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use procfs::process::{MemoryMap, Process};

/// Why the exits of a VM may be unknown.
pub const EXITS_NEED: &str = "they are counted in /sys/kernel/debug/kvm, which needs root and `mount -t debugfs none \
     /sys/kernel/debug`";

const KVM_DEBUG: &str = "/sys/kernel/debug/kvm";

/// The VMs that there are, each of which has a folder, named after the thread that made it and its
/// file descriptor: `4711-12`. The thread may be none of a process that still runs, so a VM is
/// told by what was there before it.
pub struct Before {
    folder: PathBuf,
    vms: BTreeSet<OsString>,
}

impl Before {
    /// Now, before a VMM is started.
    pub fn now() -> Self {
        Self::in_folder(Path::new(KVM_DEBUG))
    }

    fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), vms: vms(folder) }
    }

    /// The VM that has come since. `None` when KVM does not tell, or when it is not the only one
    /// that has come.
    pub fn machine(&self) -> Option<KvmStatistics> {
        let now = vms(&self.folder);
        let mut new = now.difference(&self.vms);
        let (vm, None) = (new.next()?, new.next()) else { return None };
        Some(KvmStatistics(self.folder.join(vm)))
    }
}

/// What KVM counts of a VM: the folder.
pub struct KvmStatistics(PathBuf);

/// How often a guest left for the host's kernel, or through it for the VMM
/// (Documentation/virt/kvm/api.rst has these counters in the binary statistics, too).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// All exits, whatever the reason.
    pub all: u64,
    /// Of these, for an access to an I/O port.
    pub port: u64,
    /// For an access to a device's memory that the VMM emulates.
    pub mmio: u64,
    /// To wait for an interrupt.
    pub halt: u64,
}

impl KvmStatistics {
    /// Interrupts that the guest was given until now; `None` when KVM does not tell, or the VM has gone.
    pub fn interrupts(&self) -> Option<u64> {
        self.counter("irq_injections")
    }

    fn counter(&self, name: &str) -> Option<u64> {
        fs::read_to_string(self.0.join(name)).ok()?.trim().parse().ok()
    }

    /// Until now; `None` when KVM does not tell, or the VM has gone.
    pub fn exits(&self) -> Option<Exits> {
        Some(Exits {
            all: self.counter("exits")?,
            port: self.counter("io_exits")?,
            mmio: self.counter("mmio_exits")?,
            halt: self.counter("halt_exits")?,
        })
    }
}

impl Exits {
    /// What came since `before`.
    pub fn since(self, before: Exits) -> Exits {
        Exits {
            all: self.all.saturating_sub(before.all),
            port: self.port.saturating_sub(before.port),
            mmio: self.mmio.saturating_sub(before.mmio),
            halt: self.halt.saturating_sub(before.halt),
        }
    }
}

fn vms(folder: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.path().join("exits").is_file());
    entries.map(|entry| entry.file_name()).collect()
}

/// Memory of a process, in bytes (proc_pid_smaps(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `Rss`: all that is in RAM, program text that others map as well included.
    pub resident: u64,
    /// `Private_Dirty`: what is in RAM for this process only, and could not be read from a file again.
    pub private_dirty: u64,
}

impl Memory {
    /// What process `pid` has outside the guest's RAM of `ram` bytes: the largest mapping, with all others of the same
    /// file, as crosvm maps a file in parts. `None` when even that is too small.
    ///
    /// # Errors
    /// The process has gone, or may not be looked into.
    pub fn beyond_ram(pid: u32, ram: u64) -> io::Result<Option<Self>> {
        let process = Process::new(pid.cast_signed()).map_err(io::Error::other)?;
        let maps = process.smaps().map_err(io::Error::other)?;
        Ok(beyond(maps.iter().map(Mapping::of).collect(), ram))
    }

    fn of(map: &MemoryMap) -> Self {
        let field = |name| map.extension.map.get(name).copied().unwrap_or(0);
        Self { resident: field("Rss"), private_dirty: field("Private_Dirty") }
    }
}

/// A mapping of a process.
#[derive(Clone, Copy, Debug)]
struct Mapping {
    /// In bytes.
    size: u64,
    /// Device and inode of what is mapped; none: it is anonymous.
    file: Option<((i32, i32), u64)>,
    memory: Memory,
}

impl Mapping {
    fn of(map: &MemoryMap) -> Self {
        Self {
            size: map.address.1 - map.address.0,
            file: (map.inode != 0).then_some((map.dev, map.inode)),
            memory: Memory::of(map),
        }
    }
}

fn beyond(mut mappings: Vec<Mapping>, ram: u64) -> Option<Memory> {
    mappings.sort_by_key(|mapping| mapping.size);
    let largest = mappings.pop()?;
    let is_rams = |it: &Mapping| it.file.is_some() && it.file == largest.file;
    let (rams, rest): (Vec<_>, Vec<_>) = mappings.into_iter().partition(is_rams);
    let size = largest.size + rams.iter().map(|it| it.size).sum::<u64>();
    let sum = |field: fn(&Memory) -> u64| rest.iter().map(|it| field(&it.memory)).sum();
    let rest = Memory { resident: sum(|m| m.resident), private_dirty: sum(|m| m.private_dirty) };
    (size >= ram).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mapping_is_the_guests() {
        let mapping = |size, inode: u64, resident, private_dirty| Mapping {
            size,
            file: (inode != 0).then_some(((0, 1), inode)),
            memory: Memory { resident, private_dirty },
        };
        let others = [mapping(4096, 0, 4096, 0), mapping(1 << 20, 7, 8192, 4096)];
        let rest = Some(Memory { resident: 12288, private_dirty: 4096 });
        let anonymous = [mapping(128 << 20, 0, 20 << 20, 20 << 20)];
        let in_parts = [mapping(127 << 20, 9, 20 << 20, 0), mapping(1 << 20, 9, 1 << 20, 0)];
        for of_guest in [&anonymous[..], &in_parts] {
            let all = [&others, of_guest].concat();
            assert_eq!(beyond(all.clone(), 128 << 20), rest);
            assert_eq!(beyond(all, 256 << 20), None);
        }
        assert_eq!(beyond(Vec::new(), 0), None);
    }

    #[test]
    fn a_process_has_resident_memory() {
        let beyond = Memory::beyond_ram(std::process::id(), 0).unwrap().unwrap();
        assert!(beyond.private_dirty > 4096, "{beyond:?}");
        assert!(beyond.resident > beyond.private_dirty, "{beyond:?}");
    }

    #[test]
    fn exits_are_those_of_the_only_new_machine() {
        let dir = tempfile::tempdir().unwrap();
        let add = |vm: &str, exits: &str| {
            fs::create_dir(dir.path().join(vm)).unwrap();
            for name in ["exits", "io_exits", "mmio_exits", "halt_exits"] {
                fs::write(dir.path().join(vm).join(name), exits).unwrap();
            }
        };
        add("47-9", "1\n");
        let before = Before::in_folder(dir.path());
        assert!(before.machine().is_none());
        add("4711-12", "1525\n");
        let exits = before.machine().and_then(|machine| machine.exits()).unwrap();
        assert_eq!((exits.all, exits.halt), (1525, 1525));
        assert_eq!(exits.since(Exits { all: 25, ..Exits::default() }).all, 1500);
        add("4712-12", "1526\n");
        assert!(before.machine().is_none());
        assert!(Before::in_folder(&dir.path().join("missing")).machine().is_none());
    }
}
