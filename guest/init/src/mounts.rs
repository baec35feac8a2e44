//! What is mounted over the root file system: volumes, shared folders, single files, memory.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use isolab_protocol::{Line, Mount, MountSource, Workload};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::syncfs;

use crate::Failure;

/// How long a disk may take to appear.
const TIMEOUT: Duration = Duration::from_secs(30);
/// ext4's superblock, and its volume's UUID in it (ext4: "The Super Block", `s_uuid`).
const UUID_AT: u64 = 1024 + 0x68;
const NONE: Option<&str> = None;

/// Finds the volumes' disks by their UUIDs, and takes them from the names that the root's and the channel's disks may
/// have: nothing that a workload writes to its volume makes it another disk.
pub fn find_disks(workload: &mut Workload) -> Result<Vec<(usize, String)>, Failure> {
    let wanted: Vec<(usize, [u8; 16])> = workload
        .mounts
        .iter()
        .enumerate()
        .filter_map(|(at, mount)| match mount.source {
            MountSource::Disk(uuid) => Some((at, uuid)),
            _ => None,
        })
        .collect();
    let mut found: Vec<(usize, String)> = Vec::new();
    let deadline = Instant::now() + TIMEOUT;
    while found.len() < wanted.len() {
        for (at, uuid) in &wanted {
            let is_it = |name: &&String| read_uuid(name).is_ok_and(|found| found == *uuid);
            if found.iter().all(|(other, _)| other != at)
                && let Some(name) = workload.root.devices.iter().find(is_it)
            {
                found.push((*at, name.clone()));
            }
        }
        if found.len() < wanted.len() {
            if Instant::now() > deadline {
                let names = workload.root.devices.join(" or ");
                return Err(format!("no volume's file system is on {names}"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
    let is_other = |name: &String| found.iter().all(|(_, volume)| volume != name);
    workload.root.devices.retain(is_other);
    if let Line::Serial { mailboxes } = &mut workload.line {
        mailboxes.retain(is_other);
    }
    Ok(found)
}

fn read_uuid(device: &str) -> std::io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    File::open(device)?.read_exact_at(&mut uuid, UUID_AT)?;
    Ok(uuid)
}

/// Holds the files that came in the initramfs, which is below the root later on and has no paths: they are mounted by
/// what /proc calls these descriptors.
pub fn hold_files(workload: &mut Workload) -> Result<Vec<OwnedFd>, Failure> {
    let mut held = Vec::new();
    for one in &mut workload.mounts {
        if let MountSource::File(path) = &mut one.source {
            let file = open(path.as_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
                .map_err(|e| format!("open {path}: {e}"))?;
            *path = format!("/proc/self/fd/{}", file.as_raw_fd());
            held.push(file);
        }
    }
    Ok(held)
}

/// Mounts everything below the root, which is in place, and then makes the root itself read-only if it is to be.
pub fn mount_all(workload: &Workload, disks: &[(usize, String)]) -> Result<(), Failure> {
    for (at, one) in workload.mounts.iter().enumerate() {
        let disk = disks.iter().find(|(number, _)| *number == at).map(|(_, name)| name.as_str());
        make_target(one).map_err(|e| format!("create {}: {e}", one.target))?;
        mount_one(one, disk).map_err(|e| format!("mount a volume on {}: {e}", one.target))?;
    }
    if workload.read_only {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(NONE, "/", NONE, flags, NONE).map_err(|e| format!("make / read-only: {e}"))?;
    }
    Ok(())
}

/// Makes what is missing of a mount's target: a folder, or for a file an empty one.
fn make_target(one: &Mount) -> io::Result<()> {
    if !matches!(one.source, MountSource::File(_)) {
        return fs::create_dir_all(&one.target);
    }
    if let Some(parent) = Path::new(&one.target).parent() {
        fs::create_dir_all(parent)?;
    }
    File::options().create(true).append(true).open(&one.target).map(drop)
}

fn mount_one(one: &Mount, disk: Option<&str>) -> Result<(), Errno> {
    let (mut flags, data) = options(&one.options);
    flags.set(MsFlags::MS_RDONLY, one.read_only);
    let target = one.target.as_str();
    let data = Some(data.as_str()).filter(|data| !data.is_empty());
    match &one.source {
        MountSource::Share(tag) => mount(Some(tag.as_str()), target, Some("virtiofs"), flags, data),
        MountSource::Disk(_) => mount(disk, target, Some("ext4"), flags, data),
        MountSource::Memory => mount(Some("tmpfs"), target, Some("tmpfs"), flags, data),
        MountSource::File(path) => bind(path, target, flags),
        MountSource::Root => bind(target, target, flags),
    }
}

/// A bind mount, whose flags a second call gives it (mount(2)).
fn bind(source: &str, target: &str, flags: MsFlags) -> Result<(), Errno> {
    mount(Some(source), target, NONE, MsFlags::MS_BIND, NONE)?;
    mount(NONE, target, NONE, flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT, NONE)
}

/// Flags, and what is the file system's own. How mounts spread does not matter in a guest, which has one mount
/// namespace.
fn options(words: &[String]) -> (MsFlags, String) {
    let (mut flags, mut data) = (MsFlags::empty(), Vec::new());
    for word in words {
        match word.as_str() {
            "nosuid" => flags |= MsFlags::MS_NOSUID,
            "nodev" => flags |= MsFlags::MS_NODEV,
            "noexec" => flags |= MsFlags::MS_NOEXEC,
            "noatime" => flags |= MsFlags::MS_NOATIME,
            "relatime" => flags |= MsFlags::MS_RELATIME,
            own if own.contains('=') => data.push(own),
            _ => {}
        }
    }
    (flags, data.join(","))
}

/// Those that are there when the machine is gone, and can be written.
pub fn lasting(mounts: &[Mount]) -> impl Iterator<Item = &Mount> {
    let lasts = |one: &&Mount| {
        matches!(one.source, MountSource::Share(_) | MountSource::Disk(_)) && !one.read_only
    };
    mounts.iter().filter(lasts)
}

/// Puts on the volumes what was written to them: when the host hears of the end, it may end the machine at once.
pub fn sync(volumes: &[&Mount]) {
    for one in volumes {
        // A workload that has unmounted it has written it, and there is nobody to tell.
        if let Ok(folder) = File::open(&one.target) {
            let _ = syncfs(folder.as_fd());
        }
        let _ = umount2(one.target.as_str(), MntFlags::empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_flags_or_the_file_system_s_own() {
        let words = ["nosuid", "nodev", "exec", "rprivate", "size=4096", "mode=700"];
        let (flags, data) = options(&words.map(str::to_owned));
        assert_eq!(flags, MsFlags::MS_NOSUID | MsFlags::MS_NODEV);
        assert_eq!(data, "size=4096,mode=700");
    }
}
