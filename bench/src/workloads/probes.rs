//! What a workload meets inside an instance: the executable `isolab-probe` (`bench/probe`), run at each level.
//!
//! The probe is the image: one static file. A turn is one instance of it, which does a fixed number of operations of each
//! kind, so that a sample is a mean of many, and the samples are of as many instances.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use super::images::archive;
use super::own_store::{IMAGE, OwnStore, OwnStoreError};
use crate::leftovers;
use crate::runner::{Figure, Workload};
use crate::subjects::Level;

/// What the probe looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The processor and the kernel.
    Cpu,
    /// Caches, memory and address translation.
    Memory,
}

impl Kind {
    /// The probe's word for it, and the workload's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Cpu => "cpu",
            Kind::Memory => "memory",
        }
    }

    /// Instructions alone, and loads that the first cache answers: neither knows a level.
    fn control(self) -> &'static str {
        match self {
            Kind::Cpu => "compute",
            Kind::Memory => "load_16k",
        }
    }
}

/// Which levels run the probe.
pub struct ProbesPlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// The probe's executable.
    pub probe: PathBuf,
    /// What it looks at.
    pub kind: Kind,
    /// Of each probe's operations, so many percent are done.
    pub percent: u32,
    /// In the order of each round.
    pub subjects: Vec<Level>,
    /// Memory of every instance, in bytes.
    pub memory: u64,
}

/// Why the probe has no figures.
#[derive(Debug, thiserror::Error)]
pub enum ProbesError {
    /// A process.
    #[error("cannot {action} for {subject}")]
    Host {
        /// What was attempted: a verb and its object.
        action: &'static str,
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The image of the probe.
    #[error(transparent)]
    Store(#[from] OwnStoreError),
    /// The probe failed, or isolab.
    #[error("`isolab run` of the probe ended with {status} for {subject}; it said: {said}")]
    Command {
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// Its exit status, which is not success.
        status: ExitStatus,
        /// What it wrote to standard error.
        said: String,
    },
    /// The probe printed something else than names and numbers.
    #[error("the probe printed `{line}` at {subject}, which is no name with a number")]
    Garbled {
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// The line.
        line: String,
    },
}

/// The probe's path in the image.
const PROBE: &str = "/probe";

/// The probe, once a turn.
pub struct Probes {
    plan: ProbesPlan,
    store: OwnStore,
}

impl Probes {
    /// Makes the image.
    ///
    /// # Errors
    /// [`ProbesError`]: it cannot be made or loaded.
    pub fn new(plan: ProbesPlan) -> Result<Self, ProbesError> {
        leftovers::adopt();
        let store = OwnStore::with_image(&plan.program, |layer| {
            archive::add(layer, &PROBE[1..], 0o755, &fs::read(&plan.probe)?)
        })?;
        Ok(Self { plan, store })
    }
}

impl Workload for Probes {
    type Error = ProbesError;

    fn name(&self) -> &'static str {
        self.plan.kind.name()
    }

    fn subjects(&self) -> Vec<String> {
        self.plan.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    fn other_work(&self, subject: &str) -> Option<String> {
        self.plan.subjects.iter().find(|it| it.name == subject)?.other_work.clone()
    }

    fn control(&self) -> Option<&'static str> {
        Some(self.plan.kind.control())
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, ProbesError> {
        let subject = &self.plan.subjects[subject];
        let mut command = self.store.isolab();
        command.args(["run", "--pull", "never", "--isolation", subject.level.name()]);
        command.args(["--memory", &self.plan.memory.to_string()]).args(subject.options());
        command.args([IMAGE, PROBE, self.plan.kind.name(), &self.plan.percent.to_string()]);
        let output = run(&mut command, &subject.name)?;
        // What it left to others would be the next one's.
        leftovers::wait();
        parse(&output).map_err(|line| ProbesError::Garbled { subject: subject.name.clone(), line })
    }
}

/// Runs a command to its end, which has to be a good one; gives its standard output.
fn run(command: &mut Command, subject: &str) -> Result<String, ProbesError> {
    let output = command.output().map_err(|source| ProbesError::Host {
        action: "start isolab",
        subject: subject.to_owned(),
        source,
    })?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(ProbesError::Command {
            subject: subject.to_owned(),
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

/// The figures in lines like `syscall 123.4`, or the line that is none of these.
fn parse(output: &str) -> Result<Vec<Figure>, String> {
    let figure = |line: &str| {
        let (name, value) = line.trim_end().split_once(' ')?;
        let value = value.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0)?;
        Some(Figure { metric: name.to_owned().into(), unit: "ns".into(), value })
    };
    let figures: Result<Vec<Figure>, String> =
        output.lines().map(|line| figure(line).ok_or_else(|| line.to_owned())).collect();
    figures.and_then(|figures| if figures.is_empty() { Err(String::new()) } else { Ok(figures) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_names_and_numbers() {
        let figures = parse("compute 1.250\nsyscall 80.0\r\n").unwrap();
        let found: Vec<_> = figures.iter().map(|it| (&*it.metric, &*it.unit, it.value)).collect();
        assert_eq!(found, [("compute", "ns", 1.25), ("syscall", "ns", 80.0)]);
        for bad in ["", "syscall", "syscall fast", "syscall 0", "syscall nan", "a 1\nKernel panic"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
