//! Jobs in instances of the levels, by `isolab exec`: the same image, command and work at each.
//!
//! Each job runs twice: for its figures and what the kernel counts anyway, and once more while it counts system calls, which
//! takes longer. What the same program costs with nothing to do is taken off: that is the price of `isolab exec` and of
//! a program's start.

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::rc::Rc;
use std::time::Duration;

use isolab_guest::programs::{self, ProgramError};

use super::{Costs, Figures, INTERRUPTS, Job, figures};
use crate::leftovers;
use crate::machines::observe::{Before, KvmStatistics};
use crate::meter::{Counted, Meter, MeterError, Whose};
use crate::report::Failure;
use crate::runner::{Figure, TURN_LIMIT, Workload};
use crate::subjects::Level;
use crate::workloads::images::archive;
use crate::workloads::own_store::{IMAGE, OwnStore, OwnStoreError};

/// At most so often a turn runs a job, or the least of its kind: once to warm up, and twice each to count.
const TIMES: u32 = 5;

/// Why a level has no figures.
#[derive(Debug, thiserror::Error)]
pub enum InstancesError {
    /// A program that the image is to have.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The image.
    #[error(transparent)]
    Store(#[from] OwnStoreError),
    /// A process of ours.
    #[error("cannot {action} for {subject}")]
    Host {
        /// What was attempted: a verb and its object.
        action: &'static str,
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// isolab, or a program in an instance, failed.
    #[error("`{command}` ended with {status} for {subject}; it said: {said}")]
    Command {
        /// What was run.
        command: String,
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// Its exit status, which is not success.
        status: ExitStatus,
        /// What it printed.
        said: String,
    },
    /// A program printed what nobody understands.
    #[error("`{command}` at {subject}: {fault}")]
    Garbled {
        /// What was run.
        command: String,
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// What is wrong with its output.
        fault: String,
    },
    /// What work costs.
    #[error("cannot tell what the work of {subject} costs")]
    Meter {
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// What is not counted.
        source: MeterError,
    },
}

/// Who takes part, and what each of their instances is.
pub struct Participants {
    /// In the order of each round.
    pub subjects: Vec<Level>,
    /// Memory of every instance, in bytes.
    pub memory: u64,
    /// Further options of `isolab run`, by subject.
    pub options: fn(&Level) -> Vec<OsString>,
    /// A second instance of the same level, if there is one: options, and what it runs.
    pub peer: Option<Peer>,
}

/// An instance at the other end.
pub struct Peer {
    /// Options of `isolab run`.
    pub options: Vec<OsString>,
    /// A command of its shell.
    pub command: String,
}

/// Every job in one instance of each level, once a turn.
pub struct InstanceJobs {
    /// The benchmark.
    pub name: &'static str,
    /// Who takes part.
    pub participants: Participants,
    /// Has their image.
    pub store: Rc<OwnStore>,
    /// Runs first in each instance and is not counted.
    pub warm_up: String,
    /// What is done.
    pub jobs: Vec<Job>,
    /// Processes whose work is not the instance's.
    pub others: Vec<u32>,
    /// What the instances use, and what goes with this.
    pub keeps: Box<dyn Any>,
    /// What this host's kernel counts.
    counted: Vec<Counted>,
}

impl InstanceJobs {
    /// With `jobs`, of which `only` some are done if any are named. A note for each cost that cannot be told here.
    pub fn new(
        name: &'static str,
        participants: Participants,
        store: Rc<OwnStore>,
        warm_up: String,
        mut jobs: Vec<Job>,
        only: &[String],
    ) -> (Self, Vec<String>) {
        leftovers::adopt();
        jobs.retain(|job| only.is_empty() || only.contains(&job.name));
        let (counted, notes) = what_is_counted();
        let keeps = Box::new(());
        let others = Vec::new();
        (Self { name, participants, store, warm_up, jobs, others, keeps, counted }, notes)
    }
}

/// What this host's kernel counts, and a note for what it does not.
pub fn what_is_counted() -> (Vec<Counted>, Vec<String>) {
    let (mut counted, mut notes) = (Vec::new(), Vec::new());
    for what in [Counted::Time, Counted::SystemCalls] {
        let mine = Whose { own: true, ..Whose::default() };
        match Meter::start(what, &mine) {
            Ok(_) => counted.push(what),
            Err(error) => notes
                .push(format!("some costs are left out: {}", Failure::of("", "", 0, &error).error)),
        }
    }
    (counted, notes)
}

/// A store whose image has a shell and these programs, with their libraries.
///
/// # Errors
/// One of them is not installed, or the image cannot be made.
pub fn store_of(isolab: &Path, programs: &[PathBuf]) -> Result<Rc<OwnStore>, InstancesError> {
    let busybox = programs::find("busybox", "busybox-static")?;
    let mut files = std::collections::BTreeSet::new();
    for program in programs {
        files.extend(programs::files(program)?);
    }
    let fill = |layer: &mut tar::Builder<Vec<u8>>| {
        for (folder, mode) in [("bin", 0o755), ("tmp", 0o1777), ("var", 0o755), ("data", 0o755)] {
            archive::folder(layer, folder, mode)?;
        }
        archive::add(layer, "bin/busybox", 0o755, &std::fs::read(&busybox)?)?;
        for applet in APPLETS {
            archive::link(layer, &format!("bin/{applet}"), "busybox")?;
        }
        for file in &files {
            let name = file.strip_prefix("/").unwrap_or(file).to_string_lossy();
            archive::add(layer, &name, 0o755, &std::fs::read(file)?)?;
        }
        Ok(())
    };
    Ok(Rc::new(OwnStore::with_image(isolab, fill)?))
}

/// Of busybox, what commands of jobs use.
const APPLETS: [&str; 5] = ["sh", "sleep", "sync", "timeout", "true"];

impl Workload for InstanceJobs {
    type Error = InstancesError;

    fn name(&self) -> &'static str {
        self.name
    }

    fn subjects(&self) -> Vec<String> {
        self.participants.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    fn other_work(&self, subject: &str) -> Option<String> {
        self.participants.subjects.iter().find(|it| it.name == subject)?.other_work.clone()
    }

    fn warms_itself(&self) -> bool {
        true
    }

    fn limit(&self) -> Option<Duration> {
        // A job's own limit is kept by a program of the instance's, which may hang as a whole.
        let once: Duration = self.jobs.iter().map(|job| job.limit).sum();
        Some(TURN_LIMIT + once * TIMES)
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, InstancesError> {
        let Participants { subjects, options, peer, .. } = &self.participants;
        let subject = &subjects[subject];
        let served_by = match peer {
            Some(peer) => Some(self.start(subject, "peer", &peer.options, &peer.command)?),
            None => None,
        };
        let before = Before::now();
        let instance = self.start(subject, "subject", &options(subject), "exec sleep 86400")?;
        let observed = Observed { instance, kvm: before.machine(), others: &self.others };
        let longest = self.jobs.iter().map(|job| job.limit).max().unwrap_or_default();
        observed.instance.exec(&self.warm_up, longest)?;
        let mut idle: BTreeMap<&str, Costs> = BTreeMap::new();
        let mut found = Vec::new();
        for job in &self.jobs {
            if !idle.contains_key(job.idle.as_str()) {
                // Once before it counts: its files come from a disk the first time.
                observed.instance.exec(&job.idle, job.limit)?;
                let (_, costs) = observed.run(&job.idle, job.limit, &self.counted)?;
                idle.insert(&job.idle, costs);
            }
            let (output, costs) = observed.run(&job.command, job.limit, &self.counted)?;
            let done: Figures = (job.parse)(&output).map_err(|fault| InstancesError::Garbled {
                command: job.command.clone(),
                subject: subject.name.clone(),
                fault,
            })?;
            found.extend(figures(job, done, &costs.without(&idle[job.idle.as_str()])));
        }
        drop(observed);
        drop(served_by);
        // Of who serves all along there would be no end.
        if self.others.is_empty() {
            leftovers::wait();
        }
        Ok(found)
    }
}

impl InstanceJobs {
    /// An instance of `subject` in the background.
    fn start(
        &self,
        subject: &Level,
        role: &str,
        options: &[OsString],
        command: &str,
    ) -> Result<Instance<'_>, InstancesError> {
        let instance = Instance {
            store: &self.store,
            name: format!("bench-{}-{role}", std::process::id()),
            subject: subject.name.clone(),
        };
        let mut run = self.store.isolab();
        run.args(["run", "-d", "--rm", "--pull", "never", "--name", &instance.name]);
        run.args(["--isolation", subject.level.name()]);
        run.args(["--memory", &self.participants.memory.to_string()]);
        run.args(subject.options()).args(options).args([IMAGE, "sh", "-c", command]);
        succeed(&mut run, "isolab run", &subject.name)?;
        Ok(instance)
    }
}

/// One that runs. Removed when dropped.
struct Instance<'a> {
    store: &'a OwnStore,
    name: String,
    subject: String,
}

impl Instance<'_> {
    /// Runs a command of its shell, which must succeed within `limit`; gives its output.
    fn exec(&self, command: &str, limit: Duration) -> Result<String, InstancesError> {
        let mut exec = self.store.isolab();
        exec.args(["exec", &self.name, "timeout", "-s", "KILL"]);
        exec.arg(limit.as_secs().to_string()).args(["sh", "-c", command]);
        let output = succeed(&mut exec, command, &self.subject)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Of a machine, what its monitor has counted until now, if it tells.
    fn exits_by_device(&self) -> Option<BTreeMap<String, u64>> {
        let mut stats = self.store.isolab();
        stats.args(["stats", "--no-stream", "--format", "json", &self.name]);
        let told = stats.output().ok().filter(|output| output.status.success())?;
        let rows: Vec<StatsRow> = serde_json::from_slice(&told.stdout).ok()?;
        rows.into_iter().find_map(|row| row.exits_by_device)
    }
}

/// A row of `isolab stats`.
#[derive(serde::Deserialize)]
struct StatsRow {
    #[serde(rename = "ExitsByDevice")]
    exits_by_device: Option<BTreeMap<String, u64>>,
}

impl Drop for Instance<'_> {
    fn drop(&mut self) {
        let mut remove = self.store.isolab();
        // What cannot be removed is there to be seen, by `isolab ps`.
        let _ = remove.args(["rm", "--force", &self.name]).output();
    }
}

