//! `isolab bench startup --peers`: the bare machine beside other VMMs, all with one kernel, one
//! initramfs, the same RAM and vCPUs.
//!
//! No VMM's own marks are used, so that all are measured alike: time runs from the spawn of the
//! VMM to the line that the guest's init writes to the serial console, and to the end of the VMM.
//! Memory and exits come from a second guest, whose init stays after that line.

mod guest;
mod observe;
mod peers;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use isolab_isolation::timeline;

use self::guest::{Afterwards, INIT_LINE};
use self::peers::{Boot, Subject};
pub use self::peers::{OWN, Peer};
use crate::report::Measurement;
use crate::startup::{TO_EXIT, TO_GUEST_INIT};
use crate::summary::Summary;

/// What is resident in the VMM beyond guest RAM when the guest has come up and is idle.
pub const MEMORY_OVERHEAD: &str = "memory_overhead";
/// How often the guest left for the host's kernel until its init ran, by KVM's own count.
pub const EXITS: &str = "exits";

/// From the guest's init to the look at the VMM's memory: what it keeps, not what its start took.
const SETTLING: Duration = Duration::from_secs(1);

/// Far longer than any start; a guest that has not come up by then will not.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What to measure.
pub struct Plan {
    /// The `isolab` whose `vm run` is the subject `vmm`.
    pub program: PathBuf,
    /// Others; those that are not installed are left out.
    pub peers: Vec<Peer>,
    /// Counted rounds.
    pub runs: u32,
    /// An uncompressed vmlinux.
    pub kernel: PathBuf,
    /// The same kernel as a bzImage, for VMMs that take no vmlinux.
    pub bzimage: Option<PathBuf>,
    /// Guest RAM in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
}

/// What was measured, and what was not.
pub struct Outcome {
    /// By subject and metric.
    pub results: Vec<Measurement>,
    /// One sentence for each thing that was left out.
    pub notes: Vec<String>,
}

/// Why a measurement cannot go on: half a comparison is none.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    /// A file or a process.
    #[error("cannot {action} {subject}: {source}")]
    Host {
        /// What was attempted.
        action: &'static str,
        /// On which subject.
        subject: &'static str,
        /// The host's answer.
        source: io::Error,
    },
    /// No init line.
    #[error("the guest of {subject} did not reach its init ({how}); console and messages: {said}")]
    NotUp {
        /// Which subject.
        subject: &'static str,
        /// How it ended, or that it did not.
        how: String,
        /// Its console and messages.
        said: String,
    },
    /// The init line, and then a failure or no end.
    #[error("{subject} did not end well after its guest's init ({how}); messages: {said}")]
    NotDown {
        /// Which subject.
        subject: &'static str,
        /// How it ended, or that it did not.
        how: String,
        /// Its messages.
        said: String,
    },
    /// Sizes of mappings contradict the plan.
    #[error(
        "no mapping of {subject} is as large as the guest's RAM, so what is beyond it is unknown"
    )]
    NoRam {
        /// Which subject.
        subject: &'static str,
    },
}

/// Runs the plan: one uncounted round, then the counted ones, subjects interleaved. `progress`
/// hears of every round.
///
/// # Errors
/// [`MachinesError`] at the first run that fails.
pub fn measure(plan: &Plan, mut progress: impl FnMut(u32)) -> Result<Outcome, MachinesError> {
    let own = "the guest's files of";
    let host = |source| MachinesError::Host { action: "write", subject: own, source };
    let folder = tempfile::tempdir().map_err(host)?;
    let [ending, staying] = [Afterwards::End, Afterwards::Stay].map(|afterwards| {
        let path = folder.path().join(afterwards.file_name());
        std::fs::write(&path, guest::initramfs(afterwards)?).map(|()| path)
    });
    let (ending, staying) = (ending.map_err(host)?, staying.map_err(host)?);

    let mut notes = Vec::new();
    let mut subjects = vec![Subject::own(&plan.program)];
    for &peer in &plan.peers {
        match Subject::peer(peer, plan.bzimage.as_deref()) {
            Ok(subject) => subjects.push(subject),
            Err(why) => notes.push(format!("{peer} is left out: {why}")),
        }
    }
    let boot = |initrd: &Path| Boot {
        kernel: plan.kernel.clone(),
        bzimage: plan.bzimage.clone(),
        initrd: initrd.to_owned(),
        memory: plan.memory,
        cpus: plan.cpus,
        scratch: folder.path().to_owned(),
    };
    let (ending, staying) = (boot(&ending), boot(&staying));

    let mut samples: BTreeMap<(usize, &str), Vec<f64>> = BTreeMap::new();
    for round in 0..=plan.runs {
        progress(round);
        for (position, subject) in subjects.iter().enumerate() {
            let times = time(subject, &ending)?;
            if round == 0 {
                continue;
            }
            let seen = observe(subject, &staying)?;
            for (metric, value) in times.into_iter().chain(seen) {
                samples.entry((position, metric)).or_default().push(value);
            }
        }
    }
    if !samples.keys().any(|(_, metric)| *metric == EXITS) {
        notes.push(format!("exits are left out: {}", observe::EXITS_NEED));
    }
    let measurement = |((position, metric), samples): ((usize, &str), _)| {
        Some(Measurement {
            subject: subjects[position].name.to_owned(),
            metric: metric.to_owned(),
            unit: unit_of(metric),
            summary: Summary::of(samples)?,
        })
    };
    Ok(Outcome { results: samples.into_iter().filter_map(measurement).collect(), notes })
}

