//! How many instances a host holds: the time that each further one takes to start, and the memory of all.
//!
//! A turn starts so many instances of one level beside each other, each of which says a line and then waits for the end of its
//! input. Memory is the proportional set size of all processes of theirs (proc_pid_smaps(5)): a page that ten of them share is
//! a tenth of each one's. What the kernel keeps for them elsewhere (page tables, cgroups, KVM's own) is not in it.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use isolab_isolation::timeline;
use procfs::ProcError;
use procfs::process::Process;

use crate::metrics::STARTS;
use crate::runner::{Figure, Workload};
use crate::subjects::Level;
use crate::{family, leftovers};

/// The mean of the proportional set size.
pub const MEMORY_EACH: &str = "memory_each";
/// How many of these fit into a GiB.
pub const PER_GIB: &str = "instances_per_gib";

/// What each of them runs: a line, and then nothing until its input ends.
const COMMAND: [&str; 3] = ["sh", "-c", "echo ready; exec cat"];

/// How many instances of which levels.
pub struct DensityPlan {
    /// The `isolab` to run.
    pub program: PathBuf,
    /// In the order of each round.
    pub subjects: Vec<Level>,
    /// Instances beside each other, at least one.
    pub instances: u32,
    /// Options for every `isolab run`, for example `--memory 128M`.
    pub options: Vec<OsString>,
    /// The image's name in the store; it has a shell.
    pub image: String,
}

/// Why there are no figures of a level.
#[derive(Debug, thiserror::Error)]
pub enum DensityError {
    /// A process of ours.
    #[error("cannot {action} instance {number} of {subject}")]
    Host {
        /// What was attempted: a verb.
        action: &'static str,
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// Which of its instances, counted from 1.
        number: u32,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An instance ended, or not well.
    #[error("instance {number} of {subject} ended with {status}; it said: {said}")]
    Instance {
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// Which of its instances, counted from 1.
        number: u32,
        /// Its exit status.
        status: ExitStatus,
        /// Its and isolab's last words.
        said: String,
    },
    /// The memory of processes.
    #[error("cannot read the memory of {subject}'s processes")]
    Memory {
        /// The subject whose turn it was, as the tables call it.
        subject: String,
        /// What procfs says.
        source: ProcError,
    },
}

/// Instances beside each other, once a turn.
pub struct Density {
    plan: DensityPlan,
}

impl Density {
    /// Of this plan. From now on, processes that lose their parent become this one's.
    pub fn new(plan: DensityPlan) -> Self {
        leftovers::adopt();
        Self { plan }
    }
}

impl Workload for Density {
    type Error = DensityError;

    fn name(&self) -> &'static str {
        "density"
    }

