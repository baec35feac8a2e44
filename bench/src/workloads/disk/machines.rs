//! fio in the guests of our two machines and of QEMU's, over one disk, one back end, one kernel and one initramfs.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use isolab_guest::programs;

use super::super::jobs::guests::{Contender, GuestJobs, Setup};
use super::super::jobs::{Job, Units};
use super::fio::{self, Amount, command, idle};
use crate::machines::MachinesError;
pub use crate::subjects::machine::{CacheMode, EngineKind};
use crate::subjects::machine::{Device, Disk, Machine};
use crate::subjects::own;
use crate::subjects::peers::qemu;

/// As it stands in reports, where the levels' is `disk`.
pub const NAME: &str = "disk_machines";
/// For a first look.
pub const QUICK: [&str; 2] = ["randread_4k_qd1", "write_fsync_4k"];
/// Our machine with a virtio disk.
pub const VIRTIO: &str = "vmm-virtio";
/// Our machine with a disk at the emulated PIIX IDE.
pub const EMULATED: &str = "vmm-emulated";

/// What takes part: its name, machine, disk in the guest, and whom its ratio is to.
static SUBJECTS: [(&str, &Machine, &str, Option<&str>); 5] = [
    (VIRTIO, &own::VIRTIO, "/dev/vda", Some("qemu-q35")),
    (EMULATED, &own::EMULATED, "/dev/sda", Some("qemu-pc-ide")),
    ("qemu-microvm", &qemu::MICROVM, "/dev/vda", None),
    ("qemu-q35", &qemu::Q35, "/dev/vda", None),
    ("qemu-pc-ide", &qemu::PC, "/dev/sda", None),
];

const IOPS: Units = Units { throughput: "IOPS", work: "request" };
const BANDWIDTH: Units = Units { throughput: "MiB/s", work: "request" };

/// The jobs: names, units, what the figures are, the KiB of a request, and what fio is told beyond
/// what is the same for all.
const JOBS: [(&str, Units, fio::Reading, u32, &str); 6] = [
    ("randread_4k", IOPS, fio::iops, 4, "--rw=randread --ioengine=libaio --iodepth=16"),
    ("randread_4k_qd1", IOPS, fio::iops, 4, "--rw=randread --ioengine=psync"),
    ("randwrite_4k", IOPS, fio::iops, 4, "--rw=randwrite --ioengine=libaio --iodepth=16"),
    ("read_128k", BANDWIDTH, fio::bandwidth, 128, "--rw=read --ioengine=libaio --iodepth=4"),
    ("write_128k", BANDWIDTH, fio::bandwidth, 128, "--rw=write --ioengine=libaio --iodepth=4"),
    ("write_fsync_4k", IOPS, fio::synced, 4, "--rw=write --ioengine=psync --fsync=1"),
];

/// Default folder of the disk: /tmp is often in memory, where O_DIRECT is not possible.
const FOLDER: &str = "/var/tmp";

/// What is measured of disks, and on which.
pub struct DiskPlan {
    /// What it has in common with the network's.
    pub setup: Setup,
    /// Requests of each job, where it has no time instead.
    pub requests: u32,
    /// A raw file or block device whose content will be lost; by default a file made for the
    /// purpose.
    pub disk: Option<PathBuf>,
    /// Bytes of the file that is made.
    pub size: u64,
    /// The host's page cache.
    pub cache: CacheMode,
    /// How requests reach the host's kernel.
    pub engine: EngineKind,
}

/// The names of the jobs, in their order.
pub fn jobs() -> Vec<&'static str> {
    JOBS.map(|(name, ..)| name).to_vec()
}

/// The names of the subjects, in their order.
pub fn subjects() -> Vec<&'static str> {
    SUBJECTS.iter().map(|(name, ..)| *name).collect()
}

/// Whom a subject's ratio is to.
pub fn rival(subject: &str) -> Option<&'static str> {
    SUBJECTS.iter().find(|(name, ..)| *name == subject)?.3
}

/// The workload of this plan, and a note for each peer that is left out.
///
/// # Errors
/// The disk or the guests' files cannot be made.
pub fn workload(plan: &DiskPlan) -> Result<(GuestJobs, Vec<String>), MachinesError> {
    let made = match &plan.disk {
        Some(_) => None,
        None => Some(make_disk(Path::new(FOLDER), plan.size).map_err(|source| {
            MachinesError::Host { action: "make", subject: "a disk in /var/tmp", source }
        })?),
    };
    let path = made.as_ref().map(|made| made.path().to_owned()).or_else(|| plan.disk.clone());
    let path = path.unwrap_or_default();
    let workspace = plan.setup.workspace(&[programs::find("fio", "fio")?])?;
    let (found, notes) =
        plan.setup.subjects(&SUBJECTS.each_ref().map(|(name, machine, ..)| (*name, *machine)));
    let contenders: Vec<Contender> = found
        .into_iter()
        .filter_map(|subject| {
            let (.., disk, _) = SUBJECTS.iter().find(|(name, ..)| *name == subject.name)?;
            let device =
                Device::Disk(Disk { path: path.clone(), cache: plan.cache, engine: plan.engine });
            Some(Contender { subject, boot: workspace.boot(device), disk })
        })
        .collect();
    let amount = plan.setup.time.map_or(Amount::Requests(plan.requests), Amount::Time);
    let jobs = JOBS.map(|(name, units, parse, kib, options)| Job {
        name: name.to_owned(),
        command: command(DISK, true, kib << 10, amount, options),
        idle: idle(DISK, true),
        limit: plan.setup.limit(),
        parse,
        units,
    });
    let jobs = GuestJobs {
        name: NAME,
        contenders,
        // What fio needs of the initramfs is then in place, and the guest's memory in the host's.
        warm_up: command(DISK, true, 4096, WARM_UP, "--rw=randrw --ioengine=libaio --iodepth=16"),
        jobs: jobs.into(),
        rival,
        keeps: Box::new((made, workspace)),
    };
    Ok((jobs.only(&plan.setup), notes))
}

/// What a guest's kernel calls it instead.
const DISK: &str = "$DISK";
const WARM_UP: Amount = Amount::Requests(100);

/// A file without holes: reading a hole costs less than reading a disk, and filling one more.
fn make_disk(folder: &Path, size: u64) -> io::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::with_prefix_in("isolab-disk.", folder)?;
    let chunk = vec![0x5a; 1 << 20];
    let mut left = size;
    while left > 0 {
        let length = left.min(chunk.len() as u64);
        file.write_all(&chunk[..length as usize])?;
        left -= length;
    }
    File::sync_all(file.as_file())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_ours_is_beside_a_peer_with_a_like_disk() {
        let ours = SUBJECTS.iter().filter(|(_, machine, ..)| machine.peer.is_none());
        for (name, _, disk, _) in ours {
            let beside = rival(name).unwrap();
            let theirs = SUBJECTS.iter().find(|(name, ..)| *name == beside).unwrap();
            assert!(theirs.1.peer.is_some(), "{name} is beside {beside}");
            // The same driver names it.
            assert_eq!(theirs.2, *disk, "{name} is beside {beside}");
            assert_eq!(rival(beside), None);
        }
        assert_eq!(rival("no-such-subject"), None);
        assert!(QUICK.iter().all(|quick| jobs().contains(quick)));
    }

    #[test]
    fn a_made_disk_has_no_holes() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let disk = make_disk(folder.path(), 3 << 19).unwrap();
        let made = disk.as_file().metadata().unwrap();
        assert_eq!(made.len(), 3 << 19);
        assert!(made.blocks() * 512 >= 3 << 19);
    }
}
