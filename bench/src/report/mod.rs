//! The shape of every benchmark's result: `docs/reading-the-report.md` documents its JSON.
//!
//! [`Report::new`] makes comparisons of measurements, and audits them. [`table`] shows it on a terminal, [`page()`] as a
//! page with plots; both print what is here and compute nothing.

mod audit;
mod change;
mod comparison;
mod headline;
mod page;
mod pair;
mod self_test;
mod table;

use std::error::Error;
use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

pub use self::audit::{Fault, FaultKind};
pub use self::change::{Change, Changes, changes};
pub use self::comparison::{Comparison, Verdict};
pub use self::headline::in_short;
pub use self::page::page;
pub use self::pair::{Pair, again, is_again};
pub use self::self_test::SelfTest;
pub use self::table::{by_metric, medians, of_metric, plain_table, ratio};
use crate::host::Host;
use crate::statistics::Summary;

/// The name and version of the JSON's shape. A reader of an older version understands a newer one of the same number:
/// fields may come, none goes.
pub const SCHEMA: &str = "isolab-bench-report/1";

/// One metric of one subject.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    /// The workload's name, for example `startup`.
    pub benchmark: String,
    /// A level, or a peer's name.
    pub subject: String,
    /// What was measured, for example `to_first_output`.
    pub metric: String,
    /// The unit of all figures.
    pub unit: String,
    /// The round of each sample.
    pub rounds: Vec<u32>,
    /// The samples and their order statistics.
    #[serde(flatten)]
    pub summary: Summary,
}

/// A subject that could not be measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The workload's name.
    pub benchmark: String,
    /// Whose turn it was.
    pub subject: String,
    /// In which round; 0 is the warm-up.
    pub round: u32,
    /// What happened, with its causes.
    pub error: String,
}

impl Failure {
    pub(crate) fn of(benchmark: &str, subject: &str, round: u32, error: &dyn Error) -> Self {
        let error = error_reporter::Report::new(error).to_string();
        Self { benchmark: benchmark.to_owned(), subject: subject.to_owned(), round, error }
    }
}

/// What was measured, and what was not.
#[derive(Default)]
pub struct Findings {
    /// By subject and metric.
    pub results: Vec<Measurement>,
    /// Whose figures are compared with whose.
    pub pairs: Vec<Pair>,
    /// Who could not be measured.
    pub failures: Vec<Failure>,
    /// One sentence for each thing that was left out.
    pub notes: Vec<String>,
    /// Somebody ended it before its time.
    pub interrupted: bool,
}

impl Findings {
    /// Adds what another workload found.
    pub fn extend(&mut self, more: Findings) {
        self.results.extend(more.results);
        self.pairs.extend(more.pairs);
        self.failures.extend(more.failures);
        // What two workloads lack is told once.
        let new = more.notes.into_iter().filter(|note| !self.notes.contains(note));
        let new: Vec<String> = new.collect();
        self.notes.extend(new);
        self.interrupted |= more.interrupted;
    }
}

/// How the report was made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// When it was begun, by RFC 3339, UTC.
    pub begun: String,
    /// isolab's version.
    pub version: String,
    /// The command that repeats it, word by word.
    pub command: Vec<String>,
}

/// Everything one run of a benchmark found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: String,
    /// How it was made.
    pub origin: Origin,
    /// The host that was measured on.
    pub host: Host,
    /// What was measured, by benchmark, subject and metric.
    pub results: Vec<Measurement>,
    /// What can be said of two subjects.
    pub comparisons: Vec<Comparison>,
    /// What the benchmark says of one subject under two names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_test: Option<SelfTest>,
    /// Who could not be measured, and has no figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// What was left out, and why: one sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Whether the run was ended before its time: there are fewer rounds than asked for.
    pub interrupted: bool,
}

impl Report {
    /// Compares and audits what was found.
    pub fn new(origin: Origin, host: Host, findings: Findings) -> Self {
        let Findings { results, pairs, failures, notes, interrupted } = findings;
        let (comparisons, again) = comparison::compare(&results, &pairs, host.kvm);
        Self {
            schema: SCHEMA.to_owned(),
            origin,
            host,
            self_test: SelfTest::of(&results, &again),
            results,
            comparisons,
            failures,
            notes,
            interrupted,
        }
    }

    /// What was measured of `metric` at `subject`, if it was.
    pub fn find(&self, subject: &str, metric: &str) -> Option<&Measurement> {
        self.results.iter().find(|m| m.subject == subject && m.metric == metric)
    }

    /// The summary of `metric` at `subject`.
    pub fn summary(&self, subject: &str, metric: &str) -> Option<&Summary> {
        self.find(subject, metric).map(|found| &found.summary)
    }

    /// How `metric` of `subject` compares with its baseline's, in `benchmark`.
    pub fn comparison(&self, benchmark: &str, subject: &str, metric: &str) -> Option<&Comparison> {
        self.comparisons.iter().find(|it| {
            (it.benchmark.as_str(), it.subject.as_str(), it.metric.as_str())
                == (benchmark, subject, metric)
        })
    }

    /// The benchmarks, each once, in their order.
    pub fn benchmarks(&self) -> Vec<&str> {
        distinct(self.results.iter().map(|it| it.benchmark.as_str()))
    }

    /// The subjects of a benchmark, each once, in their order.
    pub fn subjects(&self, benchmark: &str) -> Vec<&str> {
        let of = self.results.iter().filter(|it| it.benchmark == benchmark);
        distinct(of.map(|it| it.subject.as_str()))
    }

    /// The metrics of a benchmark, each once, in their order.
    pub fn metrics(&self, benchmark: &str) -> Vec<&str> {
        let of = self.results.iter().filter(|it| it.benchmark == benchmark);
        distinct(of.map(|it| it.metric.as_str()))
    }

    /// What was measured by a benchmark.
    pub fn of<'a>(&'a self, benchmark: &'a str) -> impl Iterator<Item = &'a Measurement> {
        self.results.iter().filter(move |it| it.benchmark == benchmark)
    }

    /// What a reader has to know beside the figures, a sentence each: what was left out and what the audit found.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.notes.clone();
        remarks.extend(self.failures.iter().map(|it| {
            format!("{} of {} FAILED in round {}: {}", it.benchmark, it.subject, it.round, it.error)
        }));
        if self.interrupted {
            remarks.push("the run was ended before its time".to_owned());
        }
        remarks.extend(comparison::remarks(&self.comparisons));
        remarks.extend(self.self_test.as_ref().map(ToString::to_string));
        remarks
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        writeln!(text, "host          {} x{}, Linux {}", self.cpu, self.cpus, self.kernel)?;
        writeln!(text, "KVM           {}", self.kvm.describe())?;
        if let Some(kernel) = &self.guest_kernel {
            writeln!(text, "guest kernel  {kernel}")?;
        }
        if let (Some(image), Some(digest)) = (&self.image, &self.image_digest) {
            writeln!(text, "image         {image} {digest}")?;
        }
        f.write_str(text.trim_end())
    }
}

#[cfg(test)]
pub(crate) mod tests;
