//! What others need for a start, beside what ours do: the part of `isolab bench startup` that has peers; `isolab bench all` has it,
//! too.

use std::path::PathBuf;

use anyhow::Result;
use isolab_bench::machines::{self, OWN};
use isolab_bench::report::{self, Findings, Report};
use isolab_bench::runner::{Runner, Workload};
use isolab_bench::subjects::Peer;
use isolab_bench::workloads::engines::{self, Engines};
use isolab_bench::workloads::machines::{
    EXITS, MEMORY_AT_INIT, MEMORY_OVERHEAD, Machines, MachinesPlan, PRIVATE_AT_INIT,
    PRIVATE_OVERHEAD,
};
use isolab_bench::workloads::runtimes::{self, Runtimes, RuntimesPlan};
use isolab_bench::workloads::sandboxes::{self, Sandboxes, SandboxesPlan};
use isolab_bench::workloads::startup;
use isolab_guest::package;
use isolab_isolation::{GuestKernel, Level, guest_kernel};

use super::{own_program, tables_of};

/// Who takes part, and in what guests.
pub struct Starts<'a> {
    /// Those that cannot run here are left out, with a note each.
    pub peers: &'a [Peer],
    /// Memory of every container and guest, in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// The guest kernel; none: the default.
    pub kernel: Option<&'a str>,
}

/// Peers that are measured beside ours of their kind.
struct Kind {
    /// Of the benchmark.
    name: &'static str,
    has: fn(Peer) -> bool,
    measure: fn(&Starts, Vec<Peer>, &mut Runner) -> Result<Findings>,
}

static KINDS: [Kind; 4] = [
    Kind { name: "engines", has: Peer::is_engine, measure: engines },
    Kind { name: "sandboxes", has: |peer| peer.shim().is_some(), measure: sandboxes },
    Kind { name: "runtimes", has: Peer::is_runtime, measure: runtimes },
    Kind { name: "machines", has: |peer| peer.lightest().is_some(), measure: machines },
];

impl Starts<'_> {
    /// Measures each kind that there is, when its turn comes: its benchmark's name, and what was found.
    pub fn measure(
        &self,
        runner: &mut Runner,
    ) -> impl Iterator<Item = (&'static str, Result<Findings>)> {
        KINDS.iter().filter_map(|kind| {
            let peers: Vec<Peer> =
                self.peers.iter().copied().filter(|peer| (kind.has)(*peer)).collect();
            let is_wanted = !peers.is_empty();
            is_wanted.then(|| (kind.name, (kind.measure)(self, peers, runner)))
        })
    }

    /// The guests' kernel, if there are any.
    ///
    /// # Errors
    /// There is no such kernel.
    pub fn guest_kernel(&self) -> Result<Option<GuestKernel>> {
        let has_guests = |peer: &Peer| peer.shim().is_some() || peer.lightest().is_some();
        let has_guests = self.peers.iter().any(has_guests);
        Ok(has_guests.then(|| guest_kernel(Level::Paravirt, self.kernel)).transpose()?)
    }
}

fn engines(starts: &Starts, peers: Vec<Peer>, runner: &mut Runner) -> Result<Findings> {
    found(Engines::new(&own_program()?, &peers, starts.memory)?, runner)
}

fn sandboxes(starts: &Starts, peers: Vec<Peer>, runner: &mut Runner) -> Result<Findings> {
    let plan = SandboxesPlan {
        program: own_program()?,
        peers,
        memory: starts.memory,
        kernel: starts.kernel.map(str::to_owned),
    };
    found(Sandboxes::new(plan)?, runner)
}

fn runtimes(_: &Starts, peers: Vec<Peer>, runner: &mut Runner) -> Result<Findings> {
    let plan = RuntimesPlan { program: package::executable(runtimes::OWN)?, peers };
    found(Runtimes::new(&plan)?, runner)
}

fn machines(starts: &Starts, peers: Vec<Peer>, runner: &mut Runner) -> Result<Findings> {
    let kernel: PathBuf = guest_kernel(Level::Paravirt, starts.kernel)?.image;
    let bzimage = kernel.with_file_name("bzImage");
    let plan = MachinesPlan {
        program: own_program()?,
        peers,
        bzimage: bzimage.is_file().then_some(bzimage),
        kernel,
        memory: starts.memory,
        cpus: 1,
    };
    let mut findings = found(Machines::new(&plan)?, runner)?;
    if !findings.results.iter().any(|it| it.metric == EXITS) {
        findings.notes.push(format!("exits are left out: {}", machines::EXITS_NEED));
    }
    Ok(findings)
}

/// What a workload finds, and what was noted when it was made.
fn found<W: Workload>(
    (mut workload, notes): (W, Vec<String>),
    runner: &mut Runner,
) -> Result<Findings> {
    let mut findings = runner.run(&mut workload)?;
    findings.notes.extend(notes);
    Ok(findings)
}

/// The tables of this part; nothing where it was not measured.
pub fn tables(report: &Report) -> String {
    let mut text = String::new();
    if report.summary(OWN, startup::TO_GUEST_INIT).is_some() {
        let metrics = [
            (startup::TO_GUEST_INIT, "From spawn of the VMM to the guest's init, ms"),
            (startup::TO_EXIT, "From spawn of the VMM to its end, ms"),
            (startup::TO_GONE, "From spawn of the VMM until nothing of it is left, ms"),
            (MEMORY_AT_INIT, "Resident beyond guest RAM at init, KiB"),
            (PRIVATE_AT_INIT, "Of it private and dirty, KiB"),
            (MEMORY_OVERHEAD, "Resident beyond guest RAM 1 s after init, KiB"),
            (PRIVATE_OVERHEAD, "Of it private and dirty, KiB"),
            (EXITS, "Exits until the guest's init"),
        ];
        text += &tables_of(report, "machines", &metrics, OWN);
    }
    for (benchmark, what, own) in [
        ("engines", "A container", engines::OWN),
        ("sandboxes", "A container with a machine of its own", sandboxes::OWN),
    ] {
        if !report.metrics(benchmark).is_empty() {
            let table = report::by_metric(report, benchmark);
            text += &format!("{what} to its end, medians (ratios to {own})\n{table}\n\n");
        }
    }
    if report.summary(runtimes::OWN, startup::TO_EXIT).is_some() {
        let metrics = [
            (startup::TO_EXIT, "From spawn of the runtime to its end, ms"),
            (runtimes::PEAK_MEMORY, "Peak of resident memory, KiB"),
        ];
        text += &tables_of(report, "runtimes", &metrics, runtimes::OWN);
    }
    text
}