    fn subjects(&self) -> Vec<String> {
        self.plan.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    fn other_work(&self, subject: &str) -> Option<String> {
        self.plan.subjects.iter().find(|it| it.name == subject)?.other_work.clone()
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, DensityError> {
        let subject = &self.plan.subjects[subject];
        let (mut running, mut figures) = (Vec::new(), Vec::new());
        for number in 1..=self.plan.instances {
            let (instance, milliseconds) = Instance::start(&self.plan, subject, number)?;
            running.push(instance);
            let told = STARTS.iter().find(|(place, _)| *place == number);
            figures.extend(told.map(|(_, metric)| Figure::new(metric, "ms", milliseconds)));
        }
        let roots: Vec<u32> = running.iter().map(|instance| instance.child.id()).collect();
        let bytes = memory(&roots)
            .map_err(|source| DensityError::Memory { subject: subject.name.clone(), source })?;
        let each = bytes as f64 / f64::from(self.plan.instances);
        figures.push(Figure::new(MEMORY_EACH, "KiB", each / 1024.0));
        figures.push(Figure::new(PER_GIB, "count", f64::from(1 << 30) / each));
        for (number, instance) in (1..).zip(running) {
            instance.end(subject, number)?;
        }
        leftovers::wait();
        Ok(figures)
    }
}

/// One that runs. Killed when dropped.
struct Instance {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Kept: an instance whose output nobody can read any more is ended by SIGPIPE.
    stdout: Option<BufReader<ChildStdout>>,
    messages: tempfile::NamedTempFile,
}

impl Instance {
    /// Starts one, and waits for its line: the milliseconds until then.
    fn start(
        plan: &DensityPlan,
        subject: &Level,
        number: u32,
    ) -> Result<(Self, f64), DensityError> {
        let host = |action| {
            let subject = subject.name.clone();
            move |source| DensityError::Host { action, subject, number, source }
        };
        let messages = tempfile::NamedTempFile::new().map_err(host("keep the messages of"))?;
        let stderr = messages.reopen().map_err(host("keep the messages of"))?;
        let mut command = Command::new(&plan.program);
        command.args(["run", "-i", "--isolation", subject.level.name()]);
        command.args(&plan.options).args(subject.options()).arg(&plan.image).args(COMMAND);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let spawned = timeline::now();
        let mut child = command.spawn().map_err(host("start"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        let mut instance = Self { child, stdin, stdout, messages };
        let mut line = Vec::new();
        if let Some(stdout) = &mut instance.stdout {
            stdout.read_until(b'\n', &mut line).map_err(host("read the line of"))?;
        }
        let milliseconds = (timeline::now() - spawned) as f64 / 1e6;
        match line.is_empty() {
            false => Ok((instance, milliseconds)),
            true => Err(match instance.child.wait() {
                Ok(status) => instance.ended(subject, number, status),
                Err(source) => host("wait for")(source),
            }),
        }
    }

    /// Ends its input, and waits for its end, which has to be a good one.
    fn end(mut self, subject: &Level, number: u32) -> Result<(), DensityError> {
        drop(self.stdin.take());
        let status = self.child.wait().map_err(|source| DensityError::Host {
            action: "wait for",
            subject: subject.name.clone(),
            number,
            source,
        })?;
        if status.success() { Ok(()) } else { Err(self.ended(subject, number, status)) }
    }

    fn ended(&self, subject: &Level, number: u32, status: ExitStatus) -> DensityError {
        let said = std::fs::read_to_string(self.messages.path()).unwrap_or_default();
        DensityError::Instance { subject: subject.name.clone(), number, status, said }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Both fail when it has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The proportional set size, in bytes, of the processes `roots` and all their descendants.
fn memory(roots: &[u32]) -> Result<u64, ProcError> {
    let roots: Vec<i32> = roots.iter().map(|root| root.cast_signed()).collect();
    let family = family::of(&roots, &[])?;
    let mut bytes = 0;
    for pid in family {
        let maps = match Process::new(pid).and_then(|process| process.smaps_rollup()) {
            Ok(maps) => maps.memory_map_rollup,
            // Who has ended since, waited for or not, has no memory. An instance that has is found out at its end.
            Err(ProcError::NotFound(_)) => continue,
            Err(error) => return Err(error),
        };
        bytes += maps.iter().filter_map(|map| map.extension.map.get("Pss")).sum::<u64>();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_a_family_is_that_of_all_of_it() {
        let mut shell = Command::new("sh")
            .args(["-c", "cat; exit"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The shell has its child when that echoes.
        let mut stdin = shell.stdin.take().unwrap();
        io::Write::write_all(&mut stdin, b"x\n").unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let both = memory(&[shell.id()]).unwrap();
        let pages = Process::new(shell.id().cast_signed()).unwrap().smaps_rollup().unwrap();
        let alone = pages.memory_map_rollup.iter().filter_map(|map| map.extension.map.get("Pss"));
        let alone: u64 = alone.sum();
        drop(stdin);
        shell.wait().unwrap();
        assert!(
            alone > 0 && both > alone,
            "{both} of the shell and its child, {alone} of the shell"
        );
    }
}
