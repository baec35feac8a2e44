//! What `bench disk` and `bench net` have in common: jobs that run in the guests of several
//! machines, and one table of what they did and what it cost.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::CellAlignment;
use tempfile::TempDir;

use crate::machines::conversation::{self, Answer, Conversation};
use crate::machines::{Exits, MachinesError};
use crate::report::{Report, plain_table, ratio};
use crate::runner::{Figure, Workload};
use crate::subjects::Peer;
use crate::subjects::machine::{Boot, Device, Machine, MachineSubject};

/// A program that runs in every guest.
pub struct Job {
    /// As it stands in the report.
    pub name: &'static str,
    /// A command of the guest's shell.
    pub command: String,
    /// The same program with next to nothing to do. A program's start has hundreds of exits (the
    /// loader asks CPUID about every cache), which are not the work's and are taken off.
    pub idle: String,
    /// Far longer than it takes.
    pub limit: Duration,
    /// Finds the figures in its output.
    pub parse: fn(&str) -> Result<Figures, String>,
}

/// What a program found out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// How much it got done in a second.
    pub throughput: f64,
    /// How long one piece of work took, in microseconds, where that means something.
    pub latency: Option<f64>,
    /// Pieces of work, to which exits and interrupts are related.
    pub work: f64,
}

/// The unit of a job's throughput, and of its pieces of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units {
    /// For example `IOPS`.
    pub throughput: &'static str,
    /// For example `request`.
    pub work: &'static str,
}

/// A machine that takes part.
pub struct Contender {
    /// The machine that takes part.
    pub subject: MachineSubject,
    /// With the device that is measured.
    pub boot: Boot,
    /// The disk as this guest's kernel calls it, for jobs that name it `$DISK`.
    pub disk: &'static str,
}

/// What both benchmarks are told.
pub struct Setup {
    /// The `isolab` whose `vm run` takes part.
    pub program: PathBuf,
    /// Others; those that are not installed are left out.
    pub peers: Vec<Peer>,
    /// The subjects that take part; none: all of them.
    pub only: Vec<String>,
    /// The jobs that are done; none: all of them.
    pub jobs: Vec<String>,
    /// How long each job runs, where it is not a fixed amount of work.
    pub time: Option<Duration>,
    /// An uncompressed vmlinux.
    pub kernel: PathBuf,
    /// Guest RAM in bytes, a multiple of 1 MiB.
    pub memory: u64,
}

/// What is far longer than any job takes, beyond the time that it is given: the host may be
/// emulated, and busy.
const EXTRA_TIMEOUT: Duration = Duration::from_secs(600);

impl Setup {
    /// When a job is given up.
    pub fn limit(&self) -> Duration {
        self.time.unwrap_or_default() + EXTRA_TIMEOUT
    }

    /// The machines of `candidates` that take part, and a note for each peer that cannot.
    pub fn subjects(
        &self,
        candidates: &[(&'static str, &'static Machine)],
    ) -> (Vec<MachineSubject>, Vec<String>) {
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let (mut subjects, mut notes) = (Vec::new(), Vec::new());
        for &(name, machine) in candidates.iter().filter(|(name, _)| wanted(name)) {
            let peer = machine.peer.map(|name| self.peers.iter().find(|it| it.name() == name));
            match peer {
                None => subjects.push(MachineSubject::own(name, machine, &self.program)),
                Some(None) => {}
                Some(Some(peer)) => match MachineSubject::peer(name, machine, *peer, None) {
                    Ok(subject) => subjects.push(subject),
                    Err(why) => notes.push(format!("{name} is left out: {why}")),
                },
            }
        }
        for peer in &self.peers {
            if !candidates.iter().any(|(_, machine)| machine.peer == Some(peer.name())) {
                notes.push(format!("{peer} is left out: its devices are not measured yet"));
            }
        }
        (subjects, notes)
    }

