//! fio in instances of the levels, on what each gives to its workload: the image's root, which is written to through an overlay
//! at each level, and a volume, which is a folder of the host (bind mount, virtio-fs) or at fullvirt a disk (IDE).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use isolab_guest::programs;
use isolab_isolation::Level as Isolation;

use super::fio::{self, Amount, command, idle};
use crate::metrics::READS;
use crate::subjects::Level;
use crate::workloads::jobs::instances::{
    InstanceJobs, InstancesError, Participants, store_of, succeed,
};
use crate::workloads::jobs::{Job, Units};

/// What is measured, and at which levels.
pub struct DiskLevelsPlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// In the order of each round.
    pub subjects: Vec<Level>,
    /// Memory of every instance, in bytes.
    pub memory: u64,
    /// Bytes of the file that fio works on.
    pub size: u64,
    /// Requests of each job, where its size has as many, and where it has no time instead.
    pub requests: u32,
    /// How long each job runs, where it is not a fixed amount of work.
    pub time: Option<Duration>,
    /// Whether requests pass the page cache of the kernel that the workload meets by (O_DIRECT).
    pub direct: bool,
    /// The jobs that are done; none: all of them.
    pub jobs: Vec<String>,
}

/// What fio works on, and its file there.
const PLACES: [(&str, &str); 2] = [("root", "/var/fio"), ("volume", "/data/fio")];
/// What holds the file besides the image.
const VOLUMES: [&str; 2] = ["folder", "disk"];

const IOPS: Units = Units { throughput: "IOPS", work: "request" };
const BANDWIDTH: Units = Units { throughput: "MiB/s", work: "request" };

/// A kind of work.
struct Kind {
    name: &'static str,
    units: Units,
    /// What the figures are.
    reading: fio::Reading,
    /// The bytes of a request.
    block: u32,
    /// What fio is told further.
    options: &'static str,
}

/// With several requests under way, and writing.
const FURTHER: [Kind; 7] = [
    queued("randread_4k_qd4", 4 << 10, "--rw=randread --ioengine=libaio --iodepth=4"),
    queued("randread_4k_qd16", 4 << 10, "--rw=randread --ioengine=libaio --iodepth=16"),
    queued("randread_4k_qd64", 4 << 10, "--rw=randread --ioengine=libaio --iodepth=64"),
    queued("randwrite_4k_qd16", 4 << 10, "--rw=randwrite --ioengine=libaio --iodepth=16"),
    queued("read_128k_qd4", 128 << 10, "--rw=read --ioengine=libaio --iodepth=4"),
    queued("write_128k_qd4", 128 << 10, "--rw=write --ioengine=libaio --iodepth=4"),
    Kind {
        name: "write_4k_fsync",
        units: IOPS,
        reading: fio::synced,
        block: 4 << 10,
        options: "--rw=write --ioengine=psync --fsync=1",
    },
];

/// Small requests are counted, large ones measured.
const fn queued(name: &'static str, block: u32, options: &'static str) -> Kind {
    let (units, reading): (Units, fio::Reading) =
        if block > 4096 { (BANDWIDTH, fio::bandwidth) } else { (IOPS, fio::iops) };
    Kind { name, units, reading, block, options }
}

/// Reading by size, one request at a time, and the others.
fn kinds() -> impl Iterator<Item = Kind> {
    let options = "--rw=randread --ioengine=psync";
    let reading = fio::bandwidth;
    let read = move |(block, name)| Kind { name, units: BANDWIDTH, reading, block, options };
    READS.into_iter().map(read).chain(FURTHER)
}

/// For a first look.
pub const QUICK: [&str; 2] = ["volume_randread_4k", "volume_write_4k_fsync"];

/// The names of the jobs, in their order.
pub fn jobs() -> Vec<String> {
    let names = |place| kinds().map(move |kind| name(place, kind.name));
    PLACES.iter().flat_map(|(place, _)| names(place)).collect()
}

fn name(place: &str, kind: &str) -> String {
    format!("{place}_{kind}")
}

/// The workload of this plan, and a note for each thing that is left out.
///
/// # Errors
/// fio is not installed, or the image or a volume cannot be made.
pub fn workload(plan: &DiskLevelsPlan) -> Result<(InstanceJobs, Vec<String>), InstancesError> {
    let store = store_of(&plan.program, &[programs::find("fio", "fio")?])?;
    for kind in VOLUMES {
        let mut create = store.isolab();
        create.args(["volume", "create", "--opt", &format!("type={kind}"), kind]);
        succeed(&mut create, "isolab volume create", "all subjects")?;
    }
    let participants =
        Participants { subjects: plan.subjects.clone(), memory: plan.memory, options, peer: None };
    let limit = Duration::from_secs(600) + plan.time.unwrap_or_default();
    let job = |place: &str, file: &str, kind: Kind| {
        let Kind { name: kind, units, reading, block, options } = kind;
        let file = format!("{file} --size={}", plan.size);
        let most = u32::try_from(plan.size / u64::from(block)).unwrap_or(u32::MAX);
        let amount = Amount::Requests(plan.requests.min(most));
        let amount = plan.time.map_or(amount, Amount::Time);
        Job {
            name: name(place, kind),
            command: command(&file, plan.direct, block, amount, options),
            idle: idle(&file, plan.direct),
            limit,
            parse: reading,
            units,
        }
    };
    let jobs = PLACES.iter().flat_map(|(place, file)| {
        let job = &job;
        kinds().map(move |kind| job(place, file, kind))
    });
    // The file has no holes then: reading one costs less than reading a disk, and filling one more.
    let fill = PLACES.map(|(_, file)| {
        let file = format!("{file} --size={}", plan.size);
        let all = Amount::Requests(u32::try_from(plan.size >> 20).unwrap_or(u32::MAX));
        command(&file, false, 1 << 20, all, "--rw=write --ioengine=psync --end_fsync=1")
    });
    Ok(InstanceJobs::new(
        "disk",
        participants,
        store,
        fill.join(" && ") + " && sync",
        jobs.collect(),
        &plan.jobs,
    ))
}

/// No PC shares a folder.
fn options(subject: &Level) -> Vec<OsString> {
    let volume = if subject.level == Isolation::Fullvirt { VOLUMES[1] } else { VOLUMES[0] };
    vec!["-v".into(), format!("{volume}:/data").into()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn jobs_have_names_of_their_own() {
        let names = jobs();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 2 * kinds().count());
        assert!(QUICK.iter().all(|quick| names.iter().any(|name| name == quick)));
    }
}
