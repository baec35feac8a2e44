//! `isolab bench disk`: fio in the guests of our two machines and of QEMU's, over one disk, one
//! back end, one kernel and one initramfs.

mod fio;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use isolab_guest::programs;

use crate::comparison::{self, Contender, Job, Setup, Units};
pub use crate::machines::vmm::{CacheMode, EngineKind};
use crate::machines::vmm::{Device, Disk, Machine};
use crate::machines::{MachinesError, Outcome};

/// Our machines.
pub const VIRTIO: &str = "vmm-virtio";
/// See [`VIRTIO`].
pub const EMULATED: &str = "vmm-emulated";

/// What takes part: its name, machine, disk in the guest, and whom its ratio is to.
const SUBJECTS: [(&str, Machine, &str, Option<&str>); 5] = [
    (VIRTIO, Machine::OwnVirtio, "/dev/vda", Some("qemu-q35")),
    (EMULATED, Machine::OwnEmulated, "/dev/sda", Some("qemu-pc-ide")),
    ("qemu-microvm", Machine::QemuMicrovm, "/dev/vda", None),
    ("qemu-q35", Machine::QemuQ35, "/dev/vda", None),
    ("qemu-pc-ide", Machine::QemuPc, "/dev/sda", None),
];

const IOPS: Units = Units { throughput: "IOPS", work: "request" };
const BANDWIDTH: Units = Units { throughput: "MiB/s", work: "request" };

/// The jobs: names, units, what the figures are, and what fio is told beyond what is the same for
/// all.
const JOBS: [(&str, Units, fio::Reading, &str); 6] = [
    ("randread_4k", IOPS, fio::iops, "--rw=randread --bs=4k --ioengine=libaio --iodepth=16"),
    ("randread_4k_qd1", IOPS, fio::iops, "--rw=randread --bs=4k --ioengine=psync"),
    ("randwrite_4k", IOPS, fio::iops, "--rw=randwrite --bs=4k --ioengine=libaio --iodepth=16"),
    ("read_128k", BANDWIDTH, fio::bandwidth, "--rw=read --bs=128k --ioengine=libaio --iodepth=4"),
    ("write_128k", BANDWIDTH, fio::bandwidth, "--rw=write --bs=128k --ioengine=libaio --iodepth=4"),
    ("write_fsync_4k", IOPS, fio::synced, "--rw=write --bs=4k --ioengine=psync --fsync=1"),
];

/// Beyond a job's own time: fio starts, and the host may be emulated.
const PATIENCE: Duration = Duration::from_secs(120);
/// Default folder of the disk: /tmp is often in memory, where O_DIRECT is not possible.
const FOLDER: &str = "/var/tmp";

/// What to measure.
pub struct Plan {
    /// What it has in common with the network's.
    pub setup: Setup,
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
    SUBJECTS.map(|(name, ..)| name).to_vec()
}

/// Whom a subject's ratio is to.
pub fn rival(subject: &str) -> Option<&'static str> {
    SUBJECTS.iter().find(|(name, ..)| *name == subject)?.3
}

/// Runs the plan, subjects interleaved. `progress` hears of every round.
///
/// # Errors
/// [`MachinesError`] at the first failure.
pub fn measure(plan: &Plan, progress: impl FnMut(u32)) -> Result<Outcome, MachinesError> {
    let made;
    let path = match &plan.disk {
        Some(path) => path.as_path(),
        None => {
            made = make_disk(Path::new(FOLDER), plan.size).map_err(|source| {
                MachinesError::Host { action: "make", subject: "a disk in /var/tmp", source }
            })?;
            made.path()
        }
    };
    let workspace = plan.setup.workspace(&[programs::find("fio", "fio")?])?;
    let (found, mut notes) =
        plan.setup.subjects(&SUBJECTS.map(|(name, machine, ..)| (name, machine)));
    let contenders: Vec<Contender> = found
        .into_iter()
        .filter_map(|subject| {
            let (.., disk, _) = SUBJECTS.iter().find(|(name, ..)| *name == subject.name)?;
            let device = Device::Disk(Disk {
                path: path.to_owned(),
                cache: plan.cache,
                engine: plan.engine,
            });
            Some(Contender { subject, boot: workspace.boot(device), disk })
        })
        .collect();
    let jobs = JOBS.map(|(name, units, parse, options)| {
        let (command, idle) = (command(options, plan.setup.time), IDLE.to_owned());
        (Job { name, command, idle, limit: plan.setup.time + PATIENCE, parse }, units)
    });
    // What fio needs of the initramfs is then in place, and the guest's memory in the host's.
    let warm_up = command("--rw=randrw --bs=4k --ioengine=libaio --iodepth=16", WARM_UP);
    let mut outcome =
        comparison::measure(&contenders, &warm_up, jobs.into(), &plan.setup, progress)?;
    notes.append(&mut outcome.notes);
    Ok(Outcome { notes, ..outcome })
}

/// One request.
const IDLE: &str = "fio --name=job --filename=$DISK --direct=1 --thread --output-format=json \
                    --rw=read --bs=4k --io_size=4k --ioengine=libaio";

const WARM_UP: Duration = Duration::from_millis(100);

fn command(options: &str, time: Duration) -> String {
    let time = time.as_millis();
    format!(
        "fio --name=job --filename=$DISK --direct=1 --thread --time_based --runtime={time}ms \
         --output-format=json {options}"
    )
}

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
    fn rivals_take_part() {
        for (name, _, _, rival_name) in SUBJECTS {
            assert_eq!(rival(name), rival_name);
            assert!(rival_name.is_none_or(|rival| subjects().contains(&rival)));
        }
        assert_eq!(rival("no-such-subject"), None);
    }

    #[test]
    fn fio_is_told_how_long() {
        let command = command(JOBS[0].3, Duration::from_millis(1500));
        assert!(command.contains("--runtime=1500ms") && command.contains("randread"), "{command}");
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