    /// Makes the guests' files.
    ///
    /// # Errors
    /// A program is not installed or cannot be read.
    pub fn workspace(&self, programs: &[PathBuf]) -> Result<Workspace, MachinesError> {
        let failed = |source| MachinesError::Host {
            action: "write",
            subject: "the guests' initramfs",
            source,
        };
        let initramfs = conversation::initramfs(programs)?;
        let folder = tempfile::tempdir().map_err(failed)?;
        std::fs::write(folder.path().join(INITRAMFS), initramfs).map_err(failed)?;
        Ok(Workspace { kernel: self.kernel.clone(), memory: self.memory, folder })
    }
}

const INITRAMFS: &str = "initramfs.cpio";

/// The guests' files, which go with it.
pub struct Workspace {
    kernel: PathBuf,
    memory: u64,
    folder: TempDir,
}

impl Workspace {
    /// What a guest with this device boots.
    pub fn boot(&self, device: Device) -> Boot {
        Boot {
            kernel: self.kernel.clone(),
            bzimage: None,
            initrd: self.folder.path().join(INITRAMFS),
            memory: self.memory,
            cpus: 1,
            scratch: self.folder.path().to_owned(),
            device: Some(device),
        }
    }
}

/// The parts of a metric's name behind the job's.
const THROUGHPUT: &str = "throughput";
const LATENCY: &str = "latency";
/// Exits of all kinds, and of some, for each piece of work.
const EXITS: [&str; 4] = ["exits", "exits_port", "exits_mmio", "exits_halt"];
const INTERRUPTS: &str = "interrupts";

/// The name in reports of what was measured of a job.
fn metric(job: &str, quantity: &str) -> String {
    format!("{job}_{quantity}")
}

/// Jobs in guests: every job in a guest of its own of one contender, once a turn.
pub struct GuestJobs {
    /// The benchmark.
    pub name: &'static str,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// Runs first in each guest and is not counted.
    pub warm_up: String,
    /// What is done, with what it is counted in.
    pub jobs: Vec<(Job, Units)>,
    /// Whom a subject's ratio is to.
    pub rival: fn(&str) -> Option<&'static str>,
    /// What the guests use, and what goes with this.
    pub keeps: Box<dyn Any>,
}

impl GuestJobs {
    /// Leaves out what `setup` does not want.
    pub fn only(mut self, setup: &Setup) -> Self {
        let wanted = |job: &Job| setup.jobs.is_empty() || setup.jobs.iter().any(|w| w == job.name);
        self.jobs.retain(|(job, _)| wanted(job));
        self
    }
}

impl Workload for GuestJobs {
    type Error = MachinesError;

    fn name(&self) -> &'static str {
        self.name
    }

    fn subjects(&self) -> Vec<String> {
        self.contenders.iter().map(|it| it.subject.name.to_owned()).collect()
    }

    fn baseline(&self, subject: &str) -> Option<String> {
        let rival = (self.rival)(subject)?;
        self.contenders.iter().any(|it| it.subject.name == rival).then(|| rival.to_owned())
    }

    fn warms_itself(&self) -> bool {
        true
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, MachinesError> {
        let contender = &self.contenders[subject];
        let mut found = Vec::new();
        let mut guest = Conversation::start(&contender.subject, &contender.boot)?;
        let longest = self.jobs.iter().map(|(job, _)| job.limit).max().unwrap_or_default();
        guest.command(&command(&self.warm_up, contender), longest)?;
        let mut idle: BTreeMap<&str, Cost> = BTreeMap::new();
        for (job, units) in &self.jobs {
            let start = match idle.get(job.idle.as_str()) {
                Some(start) => *start,
                None => {
                    let answer = guest.command(&command(&job.idle, contender), job.limit)?;
                    *idle.entry(&job.idle).or_insert(Cost::of(&answer))
                }
            };
            let command = command(&job.command, contender);
            let answer = guest.command(&command, job.limit)?;
            let subject = contender.subject.name;
            let figures = (job.parse)(&answer.output).map_err(|fault| MachinesError::Job {
                subject,
                command,
                fault,
            })?;
            let cost = Cost::of(&answer).without(start);
            found.extend(quantities(figures, cost).into_iter().map(|(quantity, value)| Figure {
                metric: metric(job.name, quantity).into(),
                unit: match quantity {
                    THROUGHPUT => units.throughput.into(),
                    LATENCY => "us".into(),
                    _ => format!("per {}", units.work).into(),
                },
                value,
            }));
        }
        guest.end()?;
        Ok(found)
    }
}

