//! What the host sees of a VMM whose guest runs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use procfs::process::{MemoryMap, Process};

/// Why [`Before::exits`] may be unknown.
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

    /// Exits of the VM that has come since, to the host's kernel or to user space
    /// (Documentation/virt/kvm/api.rst has them in the binary statistics, too). `None` when KVM
    /// does not tell, or when it is not the only one that has come.
    pub fn exits(&self) -> Option<u64> {
        let now = vms(&self.folder);
        let mut new = now.difference(&self.vms);
        let (vm, None) = (new.next()?, new.next()) else { return None };
        fs::read_to_string(self.folder.join(vm).join("exits")).ok()?.trim().parse().ok()
    }
}

fn vms(folder: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let entries = entries.filter(|entry| entry.path().join("exits").is_file());
    entries.map(|entry| entry.file_name()).collect()
}

/// Bytes resident in process `pid` outside the mapping that is the guest's RAM of `ram` bytes:
/// the largest one. `None` when even that is too small.
///
/// # Errors
/// The process has gone, or may not be looked into.
pub fn memory_beyond(pid: u32, ram: u64) -> io::Result<Option<u64>> {
    let process = Process::new(pid.cast_signed()).map_err(io::Error::other)?;
    let maps = process.smaps().map_err(io::Error::other)?;
    Ok(beyond(maps.into_iter().map(|map| (size(&map), resident(&map))), ram))
}

fn size(map: &MemoryMap) -> u64 {
    map.address.1 - map.address.0
}

fn resident(map: &MemoryMap) -> u64 {
    map.extension.map.get("Rss").copied().unwrap_or(0)
}

/// From size and resident part of every mapping.
fn beyond(mappings: impl Iterator<Item = (u64, u64)>, ram: u64) -> Option<u64> {
    let mappings: Vec<_> = mappings.collect();
    let total: u64 = mappings.iter().map(|(_, resident)| resident).sum();
    let (size, of_guest) = mappings.into_iter().max_by_key(|(size, _)| *size)?;
    (size >= ram).then_some(total - of_guest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_mapping_is_the_guests() {
        let mappings = [(4096, 4096), (128 << 20, 20 << 20), (1 << 20, 8192)];
        assert_eq!(beyond(mappings.into_iter(), 128 << 20), Some(12288));
        assert_eq!(beyond(mappings.into_iter(), 256 << 20), None);
        assert_eq!(beyond([].into_iter(), 0), None);
    }

    #[test]
    fn a_process_has_resident_memory() {
        let beyond = memory_beyond(std::process::id(), 0).unwrap().unwrap();
        assert!(beyond > 4096, "{beyond}");
    }

    #[test]
    fn exits_are_those_of_the_only_new_machine() {
        let dir = tempfile::tempdir().unwrap();
        let add = |vm: &str, exits: &str| {
            fs::create_dir(dir.path().join(vm)).unwrap();
            fs::write(dir.path().join(vm).join("exits"), exits).unwrap();
        };
        add("47-9", "1\n");
        let before = Before::in_folder(dir.path());
        assert_eq!(before.exits(), None);
        add("4711-12", "1525\n");
        assert_eq!(before.exits(), Some(1525));
        add("4712-12", "1526\n");
        assert_eq!(before.exits(), None);
        assert_eq!(Before::in_folder(&dir.path().join("missing")).exits(), None);
    }
}
