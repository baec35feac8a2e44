//! `isolab bench startup`: from spawning `isolab run` to the workload's first output line and to
//! the end, and where the time went.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};

use isolab_isolation::timeline::{self, Milestone, Milestones};

use crate::leftovers::{self, Cost};
pub use crate::metrics::{PHASES, TO_FIRST_OUTPUT};
use crate::runner::{Figure, Workload};
use crate::subjects::Level;

/// From spawn to the end of the `isolab run` process.
pub const TO_EXIT: &str = "to_exit";
/// From spawn until nothing of the run is left: what its end leaves to others, such as taking a VM
/// apart, is done.
pub const TO_GONE: &str = "to_gone";
/// From spawn to the start of the guest's init.
pub const TO_GUEST_INIT: &str = "to_guest_init";

/// Which levels are measured, and running what.
pub struct StartupPlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// In the order of each round.
    pub subjects: Vec<Level>,
    /// Options for every `isolab run`, for example `--memory 128M`.
    pub options: Vec<OsString>,
    /// The image's name in the store.
    pub image: String,
    /// The command, which prints at least one line and exits with 0.
    pub command: Vec<OsString>,
    /// Whether the host's caches of files are dropped before each start.
    pub cold: bool,
}

/// Why a measurement cannot go on: half a comparison is none.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// `isolab run` could not be started or watched.
    #[error("cannot {action} `isolab run` as {subject}")]
    Host {
        /// What was attempted: a verb, for example `start`.
        action: &'static str,
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The workload ended, but not with success.
    #[error("the workload ended with {status} as {subject}; it said: {stderr}")]
    Workload {
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// Its exit status, which is not success.
        status: ExitStatus,
        /// Its and isolab's last words.
        stderr: String,
    },
    /// The workload printed nothing.
    #[error("the workload printed no line as {0}, so there is no first output to wait for")]
    Silent(String),
}

/// `isolab run` to its end, once a turn.
pub struct Startup {
    plan: StartupPlan,
}

impl Startup {
    /// Of this plan. From now on, processes that lose their parent become this one's.
    pub fn new(plan: StartupPlan) -> Self {
        leftovers::adopt();
        Self { plan }
    }
}

impl Workload for Startup {
    type Error = StartupError;

    fn name(&self) -> &'static str {
        if self.plan.cold { "startup_cold" } else { "startup" }
    }

    fn subjects(&self) -> Vec<String> {
        self.plan.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    fn other_work(&self, subject: &str) -> Option<String> {
        self.plan.subjects.iter().find(|it| it.name == subject)?.other_work.clone()
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, StartupError> {
        run_once(&self.plan, &self.plan.subjects[subject])
    }
}

fn run_once(plan: &StartupPlan, subject: &Level) -> Result<Vec<Figure>, StartupError> {
    let host =
        |action| move |source| StartupError::Host { action, subject: subject.name.clone(), source };
    if plan.cold {
        drop_caches().map_err(host("drop the host's caches (which takes root) for"))?;
    }
    let timings = tempfile::NamedTempFile::new().map_err(host("keep the timings of"))?;
    let mut command = Command::new(&plan.program);
    command
        .args(["run", "--isolation", subject.level.name(), "--timings"])
        .arg(timings.path())
        .args(&plan.options)
        .args(subject.options())
        .arg(&plan.image)
        .args(&plan.command);
    let before = Cost::of_children().map_err(host("ask for the cost of"))?;
    let observed = observe(&mut command, &subject.name)?;
    let gone = leftovers::wait();
    // All of it has been waited for now, whoever its parent was.
    let cost = Cost::of_children().map_err(host("ask for the cost of"))?.since(before);
    let milestones = Milestones::load(timings.path()).map_err(host("read the timings of"))?;
    let mut found = figures(&observed, gone, &milestones);
    // What did not end is not in it.
    found.extend(gone.map(|_| cost.figures()).into_iter().flatten());
    Ok(found)
}

/// Documentation/admin-guide/sysctl/vm.rst, "drop_caches": pages of files, names and inodes. What is not written yet stays.
fn drop_caches() -> io::Result<()> {
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3")
}

/// When a run did what, in nanoseconds of CLOCK_MONOTONIC.
pub(crate) struct Observed {
    pub(crate) spawned: u64,
    pub(crate) first_output: u64,
    pub(crate) exited: u64,
}

/// Runs `command`, an `isolab run`, to its end, which has to be a good one.
pub(crate) fn observe(command: &mut Command, subject: &str) -> Result<Observed, StartupError> {
    let name = || subject.to_owned();
    let host = |action| move |source| StartupError::Host { action, subject: name(), source };
    let stderr = tempfile::NamedTempFile::new().map_err(host("keep the messages of"))?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr.reopen().map_err(host("keep the messages of"))?);

    leftovers::rest();
    let spawned = timeline::now();
    let mut child = command.spawn().map_err(host("start"))?;
    let mut line = Vec::new();
    let mut first_output = None;
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        stdout.read_until(b'\n', &mut line).map_err(host("read the output of"))?;
        first_output = (!line.is_empty()).then(timeline::now);
        io::copy(&mut stdout, &mut io::sink()).map_err(host("read the output of"))?;
    }
    let status = child.wait().map_err(host("wait for"))?;
    let exited = timeline::now();
    if !status.success() {
        let stderr = std::fs::read_to_string(stderr.path()).unwrap_or_default();
        return Err(StartupError::Workload { subject: name(), status, stderr });
    }
    let first_output = first_output.ok_or_else(|| StartupError::Silent(name()))?;
    Ok(Observed { spawned, first_output, exited })
}

