//! What `bench disk` and `bench net` have in common: jobs that run in the guests of several
//! machines, and one table of what they did and what it cost.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::CellAlignment;

use crate::machines::conversation::{self, Answer, Conversation};
use crate::machines::vmm::{Boot, Device, Machine, Peer, Subject};
use crate::machines::{Exits, MachinesError};
use crate::report::{Findings, Measurement, Report, plain_table};
use crate::summary::Summary;

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
    pub subject: Subject,
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
    /// Rounds, at least 1.
    pub runs: u32,
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
    pub fn subjects(&self, candidates: &[(&'static str, Machine)]) -> (Vec<Subject>, Vec<String>) {
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let (mut subjects, mut notes) = (Vec::new(), Vec::new());
        for &(name, machine) in candidates.iter().filter(|(name, _)| wanted(name)) {
            match machine.peer() {
                None => subjects.push(Subject::own(name, machine, &self.program)),
                Some(peer) if !self.peers.contains(&peer) => {}
                Some(_) => match Subject::peer(name, machine, None) {
                    Ok(subject) => subjects.push(subject),
                    Err(why) => notes.push(format!("{name} is left out: {why}")),
                },
            }
        }
        for peer in &self.peers {
            if !candidates.iter().any(|(_, machine)| machine.peer() == Some(*peer)) {
                notes.push(format!("{peer} is left out: its devices are not measured yet"));
            }
        }
        (subjects, notes)
    }

    /// Makes the guests' files.
    ///
    /// # Errors
    /// A program is not installed or cannot be read.
    pub fn workspace(&self, programs: &[PathBuf]) -> Result<Workspace<'_>, MachinesError> {
        let failed = |source| MachinesError::Host {
            action: "write",
            subject: "the guests' initramfs",
            source,
        };
        let initramfs = conversation::initramfs(programs)?;
        let folder = tempfile::tempdir().map_err(failed)?;
        std::fs::write(folder.path().join(INITRAMFS), initramfs).map_err(failed)?;
        Ok(Workspace { setup: self, folder })
    }
}

const INITRAMFS: &str = "initramfs.cpio";

/// The guests' files, which go with it.
pub struct Workspace<'a> {
    setup: &'a Setup,
    folder: tempfile::TempDir,
}

