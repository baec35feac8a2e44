//! From an archive and an empty store to the workload's first line, at each level; and again from
//! the same store, which then has the unpacked layers and the disk.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use isolab_isolation::timeline;

use super::{ImagesError, run};
use crate::leftovers;
use crate::report::Measurement;
use crate::startup::{self, Subject};
use crate::summary::Summary;

/// `isolab image load` into an empty store.
pub const LOAD: &str = "load";
/// From spawning that `isolab image load` to the first line of output of `isolab run`.
pub const FIRST_USE: &str = "load_to_first_output";
/// From spawning `isolab run` once more to its first line of output.
pub const CACHED: &str = "cached_to_first_output";

/// What to measure.
pub struct Plan {
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

/// Runs the plan, as [`startup::measure`] does: one uncounted round, then the counted ones, the
/// subjects interleaved. Every sample has a store of its own.
///
/// # Errors
/// [`ImagesError`] at the first run that fails.
pub fn measure(
    plan: &Plan,
    mut progress: impl FnMut(u32),
) -> Result<Vec<Measurement>, ImagesError> {
    leftovers::adopt();
    let mut samples: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for round in 0..=plan.runs {
        progress(round);
        for (position, subject) in plan.subjects.iter().enumerate() {
            let figures = measure_once(plan, subject)?;
            if round == 0 {
                continue;
            }
            for (metric, nanoseconds) in figures {
                samples.entry((position, metric)).or_default().push(nanoseconds as f64 / 1e6);
            }
        }
    }
    let measurement = |((position, metric), samples): ((usize, &str), Vec<f64>)| {
        Some(Measurement {
            subject: plan.subjects[position].name.clone(),
            metric: metric.to_owned(),
            unit: "ms".to_owned(),
            summary: Summary::of(samples)?,
        })
    };
    Ok(samples.into_iter().filter_map(measurement).collect())
}

fn measure_once(plan: &Plan, subject: &Subject) -> Result<[(&'static str, u64); 3], ImagesError> {
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