fn unit_of(metric: &str) -> &'static str {
    match metric {
        MEMORY_OVERHEAD => "KiB",
        EXITS => "count",
        _ => "ms",
    }
}

fn time(subject: &Subject, boot: &Boot) -> Result<Vec<(&'static str, f64)>, MachinesError> {
    let spawned = timeline::now();
    let mut run = Run::start(subject, boot)?;
    let init = run.wait_for_init()?;
    run.wait_for_end()?;
    let exited = timeline::now();
    let milliseconds = |until: u64| (until as f64 - spawned as f64) / 1e6;
    Ok(vec![(TO_GUEST_INIT, milliseconds(init)), (TO_EXIT, milliseconds(exited))])
}

fn observe(subject: &Subject, boot: &Boot) -> Result<Vec<(&'static str, f64)>, MachinesError> {
    let before = observe::Before::now();
    let mut run = Run::start(subject, boot)?;
    run.wait_for_init()?;
    let exits = before.exits();
    thread::sleep(SETTLING);
    let pid = run.child.id();
    let beyond = observe::memory_beyond(pid, boot.memory).map_err(|error| MachinesError::Host {
        action: "read the mappings of",
        subject: subject.name,
        source: error,
    })?;
    let beyond = beyond.ok_or(MachinesError::NoRam { subject: subject.name })?;
    let memory = (MEMORY_OVERHEAD, beyond as f64 / 1024.0);
    Ok([memory].into_iter().chain(exits.map(|count| (EXITS, count as f64))).collect())
}

/// A VMM that runs. Killed when dropped.
struct Run {
    child: Child,
    subject: &'static str,
    /// The console's lines, each with the time it came.
    lines: mpsc::Receiver<(u64, String)>,
    console: String,
    messages: tempfile::NamedTempFile,
    deadline: Instant,
}

impl Run {
    fn start(subject: &Subject, boot: &Boot) -> Result<Self, MachinesError> {
        let name = subject.name;
        let host = |action| move |source| MachinesError::Host { action, subject: name, source };
        let messages = tempfile::NamedTempFile::new().map_err(host("keep the messages of"))?;
        let mut command = subject.command(boot).map_err(host("configure"))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(messages.reopen().map_err(host("keep the messages of"))?);
        let mut child = command.spawn().map_err(host("start"))?;
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = Vec::new();
                while stdout.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                    let text = String::from_utf8_lossy(&line).into_owned();
                    if sender.send((timeline::now(), text)).is_err() {
                        break;
                    }
                    line.clear();
                }
            });
        }
        let deadline = Instant::now() + TIME_LIMIT;
        Ok(Self { child, subject: name, lines, console: String::new(), messages, deadline })
    }

    /// When the guest's init wrote its line.
    fn wait_for_init(&mut self) -> Result<u64, MachinesError> {
        loop {
            match self.next_line() {
                Ok((time, line)) if line.contains(INIT_LINE) => return Ok(time),
                Ok((_, line)) => self.console.push_str(&line),
                Err(error) => {
                    let how = self.how_it_ended(error);
                    let said = self.console.clone() + &self.messages();
                    return Err(MachinesError::NotUp { subject: self.subject, how, said });
                }
            }
        }
    }

    fn wait_for_end(&mut self) -> Result<(), MachinesError> {
        let error = loop {
            match self.next_line() {
                Ok((_, line)) => self.console.push_str(&line),
                Err(error) => break error,
            }
        };
        let status = match error {
            RecvTimeoutError::Disconnected => self.child.wait().ok(),
            RecvTimeoutError::Timeout => None,
        };
        if status.as_ref().is_some_and(ExitStatus::success) {
            return Ok(());
        }
        let how = status.map_or_else(|| self.how_it_ended(error), |status| status.to_string());
        Err(MachinesError::NotDown { subject: self.subject, how, said: self.messages() })
    }

    fn next_line(&self) -> Result<(u64, String), RecvTimeoutError> {
        self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now()))
    }

    fn how_it_ended(&mut self, error: RecvTimeoutError) -> String {
        if error == RecvTimeoutError::Timeout {
            return format!("it was still running after {} s", TIME_LIMIT.as_secs());
        }
        self.child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
    }

    fn messages(&self) -> String {
        std::fs::read_to_string(self.messages.path()).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Both fail when it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