impl Workspace<'_> {
    /// What a guest with this device boots.
    pub fn boot(&self, device: Device) -> Boot {
        Boot {
            kernel: self.setup.kernel.clone(),
            bzimage: None,
            initrd: self.folder.path().join(INITRAMFS),
            memory: self.setup.memory,
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

/// Runs every job in the guest of every contender, round by round, the contenders interleaved, so
/// that a drift of the host meets all alike. `warm_up` runs first in each guest and is not
/// counted. `progress` hears of every round.
///
/// # Errors
/// [`MachinesError`] at the first failure: half a comparison is none.
pub fn measure(
    contenders: &[Contender],
    warm_up: &str,
    jobs: Vec<(Job, Units)>,
    setup: &Setup,
    mut progress: impl FnMut(u32),
) -> Result<Findings, MachinesError> {
    let wanted = |job: &Job| setup.jobs.is_empty() || setup.jobs.iter().any(|w| w == job.name);
    let jobs: Vec<_> = jobs.into_iter().filter(|(job, _)| wanted(job)).collect();
    let mut samples: BTreeMap<(usize, usize, &str), Vec<f64>> = BTreeMap::new();
    for round in 1..=setup.runs {
        progress(round);
        for (place, contender) in contenders.iter().enumerate() {
            let subject = contender.subject.name;
            let mut guest = Conversation::start(&contender.subject, &contender.boot)?;
            let longest = jobs.iter().map(|(job, _)| job.limit).max().unwrap_or_default();
            guest.command(&command(warm_up, contender), longest)?;
            let mut idle: BTreeMap<&str, Cost> = BTreeMap::new();
            for (number, (job, _)) in jobs.iter().enumerate() {
                let start = match idle.get(job.idle.as_str()) {
                    Some(start) => *start,
                    None => {
                        let answer = guest.command(&command(&job.idle, contender), job.limit)?;
                        *idle.entry(&job.idle).or_insert(Cost::of(&answer))
                    }
                };
                let command = command(&job.command, contender);
                let answer = guest.command(&command, job.limit)?;
                let figures = (job.parse)(&answer.output).map_err(|fault| MachinesError::Job {
                    subject,
                    command,
                    fault,
                })?;
                let cost = Cost::of(&answer).without(start);
                for (quantity, value) in quantities(figures, cost) {
                    samples.entry((place, number, quantity)).or_default().push(value);
                }
            }
            guest.end()?;
        }
    }
    let mut notes = Vec::new();
    if !samples.keys().any(|(_, _, quantity)| *quantity == EXITS[0]) {
        notes.push(format!("exits are left out: {}", crate::machines::EXITS_NEED));
    }
    let measurement = |((place, number, quantity), samples): ((usize, usize, &str), _)| {
        let (job, units) = &jobs[number];
        Some(Measurement {
            subject: contenders[place].subject.name.to_owned(),
            metric: metric(job.name, quantity),
            unit: match quantity {
                THROUGHPUT => units.throughput.to_owned(),
                LATENCY => "us".to_owned(),
                _ => format!("per {}", units.work),
            },
            summary: Summary::of(samples)?,
        })
    };
    Ok(Findings { results: samples.into_iter().filter_map(measurement).collect(), notes })
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

/// Medians: a row for each job and subject. The ratio is that of throughputs, to the subject that
/// `rival` names.
pub fn table(
    report: &Report,
    jobs: &[&str],
    subjects: &[&str],
    rival: impl Fn(&str) -> Option<&'static str>,
) -> String {
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
                ratio(report, job, subject, rival(subject)),
            ]);
        }
    }
    table.to_string()
}

fn ratio(report: &Report, job: &str, subject: &str, rival: Option<&'static str>) -> String {
    let median = |subject: &str| {
        report.summary(subject, &metric(job, THROUGHPUT)).map(|summary| summary.median)
    };
    match rival.and_then(|rival| Some((rival, median(rival)?, median(subject)?))) {
        Some((rival, theirs, ours)) => format!("{:.2} {rival}", ours / theirs),
        None => "-".to_owned(),
    }
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

    fn report() -> Report {
        let measurement = |subject: &str, quantity: &str, unit: &str, value: f64| Measurement {
            subject: subject.to_owned(),
            metric: metric("randread", quantity),
            unit: unit.to_owned(),
            summary: Summary::of(vec![value]).unwrap(),
        };
        let mut results = vec![measurement("theirs", THROUGHPUT, "IOPS", 4000.0)];
        for (subject, iops, exits) in [("ours", 8000.0, 1.0), ("slow", 2000.0, 9.0)] {
            results.push(measurement(subject, THROUGHPUT, "IOPS", iops));
            for kind in EXITS {
                results.push(measurement(subject, kind, "per request", exits));
            }
            results.push(measurement(subject, INTERRUPTS, "per request", 0.5));
        }
        Report { host: Host::detect(None, None), results, notes: Vec::new() }
    }

    #[test]
    fn ratios_are_to_the_rival() {
        let table = table(&report(), &["randread", "absent"], &["ours", "theirs"], |subject| {
            (subject == "ours").then_some("theirs")
        });
        let row = |subject: &str| -> Vec<&str> {
            let mut rows = table.lines().map(|line| line.split('|').map(str::trim).collect());
            rows.find(|cells: &Vec<&str>| cells[2] == subject).unwrap()
        };
        let ours = ["", "randread", "ours", "8000 IOPS", "-", "1.00", "0.500", "request"];
        assert_eq!(row("ours")[..8], ours);
        assert_eq!((row("ours")[8], row("theirs")[8]), ("2.00 theirs", "-"));
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