/// Why there are no exits in `report`, if there are none.
pub fn without_exits(report: &crate::report::Findings) -> Option<String> {
    let has = report.results.iter().any(|it| it.metric.ends_with(EXITS[0]));
    (!has).then(|| format!("exits are left out: {}", crate::machines::EXITS_NEED))
}

fn command(command: &str, contender: &Contender) -> String {
    command.replace("$DISK", contender.disk)
}

/// What a program cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    exits: Option<Exits>,
    interrupts: u64,
}

impl Cost {
    fn of(answer: &Answer) -> Self {
        Self { exits: answer.exits, interrupts: answer.interrupts }
    }

    fn without(self, idle: Cost) -> Self {
        Self {
            exits: self.exits.zip(idle.exits).map(|(all, idle)| all.since(idle)),
            interrupts: self.interrupts.saturating_sub(idle.interrupts),
        }
    }
}

fn quantities(figures: Figures, cost: Cost) -> Vec<(&'static str, f64)> {
    let per_work = |count: u64| count as f64 / figures.work;
    let mut found = vec![(THROUGHPUT, figures.throughput)];
    found.extend(figures.latency.map(|latency| (LATENCY, latency)));
    if let Some(exits) = cost.exits {
        let counts = [exits.all, exits.port, exits.mmio, exits.halt];
        found.extend(EXITS.into_iter().zip(counts.map(per_work)));
    }
    found.push((INTERRUPTS, per_work(cost.interrupts)));
    found
}

/// Medians: a row for each job and subject. The ratio is that of throughputs, to the baseline's.
pub fn table(report: &Report, benchmark: &str, jobs: &[&str], subjects: &[&str]) -> String {
    let mut table = plain_table(&[
        "job",
        "subject",
        "throughput",
        "latency, us",
        "exits",
        "interrupts",
        "per",
        "ratio",
    ]);
    for text in [1, 6] {
        if let Some(column) = table.column_mut(text) {
            column.set_cell_alignment(CellAlignment::Left);
        }
    }
    for job in jobs {
        for subject in subjects {
            let found = |quantity| report.find(subject, &metric(job, quantity));
            let Some(throughput) = found(THROUGHPUT) else { continue };
            let cell = |quantity, decimals| match found(quantity) {
                Some(found) => format!("{:.decimals$}", found.summary.median),
                None => "-".to_owned(),
            };
            let work = found(INTERRUPTS).and_then(|found| found.unit.strip_prefix("per "));
            table.add_row([
                (*job).to_owned(),
                (*subject).to_owned(),
                format!("{:.0} {}", throughput.summary.median, throughput.unit),
                cell(LATENCY, 0),
                cell(EXITS[0], 2),
                cell(INTERRUPTS, 3),
                work.unwrap_or("-").to_owned(),
                report
                    .comparison(benchmark, subject, &metric(job, THROUGHPUT))
                    .map_or("-".to_owned(), |it| format!("{} {}", ratio(it), it.baseline)),
            ]);
        }
    }
    table.to_string()
}

