//! iperf3 and our probe in instances of the levels on one network of isolab's: with the host, whose end is the network's
//! gateway, and with a second instance of the same level.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use isolab_guest::programs;

use super::probe::{self, PORT, exchanges};
use super::{ROUND_TRIPS, STREAM, iperf};
use crate::machines::MachinesError;
use crate::subjects::Level;
use crate::workloads::jobs::instances::{
    InstanceJobs, InstancesError, Participants, Peer, store_of, succeed,
};
use crate::workloads::jobs::{Job, Units};
use crate::workloads::own_store::{IMAGE, OwnStore};

/// What is measured, and at which levels.
pub struct NetLevelsPlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// The probe's executable.
    pub probe: PathBuf,
    /// In the order of each round.
    pub subjects: Vec<Level>,
    /// Memory of every instance, in bytes.
    pub memory: u64,
    /// MiB of each stream.
    pub mebibytes: u32,
    /// Requests of each size, and connections.
    pub requests: u32,
    /// The jobs that are done; none: all of them.
    pub jobs: Vec<String>,
}

/// Why the network cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum NetLevelsError {
    /// The instances.
    #[error(transparent)]
    Instances(#[from] InstancesError),
    /// The host's iperf3.
    #[error(transparent)]
    Server(#[from] MachinesError),
    /// The host's probe.
    #[error("cannot start the host's probe")]
    Probe(#[source] std::io::Error),
}

/// 198.18.0.0/15 is for benchmarks (RFC 2544, C.2.2).
const SUBNET: &str = "198.18.78.0/24";
const GATEWAY: &str = "198.18.78.1";
const SUBJECT: &str = "198.18.78.2";
const PEER: &str = "198.18.78.3";
const KEEPER: &str = "198.18.78.4";
const CONNECTIONS: Units = Units { throughput: "per s", work: "connection" };

/// The sizes of a request and its answer, in bytes.
const SIZES: [(&str, u32); 3] = [("64", 64), ("1k", 1 << 10), ("64k", 64 << 10)];

/// For a first look.
pub const QUICK: [&str; 2] = ["send_host", "request_64_peer"];

/// The workload of this plan, and a note for each thing that is left out.
///
/// # Errors
/// A program is not installed, or the image, the network or a server cannot be made.
pub fn workload(plan: &NetLevelsPlan) -> Result<(InstanceJobs, Vec<String>), NetLevelsError> {
    let iperf3 = programs::find("iperf3", "iperf3").map_err(InstancesError::from)?;
    let store = store_of(&plan.program, &[iperf3.clone(), plan.probe.clone()])?;
    let network = Network::make(&store, &plan.probe)?;
    let answers = probe::Server::start(&plan.probe, GATEWAY).map_err(NetLevelsError::Probe)?;
    let servers = (iperf::Server::start(&iperf3, GATEWAY)?, answers);
    let others = vec![servers.0.id(), servers.1.id()];
    let on = |address: &str| -> Vec<OsString> {
        let network = format!("{},ip={address}", network.name);
        vec!["--network".into(), network.into()]
    };
    let probe = plan.probe.display();
    let participants = Participants {
        subjects: plan.subjects.clone(),
        memory: plan.memory,
        options: |_| vec!["--network".into(), format!("{},ip={SUBJECT}", name()).into()],
        peer: Some(Peer {
            options: on(PEER),
            command: format!("iperf3 --server >/tmp/iperf3 & exec {probe} serve {PEER}:{PORT}"),
        }),
    };
    // Until both ends answer.
    let ready = |address: &str| {
        format!(
            "until {probe} connect {address}:{PORT} 1; do sleep 0.1; done; \
             until iperf3 --client {address} --bytes 1M; do sleep 0.1; done"
        )
    };
    let warm_up = format!("({}; {}) >/tmp/warm-up 2>&1", ready(GATEWAY), ready(PEER));
    let (mut workload, notes) = InstanceJobs::new(
        "net",
        participants,
        store,
        warm_up,
        jobs_of(&plan.probe, plan.mebibytes, plan.requests),
        &plan.jobs,
    );
    workload.others = others;
    workload.keeps = Box::new((servers, network));
    Ok((workload, notes))
}

/// The names of the jobs, in their order.
pub fn jobs() -> Vec<String> {
    jobs_of(Path::new("probe"), 1, 1).into_iter().map(|job| job.name).collect()
}

fn jobs_of(probe: &Path, mebibytes: u32, requests: u32) -> Vec<Job> {
    let probe = probe.display();
    let mut jobs = Vec::new();
    for (end, address) in [("host", GATEWAY), ("peer", PEER)] {
        let mut add = |name: &str, command: String, idle: String, parse: fn(&str) -> _, units| {
            jobs.push(Job {
                name: format!("{name}_{end}"),
                command,
                idle,
                limit: Duration::from_secs(600),
                parse,
                units,
            });
        };
        let stream =
            |bytes: &str| format!("iperf3 --client {address} --bytes {bytes} --interval 0 --json");
        let (much, little) = (stream(&format!("{mebibytes}M")), stream("1K"));
        add("send", much.clone(), little.clone(), iperf::stream, STREAM);
        add("receive", much + " --reverse", little, iperf::stream, STREAM);
        let idle = format!("{probe} request {address}:{PORT} 64 1");
        for (name, size) in SIZES {
            let command = format!("{probe} request {address}:{PORT} {size} {requests}");
            add(&format!("request_{name}"), command, idle.clone(), exchanges, ROUND_TRIPS);
        }
        let connect = |count: u32| format!("{probe} connect {address}:{PORT} {count}");
        add("connect", connect(requests), connect(1), exchanges, CONNECTIONS);
    }
    jobs
}

fn name() -> String {
    format!("bench-{}", std::process::id())
}

/// A network with somebody on it, so that its gateway is there. Both are removed with this.
struct Network {
    store: Rc<OwnStore>,
    name: String,
}

impl Network {
    fn make(store: &Rc<OwnStore>, probe: &Path) -> Result<Self, InstancesError> {
        let network = Self { store: Rc::clone(store), name: name() };
        let words = ["network", "create", "--subnet", SUBNET, "--gateway", GATEWAY, &network.name];
        network.isolab(&words)?;
        let on = format!("{},ip={KEEPER}", network.name);
        let begin = ["run", "-d", "--rm", "--pull", "never", "--network", &on];
        let probe = probe.display().to_string();
        let serve = [&probe, "serve", "127.0.0.1:7411"];
        network.isolab(&[&begin[..], &["--name", &network.keeper(), IMAGE], &serve].concat())?;
        Ok(network)
    }

    fn keeper(&self) -> String {
        format!("{}-keeper", self.name)
    }

    fn isolab(&self, words: &[&str]) -> Result<(), InstancesError> {
        let mut command = self.store.isolab();
        command.args(words);
        succeed(&mut command, &format!("isolab {}", words.join(" ")), "all subjects").map(drop)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What cannot be removed is there to be seen, by `isolab ps` and `isolab network ls`.
        let _ = self.isolab(&["rm", "--force", &self.keeper()]);
        let _ = self.isolab(&["network", "rm", &self.name]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_job_is_done_with_both_ends() {
        let names = jobs();
        assert_eq!(names.len(), 12);
        assert!(QUICK.iter().all(|quick| names.iter().any(|name| name == quick)));
    }
}
