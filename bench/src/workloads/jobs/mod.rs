//! Programs that are run where something is measured, what they find out, and what that costs the host: in the guests of
//! bare machines ([`guests`]) and in instances of the levels ([`instances`]).

pub mod guests;
pub mod instances;
mod table;

use std::borrow::Cow;
use std::time::Duration;

pub use self::table::{causes, exits_by_device, names, table};
use crate::machines::Exits;
use crate::meter::{CPU, FAULTS, SWITCHES, SYSTEM_CALLS};
use crate::report::Findings;
use crate::runner::Figure;

/// A program.
#[derive(Clone, Debug)]
pub struct Job {
    /// As it stands in the report.
    pub name: String,
    /// A command of the shell there.
    pub command: String,
    /// The same program with next to nothing to do. A program's start has hundreds of exits (the
    /// loader asks CPUID about every cache), which are not the work's and are taken off.
    pub idle: String,
    /// Far longer than it takes.
    pub limit: Duration,
    /// Finds the figures in its output.
    pub parse: fn(&str) -> Result<Figures, String>,
    /// What it counts in.
    pub units: Units,
}

/// What a program found out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// How much it got done in a second.
    pub throughput: f64,
    /// How long one piece of work took, in microseconds, where that means something.
    pub latency: Option<f64>,
    /// Pieces of work, to which costs are related.
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

/// The parts of a metric's name behind the job's; plots know two of them by [`crate::metrics`].
const THROUGHPUT: &str = "throughput";
const LATENCY: &str = "latency";
/// Exits of all kinds, and of some, for each piece of work.
const EXITS: [&str; 4] = ["exits", "exits_port", "exits_mmio", "exits_halt"];
/// In front of a device's name: those for its ports and memory, which our own monitor counts.
const EXITS_OF: &str = "exits_of_";
/// Interrupts that a guest was given.
const INTERRUPTS: &str = "interrupts";
/// What a program costs, in the order of the tables.
const COSTS: [&str; 9] =
    [CPU, SYSTEM_CALLS, SWITCHES, FAULTS, EXITS[0], EXITS[1], EXITS[2], EXITS[3], INTERRUPTS];

/// The name in reports of what was measured of a job.
fn metric(job: &str, quantity: &str) -> String {
    format!("{job}_{quantity}")
}

/// What a program cost, by quantity: each a count, or microseconds.
#[derive(Clone, Debug, Default, PartialEq)]
struct Costs(Vec<(Cow<'static, str>, f64)>);

impl Costs {
    fn add(&mut self, counts: impl IntoIterator<Item = (&'static str, f64)>) {
        self.0.extend(counts.into_iter().map(|(name, count)| (name.into(), count)));
    }

    fn add_devices<'a>(&mut self, exits: impl IntoIterator<Item = (&'a str, f64)>) {
        let named = |(device, count)| (format!("{EXITS_OF}{device}").into(), count);
        self.0.extend(exits.into_iter().map(named));
    }

    fn add_exits(&mut self, exits: Exits) {
        let counts = [exits.all, exits.port, exits.mmio, exits.halt];
        self.add(EXITS.into_iter().zip(counts.map(|count| count as f64)));
    }

    fn get(&self, quantity: &str) -> Option<f64> {
        self.0.iter().find(|(name, _)| name == quantity).map(|(_, value)| *value)
    }

    /// Those that both have.
    fn without(&self, idle: &Costs) -> Costs {
        let left = |(name, value): &(Cow<'static, str>, f64)| {
            Some((name.clone(), (value - idle.get(name)?).max(0.0)))
        };
        Costs(self.0.iter().filter_map(left).collect())
    }
}

/// Everything that is told of a job.
fn figures(job: &Job, found: Figures, costs: &Costs) -> Vec<Figure> {
    let figure = |quantity: &str, unit: String, value| Figure {
        metric: metric(&job.name, quantity).into(),
        unit: unit.into(),
        value,
    };
    let work = job.units.work;
    let mut all = vec![figure(THROUGHPUT, job.units.throughput.to_owned(), found.throughput)];
    all.extend(found.latency.map(|latency| figure(LATENCY, "us".to_owned(), latency)));
    for quantity in COSTS {
        let unit = if quantity == CPU { format!("us per {work}") } else { format!("per {work}") };
        let each = costs.get(quantity).map(|value| value / found.work);
        all.extend(each.map(|value| figure(quantity, unit, value)));
    }
    for (name, count) in costs.0.iter().filter(|(name, _)| name.starts_with(EXITS_OF)) {
        all.push(figure(name, format!("per {work}"), count / found.work));
    }
    all
}

/// Why there are no exits in what was found, if there are none.
pub fn without_exits(found: &Findings) -> Option<String> {
    let has = found.results.iter().any(|it| it.metric.ends_with(EXITS[0]));
    (!has).then(|| format!("exits are left out: {}", crate::machines::EXITS_NEED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_for_each_piece_of_work() {
        let found = Figures { throughput: 10.0, latency: None, work: 4.0 };
        let (mut all, mut idle) = (Costs::default(), Costs::default());
        all.add_exits(Exits { all: 508, port: 2, mmio: 0, halt: 5 });
        idle.add_exits(Exits { all: 500, port: 0, mmio: 3, halt: 1 });
        all.add([(INTERRUPTS, 1.0), (CPU, 48.0), (FAULTS, 7.0)]);
        idle.add([(INTERRUPTS, 0.0), (CPU, 8.0)]);
        all.add_devices([("ide", 2.0), ("uart", 1.0)]);
        idle.add_devices([("ide", 0.0)]);
        let job = Job {
            name: "read".to_owned(),
            command: String::new(),
            idle: String::new(),
            limit: Duration::ZERO,
            parse: |_| Err(String::new()),
            units: Units { throughput: "IOPS", work: "request" },
        };
        let found = figures(&job, found, &all.without(&idle));
        let found: Vec<_> = found.iter().map(|it| (&*it.metric, &*it.unit, it.value)).collect();
        let expected = [
            ("read_throughput", "IOPS", 10.0),
            ("read_cpu", "us per request", 10.0),
            ("read_exits", "per request", 2.0),
            ("read_exits_port", "per request", 0.5),
            ("read_exits_mmio", "per request", 0.0),
            ("read_exits_halt", "per request", 1.0),
            ("read_interrupts", "per request", 0.25),
            ("read_exits_of_ide", "per request", 0.5),
        ];
        // Of faults nobody knows what idling costs.
        assert_eq!(found, expected);
    }
}