/// A sentence for each job at which `slow` has less than a third of `fast`'s throughput: what it
/// leaves the guest for.
pub fn causes(report: &Report, jobs: &[&str], slow: &str, fast: &str) -> Vec<String> {
    let sentence = |job: &&str| {
        let median = |subject: &str, quantity| {
            report.summary(subject, &metric(job, quantity)).map(|summary| summary.median)
        };
        let times = median(fast, THROUGHPUT)? / median(slow, THROUGHPUT)?;
        if times <= 3.0 {
            return None;
        }
        let exits = |subject| -> Option<String> {
            let [all, port, mmio, halt] = EXITS.map(|kind| median(subject, kind));
            let (all, port, mmio, halt) = (all?, port?, mmio?, halt?);
            Some(format!("{all:.1} exits ({port:.1} port, {mmio:.1} memory, {halt:.1} halt)"))
        };
        let work = report.find(slow, &metric(job, INTERRUPTS))?.unit.as_str();
        let told = match (exits(slow), exits(fast)) {
            (Some(slow_exits), Some(fast_exits)) => {
                format!(": {slow_exits} {work} against {fast_exits}")
            }
            _ => String::new(),
        };
        Some(format!("{job}: {slow} is {times:.1} times slower than {fast}{told}"))
    };
    jobs.iter().filter_map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::report::tests::{measured, origin};
    use crate::report::{Findings, Measurement, Pair};

    fn report() -> Report {
        let measured = |subject: &str, quantity: &str, unit: &str, value: f64| Measurement {
            unit: unit.to_owned(),
            ..measured(subject, &metric("randread", quantity), vec![value; 5])
        };
        let mut results = vec![measured("theirs", THROUGHPUT, "IOPS", 4000.0)];
        for (subject, iops, exits) in [("ours", 8000.0, 1.0), ("slow", 2000.0, 9.0)] {
            results.push(measured(subject, THROUGHPUT, "IOPS", iops));
            for kind in EXITS {
                results.push(measured(subject, kind, "per request", exits));
            }
            results.push(measured(subject, INTERRUPTS, "per request", 0.5));
        }
        let pair = Pair {
            benchmark: "startup".to_owned(),
            subject: "ours".to_owned(),
            baseline: "theirs".to_owned(),
            other_work: None,
            control: None,
        };
        let findings = Findings { results, pairs: vec![pair], ..Findings::default() };
        Report::new(origin(), Host::detect(None, None), findings)
    }

    #[test]
    fn ratios_are_to_the_rival() {
        let table = table(&report(), "startup", &["randread", "absent"], &["ours", "theirs"]);
        let row = |subject: &str| -> Vec<&str> {
            let mut rows = table.lines().map(|line| line.split('|').map(str::trim).collect());
            rows.find(|cells: &Vec<&str>| cells[2] == subject).unwrap()
        };
        let ours = ["", "randread", "ours", "8000 IOPS", "-", "1.00", "0.500", "request"];
        assert_eq!(row("ours")[..8], ours);
        assert_eq!((row("ours")[8], row("theirs")[8]), ("2.00x theirs", "-"));
        assert!(!table.contains("absent"), "{table}");
    }

    #[test]
    fn what_is_three_times_slower_is_told_with_its_exits() {
        let causes = causes(&report(), &["randread"], "slow", "ours");
        let expected = "randread: slow is 4.0 times slower than ours: 9.0 exits (9.0 port, \
                        9.0 memory, 9.0 halt) per request against 1.0 exits";
        assert!(causes[0].starts_with(expected), "{causes:?}");
        assert!(super::causes(&report(), &["randread"], "theirs", "ours").is_empty());
    }

    #[test]
    fn exits_are_for_each_piece_of_work() {
        let figures = Figures { throughput: 10.0, latency: None, work: 4.0 };
        let exits = Exits { all: 508, port: 2, mmio: 0, halt: 5 };
        let start = Exits { all: 500, port: 0, mmio: 0, halt: 1 };
        let cost = Cost { exits: Some(exits), interrupts: 1 };
        let cost = cost.without(Cost { exits: Some(start), interrupts: 0 });
        let expected = [
            (THROUGHPUT, 10.0),
            (EXITS[0], 2.0),
            (EXITS[1], 0.5),
            (EXITS[2], 0.0),
            (EXITS[3], 1.0),
            (INTERRUPTS, 0.25),
        ];
        assert_eq!(quantities(figures, cost), expected);
    }
}
