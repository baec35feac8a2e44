//! From an archive and an empty store to the workload's first line, at each level; and again from
//! the same store, which then has the unpacked layers and the disk.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use isolab_isolation::timeline;

use super::{ImagesError, run};
use crate::report::Measurement;
use crate::startup::{self, Subject};
use crate::{leftovers, rounds};

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
    pub subjects: Vec<Subject>,
    /// Counted rounds.
    pub runs: u32,
    /// Options for every `isolab run`.
    pub options: Vec<OsString>,
    /// An archive or layout with one image.
    pub archive: PathBuf,
    /// The command, which prints at least one line and exits with 0.
    pub command: Vec<OsString>,
}

/// The image's name in the stores of the measurement.
const NAME: &str = "localhost/bench:latest";

/// Runs the plan; every turn has a store of its own. `progress` hears of every round.
///
/// # Errors
/// [`ImagesError`] at the first run that fails.
pub fn measure(
    plan: &FirstUsePlan,
    progress: impl FnMut(u32),
) -> Result<Vec<Measurement>, ImagesError> {
    leftovers::adopt();
    let turn = |subject: &Subject, _round| {
        let figures = measure_once(plan, subject)?;
        Ok::<_, ImagesError>(
            figures.map(|(metric, nanoseconds)| (metric, "ms", nanoseconds as f64 / 1e6)),
        )
    };
    rounds::measure(plan.runs, &plan.subjects, |subject| &subject.name, progress, turn)
}

fn measure_once(
    plan: &FirstUsePlan,
    subject: &Subject,
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
            .args(&subject.options)
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
