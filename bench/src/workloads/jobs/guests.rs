//! Jobs in the guests of several bare machines: the part of `bench disk` and `bench net` that has no levels.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::{Costs, INTERRUPTS, Job, figures};
use crate::machines::MachinesError;
use crate::machines::conversation::{self, Answer, Conversation};
use crate::runner::{Figure, Workload};
use crate::subjects::MachineSubject;
use crate::subjects::Peer;
use crate::subjects::machine::{Boot, Device, Machine};

/// A machine that takes part.
pub struct Contender {
    /// The machine that takes part.
    pub subject: MachineSubject,
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
    /// How long each job runs, where it is not a fixed amount of work.
    pub time: Option<Duration>,
    /// An uncompressed vmlinux.
    pub kernel: PathBuf,
    /// Guest RAM in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// vCPUs of each guest.
    pub cpus: u32,
    /// See [`Boot::poll`].
    pub poll: Option<u16>,
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
    pub fn subjects(
        &self,
        candidates: &[(&'static str, &'static Machine)],
    ) -> (Vec<MachineSubject>, Vec<String>) {
        let wanted = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let (mut subjects, mut notes) = (Vec::new(), Vec::new());
        for &(name, machine) in candidates.iter().filter(|(name, _)| wanted(name)) {
            let peer = machine.peer.map(|name| self.peers.iter().find(|it| it.name() == name));
            match peer {
                None => subjects.push(MachineSubject::own(name, machine, &self.program)),
                Some(None) => {}
                Some(Some(peer)) => match MachineSubject::peer(name, machine, *peer, None) {
                    Ok(subject) => subjects.push(subject),
                    Err(why) => notes.push(format!("{name} is left out: {why}")),
                },
            }
        }
        for peer in &self.peers {
            if !candidates.iter().any(|(_, machine)| machine.peer == Some(peer.name())) {
                notes.push(format!("{peer} is left out: its devices are not measured yet"));
            }
        }
        (subjects, notes)
    }

    /// Makes the guests' files.
    ///
    /// # Errors
    /// A program is not installed or cannot be read.
    pub fn workspace(&self, programs: &[PathBuf]) -> Result<Workspace, MachinesError> {
        let failed = |source| MachinesError::Host {
            action: "write",
            subject: "the guests' initramfs",
            source,
        };
        let initramfs = conversation::initramfs(programs)?;
        let folder = tempfile::tempdir().map_err(failed)?;
        std::fs::write(folder.path().join(INITRAMFS), initramfs).map_err(failed)?;
        let Self { memory, cpus, poll, .. } = *self;
        Ok(Workspace { kernel: self.kernel.clone(), memory, cpus, poll, folder })
    }
}

const INITRAMFS: &str = "initramfs.cpio";

/// The guests' files, which go with it.
pub struct Workspace {
    kernel: PathBuf,
    memory: u64,
    cpus: u32,
    poll: Option<u16>,
    folder: TempDir,
}

impl Workspace {
    /// What a guest with this device boots.
    pub fn boot(&self, device: Device) -> Boot {
        Boot {
            kernel: self.kernel.clone(),
            bzimage: None,
            initrd: self.folder.path().join(INITRAMFS),
            memory: self.memory,
            cpus: self.cpus,
            scratch: self.folder.path().to_owned(),
            device: Some(device),
            poll: self.poll,
        }
    }
}

/// Jobs in guests: every job in a guest of its own of one contender, once a turn.
pub struct GuestJobs {
    /// The benchmark.
    pub name: &'static str,
    /// Who takes part.
    pub contenders: Vec<Contender>,
    /// Runs first in each guest and is not counted.
    pub warm_up: String,
    /// What is done.
    pub jobs: Vec<Job>,
    /// Whom a subject's ratio is to.
    pub rival: fn(&str) -> Option<&'static str>,
    /// What the guests use, and what goes with this.
    pub keeps: Box<dyn Any>,
}

impl GuestJobs {
    /// Leaves out what `setup` does not want.
    pub fn only(mut self, setup: &Setup) -> Self {
        let wanted = |job: &Job| setup.jobs.is_empty() || setup.jobs.contains(&job.name);
        self.jobs.retain(wanted);
        self
    }
}

impl Workload for GuestJobs {
    type Error = MachinesError;

    fn name(&self) -> &'static str {
        self.name
    }

    fn subjects(&self) -> Vec<String> {
        self.contenders.iter().map(|it| it.subject.name.to_owned()).collect()
    }

    fn baseline(&self, subject: &str) -> Option<String> {
        let rival = (self.rival)(subject)?;
        self.contenders.iter().any(|it| it.subject.name == rival).then(|| rival.to_owned())
    }

    fn warms_itself(&self) -> bool {
        true
    }

    fn limit(&self) -> Option<Duration> {
        None
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, MachinesError> {
        let contender = &self.contenders[subject];
        let mut found = Vec::new();
        let mut guest = Conversation::start(&contender.subject, &contender.boot)?;
        let longest = self.jobs.iter().map(|job| job.limit).max().unwrap_or_default();
        guest.command(&command(&self.warm_up, contender), longest)?;
        let mut idle: BTreeMap<&str, Costs> = BTreeMap::new();
        for job in &self.jobs {
            if !idle.contains_key(job.idle.as_str()) {
                let answer = guest.command(&command(&job.idle, contender), job.limit)?;
                idle.insert(&job.idle, costs(&answer));
            }
            let command = command(&job.command, contender);
            let answer = guest.command(&command, job.limit)?;
            let subject = contender.subject.name;
            let done = (job.parse)(&answer.output).map_err(|fault| MachinesError::Job {
                subject,
                command,
                fault,
            })?;
            found.extend(figures(job, done, &costs(&answer).without(&idle[job.idle.as_str()])));
        }
        guest.end()?;
        Ok(found)
    }
}

fn command(command: &str, contender: &Contender) -> String {
    command.replace("$DISK", contender.disk)
}

fn costs(answer: &Answer) -> Costs {
    let mut costs = Costs::default();
    costs.add(answer.counted.iter().copied());
    costs.add([(INTERRUPTS, answer.interrupts as f64)]);
    answer.exits.into_iter().for_each(|exits| costs.add_exits(exits));
    costs
}