/// Takes one run apart. A milestone that a level does not have leaves its metrics out.
fn figures(observed: &Observed, gone: Option<u64>, milestones: &Milestones) -> Vec<Figure> {
    let &Observed { spawned, first_output, exited } = observed;
    let entered = milestones.at(Milestone::GuestEntered);
    let init = milestones.at(Milestone::GuestInit);
    let workload = milestones.at(Milestone::WorkloadStarted);
    let span = |metric, from: Option<u64>, to: Option<u64>| {
        let nanoseconds = to? as f64 - from? as f64;
        Some(Figure::new(metric, "ms", nanoseconds / 1e6))
    };
    [
        span(TO_FIRST_OUTPUT, Some(spawned), Some(first_output)),
        span(TO_EXIT, Some(spawned), Some(exited)),
        span(TO_GONE, Some(spawned), gone),
        span(TO_GUEST_INIT, Some(spawned), init),
        span(PHASES[0], Some(spawned), entered.or(workload)),
        span(PHASES[1], entered, init),
        span(PHASES[2], init, workload),
        span(PHASES[3], workload, Some(first_output)),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_phases_add_up_to_the_first_output() {
        let mut milestones = Milestones::default();
        for (milestone, time) in [
            (Milestone::CommandStarted, 1_500_000),
            (Milestone::GuestEntered, 3_000_000),
            (Milestone::GuestInit, 8_000_000),
            (Milestone::WorkloadStarted, 9_000_000),
        ] {
            milestones.reach(milestone, time);
        }
        let observed =
            Observed { spawned: 1_000_000, first_output: 11_000_000, exited: 15_000_000 };
        let figures = figures(&observed, Some(18_000_000), &milestones).into_iter();
        let figures: BTreeMap<_, _> =
            figures.map(|it| (it.metric.into_owned(), it.value)).collect();
        assert_eq!(figures[TO_FIRST_OUTPUT], 10.0);
        assert_eq!(figures[TO_EXIT], 14.0);
        assert_eq!(figures[TO_GONE], 17.0);
        assert_eq!(figures[TO_GUEST_INIT], 7.0);
        let phases: f64 = PHASES.iter().map(|phase| figures[*phase]).sum();
        assert_eq!(phases, figures[TO_FIRST_OUTPUT]);
    }

    #[test]
    fn a_level_without_a_guest_has_no_guest_phases() {
        let mut milestones = Milestones::default();
        milestones.reach(Milestone::WorkloadStarted, 2_000_000);
        let observed = Observed { spawned: 0, first_output: 3_000_000, exited: 4_000_000 };
        let metrics: Vec<_> =
            figures(&observed, None, &milestones).into_iter().map(|it| it.metric).collect();
        assert_eq!(metrics, [TO_FIRST_OUTPUT, TO_EXIT, "setup", "workload"]);
    }
}
