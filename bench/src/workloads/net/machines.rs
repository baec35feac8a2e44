//! iperf3 both ways, and our probe's requests, between the host and the guests of our two machines and of QEMU's, over one
//! tap, one kernel and one initramfs.

use std::path::{Path, PathBuf};

use isolab_guest::programs;

use super::super::jobs::Job;
use super::super::jobs::guests::{Contender, GuestJobs, Setup};
use super::probe::{self, PORT};
use super::tap::{self, GUEST, HOST, Tap};
use super::{ROUND_TRIPS, STREAM, iperf};
use crate::machines::MachinesError;
use crate::subjects::machine::{Device, Machine, Net};
use crate::subjects::own;
use crate::subjects::peers::qemu;

/// As it stands in reports, where the levels' is `net`.
pub const NAME: &str = "net_machines";
/// For a first look.
pub const QUICK: [&str; 2] = ["tcp_send", "request"];
/// Our machine with a virtio network controller.
pub const VIRTIO: &str = "vmm-virtio";
/// Our machine with an emulated 82540EM (e1000).
pub const EMULATED: &str = "vmm-e1000";

/// What takes part: its name, machine, whether the host's kernel moves the frames, and whom its
/// ratio is to.
static SUBJECTS: [(&str, &Machine, bool, Option<&str>); 7] = [
    (VIRTIO, &own::VIRTIO, false, Some("qemu-q35")),
    ("vmm-virtio-vhost", &own::VIRTIO, true, Some("qemu-q35-vhost")),
    (EMULATED, &own::EMULATED, false, Some("qemu-pc-e1000")),
    ("qemu-microvm", &qemu::MICROVM, false, None),
    ("qemu-q35", &qemu::Q35, false, None),
    ("qemu-q35-vhost", &qemu::Q35, true, None),
    ("qemu-pc-e1000", &qemu::PC, false, None),
];

/// The names of the jobs: guest to host, host to guest, and back and forth: 64 bytes each way over TCP, each request when the
/// one before is answered (`ping -f` sends its next echo after 10 ms, answered or not).
const JOBS: [&str; 3] = ["tcp_send", "tcp_receive", "request"];

/// Bytes of a request, and of its answer.
const REQUEST: u32 = 64;

/// What is measured of networks.
pub struct NetPlan {
    /// What it has in common with the disk's.
    pub setup: Setup,
    /// MiB of each stream, where it has no time instead.
    pub mebibytes: u32,
    /// The probe's executable.
    pub probe: PathBuf,
    /// Requests with their answers, where the job has no time instead.
    pub requests: u32,
}

/// The names of the jobs, in their order.
pub fn jobs() -> Vec<&'static str> {
    JOBS.to_vec()
}

/// The names of the subjects, in their order.
pub fn subjects() -> Vec<&'static str> {
    SUBJECTS.iter().map(|(name, ..)| *name).collect()
}

/// Whom a subject's ratio is to.
pub fn rival(subject: &str) -> Option<&'static str> {
    SUBJECTS.iter().find(|(name, ..)| *name == subject)?.3
}

/// The workload of this plan, and a note for each subject that is left out.
///
/// # Errors
/// The tap, the server or the guests' files cannot be made.
pub fn workload(plan: &NetPlan) -> Result<(GuestJobs, Vec<String>), MachinesError> {
    let setup = &plan.setup;
    let iperf3 = programs::find("iperf3", "iperf3")?;
    let workspace = setup.workspace(&[iperf3.clone(), plan.probe.clone()])?;
    let tap = Tap::make()?;
    let answers = probe::Server::start(&plan.probe, HOST).map_err(|source| {
        MachinesError::Host { action: "start", subject: "the host's probe", source }
    })?;
    let servers = (iperf::Server::start(&iperf3, HOST)?, answers);

    let has_vhost = std::path::Path::new("/dev/vhost-net").exists();
    let candidates = SUBJECTS.each_ref().map(|(name, machine, ..)| (*name, *machine));
    let (found, mut notes) = setup.subjects(&candidates);
    let mut contenders = Vec::new();
    for subject in found {
        let named = SUBJECTS.iter().find(|(name, ..)| *name == subject.name);
        let Some(&(name, _, vhost, _)) = named else { continue };
        if vhost && !has_vhost {
            notes.push(format!("{name} is left out: no /dev/vhost-net (modprobe vhost_net)"));
            continue;
        }
        let device = Device::Net(Net { tap: tap.name().to_owned(), vhost });
        contenders.push(Contender { subject, boot: workspace.boot(device), disk: "" });
    }

    let (stream_amount, requests) = match setup.time {
        None => (format!("--bytes {}M", plan.mebibytes), plan.requests.to_string()),
        // iperf3 takes whole seconds only.
        Some(time) => {
            let seconds = time.as_secs_f64().ceil();
            (format!("--time {seconds}"), format!("{seconds}s"))
        }
    };
    let stream = format!("iperf3 --client {HOST} {stream_amount} --interval 0 --json");
    let little = format!("iperf3 --client {HOST} --bytes 1K --interval 0 --json");
    let request = |number: &str| format!("{} {REQUEST} {number}", to_probe(&plan.probe, "request"));
    let job = |name: &str, command, idle: &str, parse, units| Job {
        name: name.to_owned(),
        command,
        idle: idle.to_owned(),
        limit: setup.limit(),
        parse,
        units,
    };
    let [send, receive, round_trips] = JOBS;
    let jobs = [
        job(send, stream.clone(), &little, iperf::stream as fn(&str) -> _, STREAM),
        job(receive, stream + " --reverse", &little, iperf::stream, STREAM),
        job(round_trips, request(&requests), &request("1"), probe::exchanges, ROUND_TRIPS),
    ];
    // Up, until the host answers; then a little of everything, so that the programs are in place.
    let warm_up = format!(
        "ip addr add {GUEST}/{} dev eth0 && ip link set eth0 up && \
         until {} 1; do sleep 0.1; done && \
         iperf3 --client {HOST} --bytes 1M --json && iperf3 --client {HOST} --bytes 1M --reverse",
        tap::PREFIX,
        to_probe(&plan.probe, "connect"),
    );
    let keeps = Box::new((servers, tap, workspace));
    let jobs = GuestJobs { name: NAME, contenders, warm_up, jobs: jobs.into(), rival, keeps };
    Ok((jobs.only(setup), notes))
}

/// A command of the probe's that goes to the host's.
fn to_probe(program: &Path, command: &str) -> String {
    format!("{} {command} {HOST}:{PORT}", program.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_ours_is_beside_a_peer_with_a_like_card() {
        let ours = SUBJECTS.iter().filter(|(_, machine, ..)| machine.peer.is_none());
        for (name, machine, vhost, _) in ours {
            let beside = rival(name).unwrap();
            let theirs = SUBJECTS.iter().find(|(name, ..)| *name == beside).unwrap();
            assert!(theirs.1.peer.is_some(), "{name} is beside {beside}");
            assert_eq!(theirs.2, *vhost, "{name} is beside {beside}");
            // QEMU's pc is the one with an e1000.
            let (emulated, pc) = (own::EMULATED.name, qemu::PC.name);
            assert_eq!(machine.name == emulated, theirs.1.name == pc, "{name} is beside {beside}");
            assert_eq!(rival(beside), None);
        }
        assert_eq!(rival("no-such-subject"), None);
        assert!(QUICK.iter().all(|quick| JOBS.contains(quick)));
    }
}