/// An instance whose costs are looked at.
struct Observed<'a> {
    instance: Instance<'a>,
    kvm: Option<KvmStatistics>,
    others: &'a [u32],
}

impl Observed<'_> {
    /// Runs a command: what it prints, and what it costs.
    fn run(
        &self,
        command: &str,
        limit: Duration,
        counted: &[Counted],
    ) -> Result<(String, Costs), InstancesError> {
        let mut costs = Costs::default();
        let devices = self.kvm.as_ref().and_then(|_| self.instance.exits_by_device());
        let before = self.kvm.as_ref().and_then(KvmStatistics::exits);
        let interrupts = self.kvm.as_ref().and_then(KvmStatistics::interrupts);
        let output = match counted.contains(&Counted::Time) {
            true => self.counting(Counted::Time, command, limit, &mut costs)?,
            false => self.instance.exec(command, limit)?,
        };
        if let Some(kvm) = &self.kvm {
            let exits = before.zip(kvm.exits()).map(|(before, after)| after.since(before));
            exits.into_iter().for_each(|exits| costs.add_exits(exits));
            let given = interrupts.zip(kvm.interrupts());
            costs.add(given.map(|(before, after)| (INTERRUPTS, (after - before) as f64)));
            if let (Some(before), Some(after)) = (devices, self.instance.exits_by_device()) {
                costs.add_devices(after.iter().map(|(device, count)| {
                    let before = before.get(device).copied().unwrap_or_default();
                    (device.as_str(), count.saturating_sub(before) as f64)
                }));
            }
        }
        if counted.contains(&Counted::SystemCalls) {
            self.counting(Counted::SystemCalls, command, limit, &mut costs)?;
        }
        Ok((output, costs))
    }

    fn counting(
        &self,
        what: Counted,
        command: &str,
        limit: Duration,
        costs: &mut Costs,
    ) -> Result<String, InstancesError> {
        let failed =
            |source| InstancesError::Meter { subject: self.instance.subject.clone(), source };
        let roots = vec![std::process::id()];
        let whose = Whose { roots, without: self.others.to_vec(), own: true };
        let meter = Meter::start(what, &whose).map_err(failed)?;
        let output = self.instance.exec(command, limit)?;
        costs.add(meter.stop().map_err(failed)?);
        Ok(output)
    }
}

/// Runs a command to its end, which has to be a good one.
pub(in crate::workloads) fn succeed(
    command: &mut Command,
    what: &str,
    subject: &str,
) -> Result<Output, InstancesError> {
    let output = command.output().map_err(|source| InstancesError::Host {
        action: "start isolab",
        subject: subject.to_owned(),
        source,
    })?;
    match output.status.success() {
        true => Ok(output),
        false => Err(InstancesError::Command {
            command: what.to_owned(),
            subject: subject.to_owned(),
            status: output.status,
            said: [&output.stdout[..], &output.stderr]
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .concat(),
        }),
    }
}
