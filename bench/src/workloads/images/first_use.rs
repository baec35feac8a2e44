//! From an archive and an empty store to the workload's first line, at each level; and again from
//! the same store, which then has the unpacked layers and the disk.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use isolab_isolation::timeline;

use super::super::startup;
use super::{ImagesError, run};
use crate::leftovers;
use crate::runner::{Figure, Workload};
use crate::subjects::Level;

/// `isolab image load` into an empty store.
pub const LOAD: &str = "load";
/// From spawning that `isolab image load` to the first line of output of `isolab run`.
pub const FIRST_USE: &str = "load_to_first_output";
/// From spawning `isolab run` once more to its first line of output.
pub const CACHED: &str = "cached_to_first_output";

/// Which levels are measured from an archive on.
pub struct FirstUsePlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// In the order of each round.
    pub subjects: Vec<Level>,
    /// Options for every `isolab run`.
    pub options: Vec<OsString>,
    /// An archive or layout with one image.
    pub archive: PathBuf,
    /// The command, which prints at least one line and exits with 0.
    pub command: Vec<OsString>,
}

/// The image's name in the stores of the measurement.
const NAME: &str = "localhost/bench:latest";

/// A store that is new, filled and used, once a turn.
pub struct FirstUse {
    plan: FirstUsePlan,
}

impl FirstUse {
    /// Of this plan.
    pub fn new(plan: FirstUsePlan) -> Self {
        leftovers::adopt();
        Self { plan }
    }
}

impl Workload for FirstUse {
    type Error = ImagesError;

    fn name(&self) -> &'static str {
        "image"
    }

    fn subjects(&self) -> Vec<String> {
        self.plan.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    fn other_work(&self, subject: &str) -> Option<String> {
        self.plan.subjects.iter().find(|it| it.name == subject)?.other_work.clone()
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, ImagesError> {
        let figures = measure_once(&self.plan, &self.plan.subjects[subject])?;
        let figure = |(metric, nanoseconds)| Figure::new(metric, "ms", nanoseconds as f64 / 1e6);
        Ok(figures.map(figure).into())
    }
}

fn measure_once(
    plan: &FirstUsePlan,
    subject: &Level,
) -> Result<[(&'static str, u64); 3], ImagesError> {
    let store = tempfile::tempdir().map_err(|source| ImagesError::Host {
        action: "make a store",
        subject: subject.name.clone(),
        source,
    })?;
    let isolab = || {
        let mut command = Command::new(&plan.program);
        command.env("XDG_DATA_HOME", store.path());
        command
    };
    let start = timeline::now();
    let mut load = isolab();
    load.args(["image", "load", "--tag", NAME]).arg(&plan.archive);
    run(&mut load, &subject.name)?;
    let loaded = timeline::now();
    let run = || {
        let mut command = isolab();
        command
            .args(["run", "--pull", "never", "--isolation", subject.level.name()])
            .args(&plan.options)
            .args(subject.options())
            .arg(NAME)
            .args(&plan.command);
        let observed = startup::observe(&mut command, &subject.name);
        leftovers::wait();
        observed
    };
    let first = run()?;
    let cached = run()?;
    Ok([
        (LOAD, loaded - start),
        (FIRST_USE, first.first_output - start),
        (CACHED, cached.first_output - cached.spawned),
    ])
}
