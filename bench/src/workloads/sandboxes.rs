//! `isolab bench startup --peers kata`: a container that has a machine of its own, ours by `isolab run --isolation paravirt`, others'
//! by `ctr run` with their shim of containerd's: the same image, command and guest RAM, and no network. Our store and containerd
//! are the measurement's own. The daemon runs already, as it does where people use it; what it does for a container counts.

use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use isolab_guest::programs;

use super::containerd::{self, Containerd, ContainerdError};
use super::jobs::instances::{InstancesError, store_of, succeed, what_is_counted};
use super::own_store::{IMAGE, OwnStore};
use super::startup::{StartupError, TO_EXIT, TO_FIRST_OUTPUT, TO_GONE, observe};
use crate::leftovers::{self, Cost};
use crate::meter::{Counted, Meter, MeterError, Whose};
use crate::runner::{Figure, TURN_LIMIT, Workload, limit};
use crate::subjects::Peer;
use crate::subjects::peers::Shim;

/// Our subject's name in reports.
pub const OWN: &str = "isolab run (paravirt)";
/// A line, from a shell that the image has.
const COMMAND: [&str; 3] = ["sh", "-c", "echo ready"];
/// The guest's kernel, which the figures are of as much as of who starts it.
const ASK_THE_KERNEL: [&str; 3] = ["busybox", "cat", "/proc/version"];

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum SandboxesError {
    /// The image.
    #[error(transparent)]
    Image(#[from] InstancesError),
    /// A run.
    #[error(transparent)]
    Run(#[from] StartupError),
    /// A shim without its daemon.
    #[error(transparent)]
    Containerd(#[from] ContainerdError),
    /// What a run costs.
    #[error("cannot tell what a container of {subject} costs")]
    Meter {
        /// As the tables call it.
        subject: String,
        /// What is not counted.
        source: MeterError,
    },
    /// As above.
    #[error("cannot ask what this thread has cost")]
    Host(#[source] std::io::Error),
}

/// What is measured.
pub struct SandboxesPlan {
    /// The `isolab` that takes part.
    pub program: PathBuf,
    /// Whose shims take part; those that are not installed, or cannot run the image here, are left out.
    pub peers: Vec<Peer>,
    /// RAM of each guest, in bytes, a multiple of 1 MiB.
    pub memory: u64,
    /// The kernel of our guests; none: the default.
    pub kernel: Option<String>,
}

/// A container to its end, once a turn.
pub struct Sandboxes {
    plan: SandboxesPlan,
    // Before the store, whose image is in it.
    containerd: Option<Containerd>,
    own: Rc<OwnStore>,
    subjects: Vec<Subject>,
    /// Whether this host's kernel counts what work costs.
    is_counted: bool,
}

struct Subject {
    name: String,
    /// None: ours.
    shim: Option<&'static Shim>,
    /// Another kernel.
    other_work: Option<String>,
}

impl Sandboxes {
    /// Of this plan, and a note for each peer that is left out.
    ///
    /// # Errors
    /// The image cannot be made, or our own container does not run.
    pub fn new(plan: SandboxesPlan) -> Result<(Self, Vec<String>), SandboxesError> {
        leftovers::adopt();
        let shell = programs::find("busybox", "busybox-static").map_err(InstancesError::from)?;
        let own = store_of(&plan.program, &[shell])?;
        let (counted, mut notes) = what_is_counted();
        let is_counted = counted.contains(&Counted::Time);
        if is_counted {
            // Of another count, which is not made here.
            notes.clear();
        }
        let ours = Subject { name: OWN.to_owned(), shim: None, other_work: None };
        let mut this = Self { plan, containerd: None, own, subjects: Vec::new(), is_counted };
        let kernel = this.kernel_of(&ours)?;
        this.subjects.push(ours);
        for peer in this.plan.peers.clone() {
            match limit::within(TURN_LIMIT, || this.try_out(peer, &kernel)) {
                Ok(Ok(subject)) => this.subjects.push(subject),
                Ok(Err(why)) => notes.push(format!("{peer} is left out: {why}")),
                Err(_) => notes.push(format!("{peer} is left out: it did not come to an end")),
            }
        }
        Ok((this, notes))
    }

    /// A peer that runs something here, beside ours with this kernel; or why it does not.
    fn try_out(&mut self, peer: Peer, kernel: &str) -> Result<Subject, String> {
        peer.program()?;
        let told = |error: SandboxesError| error_reporter::Report::new(error).to_string();
        if self.containerd.is_none() {
            let started = Containerd::with_image_of(&self.own).map_err(SandboxesError::from);
            self.containerd = Some(started.map_err(told)?);
        }
        let name = format!("ctr run ({peer})");
        let mut subject = Subject { name, shim: peer.shim(), other_work: None };
        let its_kernel = self.kernel_of(&subject).map_err(told)?;
        if its_kernel != kernel {
            subject.other_work = Some(format!("another guest kernel, {its_kernel}"));
        }
        Ok(subject)
    }

    fn kernel_of(&self, subject: &Subject) -> Result<String, SandboxesError> {
        let mut command = self.run(subject, &ASK_THE_KERNEL);
        let output = succeed(&mut command, "run cat /proc/version", &subject.name)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    fn run(&self, subject: &Subject, words: &[&str]) -> Command {
        let mut command = match (subject.shim, &self.containerd) {
            (Some(shim), Some(containerd)) => {
                let mut command = containerd.ctr();
                let name = containerd::container();
                // By default in one that is never removed.
                let cgroup = format!("/{name}");
                command.args(["run", "--rm", "--runtime", shim.runtime, "--cgroup", &cgroup]);
                for annotation in (shim.memory)(self.plan.memory >> 20) {
                    command.args(["--annotation", &annotation]);
                }
                command.args([IMAGE, &name]);
                command
            }
            _ => {
                let mut command = self.own.isolab();
                command.args(["run", "--rm", "--pull", "never", "--network", "none"]);
                command.args(["--isolation", "paravirt", "--memory"]);
                command.arg(self.plan.memory.to_string());
                command.args(self.plan.kernel.iter().flat_map(|kernel| ["--kernel", kernel]));
                command.arg(IMAGE);
                command
            }
        };
        command.args(words);
        command
    }
}

/// What a container costs, by whoever works for it: most of it is a daemon's and a shim's, which are no children to be waited for.
struct Bill {
    meter: Meter,
    /// Of this thread, which only looks on.
    watching: Cost,
}

impl Bill {
    fn open(servers: &[u32], subject: &Subject) -> Result<Self, SandboxesError> {
        let whose = Whose { roots: servers.to_vec(), own: true, ..Whose::default() };
        let meter = Meter::start(Counted::Time, &whose).map_err(metered(subject))?;
        Ok(Self { meter, watching: Cost::of_this_thread().map_err(SandboxesError::Host)? })
    }

    fn close(self, subject: &Subject) -> Result<Cost, SandboxesError> {
        let watching = Cost::of_this_thread().map_err(SandboxesError::Host)?.since(self.watching);
        let sums = self.meter.stop().map_err(metered(subject))?;
        Ok(Cost::metered(&sums).since(watching))
    }
}

fn metered(subject: &Subject) -> impl FnOnce(MeterError) -> SandboxesError {
    let subject = subject.name.clone();
    |source| SandboxesError::Meter { subject, source }
}

impl Workload for Sandboxes {
    type Error = SandboxesError;

    fn name(&self) -> &'static str {
        "sandboxes"
    }

    fn subjects(&self) -> Vec<String> {
        self.subjects.iter().map(|subject| subject.name.clone()).collect()
    }

    fn other_work(&self, subject: &str) -> Option<String> {
        self.subjects.iter().find(|it| it.name == subject)?.other_work.clone()
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, SandboxesError> {
        let subject = &self.subjects[subject];
        let server: Vec<u32> = self.containerd.iter().map(Containerd::id).collect();
        let meter = match self.is_counted {
            true => Some(Bill::open(&server, subject)?),
            false => None,
        };
        let observed = observe(&mut self.run(subject, &COMMAND), &subject.name)?;
        let gone = leftovers::wait_beside(&server);
        let cost = meter.map(|bill| bill.close(subject)).transpose()?;
        let since = |time: u64| (time as f64 - observed.spawned as f64) / 1e6;
        let mut found = vec![
            Figure::new(TO_FIRST_OUTPUT, "ms", since(observed.first_output)),
            Figure::new(TO_EXIT, "ms", since(observed.exited)),
        ];
        if let Some(gone) = gone {
            found.push(Figure::new(TO_GONE, "ms", since(gone)));
            found.extend(cost.into_iter().flat_map(Cost::figures));
        }
        Ok(found)
    }
}
