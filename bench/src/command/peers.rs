//! What others need for a start, beside what ours do: the part of `isolab bench startup` that has peers; `isolab bench all` has it,
//! too.

use std::path::PathBuf;

use anyhow::Result;
use isolab_bench::machines::{self, OWN};
use isolab_bench::report::{self, Findings, Report};
use isolab_bench::runner::Runner;
use isolab_bench::subjects::Peer;
use isolab_bench::workloads::engines::{self, Engines};
use isolab_bench::workloads::machines::{self as starts, Machines, MachinesPlan};
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

impl Starts<'_> {
    fn those(&self, are: impl Fn(Peer) -> bool) -> Vec<Peer> {
        self.peers.iter().copied().filter(|peer| are(*peer)).collect()
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

    /// Measures them, each kind beside ours of that kind.
    ///
    /// # Errors
    /// What is measured cannot be made, or ours does not run.
    pub fn measure(&self, runner: &mut Runner) -> Result<Findings> {
        let mut findings = Findings::default();
        let engines = self.those(Peer::is_engine);
        if !engines.is_empty() {
            let (mut engines, notes) = Engines::new(&own_program()?, &engines, self.memory)?;
            findings.notes.extend(notes);
            findings.extend(runner.run(&mut engines)?);
        }
        let shims = self.those(|peer| peer.shim().is_some());
        if !shims.is_empty() && !findings.interrupted {
            let plan = SandboxesPlan {
                program: own_program()?,
                peers: shims,
                memory: self.memory,
                kernel: self.kernel.map(str::to_owned),
            };
            let (mut sandboxes, notes) = Sandboxes::new(plan)?;
            findings.notes.extend(notes);
            findings.extend(runner.run(&mut sandboxes)?);
        }
        let runtimes = self.those(Peer::is_runtime);
        if !runtimes.is_empty() && !findings.interrupted {
            let plan =
                RuntimesPlan { program: package::executable(runtimes::OWN)?, peers: runtimes };
            let (mut runtimes, notes) = Runtimes::new(&plan)?;
            findings.notes.extend(notes);
            findings.extend(runner.run(&mut runtimes)?);
        }
        let machines = self.those(|peer| peer.lightest().is_some());
        if !machines.is_empty() && !findings.interrupted {
            findings.extend(self.measure_machines(machines, runner)?);
        }
        Ok(findings)
    }

    fn measure_machines(&self, peers: Vec<Peer>, runner: &mut Runner) -> Result<Findings> {
        let kernel: PathBuf = guest_kernel(Level::Paravirt, self.kernel)?.image;
        let bzimage = kernel.with_file_name("bzImage");
        let plan = MachinesPlan {
            program: own_program()?,
            peers,
            bzimage: bzimage.is_file().then_some(bzimage),
            kernel,
            memory: self.memory,
            cpus: 1,
        };
        let (mut machines, notes) = Machines::new(&plan)?;
        let mut findings = runner.run(&mut machines)?;
        findings.notes.extend(notes);
        if !findings.results.iter().any(|it| it.metric == starts::EXITS) {
            findings.notes.push(format!("exits are left out: {}", machines::EXITS_NEED));
        }
        Ok(findings)
    }
}

/// The tables of this part; nothing where it was not measured.
pub fn tables(report: &Report) -> String {
    let mut text = String::new();
    if report.summary(OWN, startup::TO_GUEST_INIT).is_some() {
        let metrics = [
            (startup::TO_GUEST_INIT, "From spawn of the VMM to the guest's init, ms"),
            (startup::TO_EXIT, "From spawn of the VMM to its end, ms"),
            (startup::TO_GONE, "From spawn of the VMM until nothing of it is left, ms"),
            (starts::MEMORY_AT_INIT, "Resident beyond guest RAM at init, KiB"),
            (starts::PRIVATE_AT_INIT, "Of it private and dirty, KiB"),
            (starts::MEMORY_OVERHEAD, "Resident beyond guest RAM 1 s after init, KiB"),
            (starts::PRIVATE_OVERHEAD, "Of it private and dirty, KiB"),
            (starts::EXITS, "Exits until the guest's init"),
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
