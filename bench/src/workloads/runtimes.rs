//! `isolab bench startup --peers runc,crun`: our OCI runtime beside others, all by one command line on one bundle.
//!
//! A run is `RUNTIME run` of busybox's `true`, from its spawn to its end, with everything that `isolab-oci spec` writes
//! into a configuration: namespaces, mounts, masks, capabilities, a filter of system calls, a cgroup. No runtime's own
//! marks are used, so that all are measured alike.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isolab_guest::programs::{self, ProgramError};
use isolab_isolation::timeline;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::startup::TO_EXIT;
use crate::leftovers;
use crate::runner::{Figure, TURN_LIMIT, Workload, limit};
use crate::subjects::Peer;

/// Our runtime's name in reports, and its executable's.
pub const OWN: &str = "isolab-oci";
/// The most that was resident of any one process of the runtime's, its container's included.
pub const PEAK_MEMORY: &str = "peak_memory";

/// The version of the OCI specification that the bundle claims, and uses nothing newer of: crun 1.8 refuses 1.2.
const OCI_VERSION: &str = "1.0.2";

/// Which runtimes are measured.
pub struct RuntimesPlan {
    /// The executable of our runtime.
    pub program: PathBuf,
    /// Others; those that are not installed, or cannot run the bundle here, are left out.
    pub peers: Vec<Peer>,
}

/// Why a measurement cannot go on: half a comparison is none.
#[derive(Debug, thiserror::Error)]
pub enum RuntimesError {
    /// A file or a process.
    #[error("cannot {action} {subject}")]
    Host {
        /// What was attempted: a verb, for example `start`.
        action: &'static str,
        /// On what.
        subject: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What every bundle needs.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A run that did not end.
    #[error("`{0} run` does not end")]
    Hung(&'static str),
    /// A run that ended badly.
    #[error("`{name} {command}` ended with {status}; it said: {said}")]
    Run {
        /// The runtime.
        name: &'static str,
        /// What it was asked to do.
        command: &'static str,
        /// Its exit status, which is not success.
        status: String,
        /// Its messages.
        said: String,
    },
}

/// A runtime that takes part.
struct Subject {
    name: &'static str,
    program: PathBuf,
}

/// What all of them run, and their state.
struct Workspace {
    folder: TempDir,
    /// GNU time, by which memory is seen: what the kernel tells the parent of a process counts what that was before
    /// its execve, a copy of us.
    time: Option<PathBuf>,
}

/// `RUNTIME run` to its end, once a turn.
pub struct Runtimes {
    workspace: Workspace,
    subjects: Vec<Subject>,
}

impl Runtimes {
    /// Of this plan, and a note for each runtime that is left out, since it cannot be run here.
    ///
    /// # Errors
    /// [`RuntimesError`]: there is nothing to run.
    pub fn new(plan: &RuntimesPlan) -> Result<(Self, Vec<String>), RuntimesError> {
        let workspace = Workspace::new(&plan.program)?;
        let mut notes = Vec::new();
        if workspace.time.is_none() {
            notes.push("the runtimes' memory is left out: it needs GNU time".to_owned());
        }
        leftovers::adopt();
        let mut subjects = vec![Subject { name: OWN, program: plan.program.clone() }];
        for peer in plan.peers.iter().filter(|peer| peer.is_runtime()) {
            let name = peer.name();
            let found = programs::find(name, name).map_err(RuntimesError::from);
            let tried = found.and_then(|program| {
                let subject = Subject { name, program };
                match limit::within(TURN_LIMIT, || workspace.run(&subject)) {
                    Ok(tried) => tried.map(|_| subject),
                    Err(_) => Err(RuntimesError::Hung(name)),
                }
            });
            match tried {
                Ok(subject) => subjects.push(subject),
                Err(why) => notes.push(format!("{name} is left out: {why}")),
            }
        }
        Ok((Self { workspace, subjects }, notes))
    }
}

impl Workload for Runtimes {
    type Error = RuntimesError;

    fn name(&self) -> &'static str {
        "runtimes"
    }

    fn subjects(&self) -> Vec<String> {
        self.subjects.iter().map(|subject| subject.name.to_owned()).collect()
    }

    fn turn(&mut self, subject: usize, round: u32) -> Result<Vec<Figure>, RuntimesError> {
        let subject = &self.subjects[subject];
        leftovers::rest();
        let mut figures = vec![Figure::new(TO_EXIT, "ms", self.workspace.run(subject)?)];
        // What it left to others would be the next one's.
        leftovers::wait();
        if round > 0
            && let Some(peak) = self.workspace.peak_memory(subject)?
        {
            figures.push(Figure::new(PEAK_MEMORY, "KiB", peak));
            leftovers::wait();
        }
        Ok(figures)
    }
}

impl Workspace {
    fn new(runtime: &Path) -> Result<Self, RuntimesError> {
        let busybox = programs::find("busybox", "busybox-static")?;
        let failed = host("write", "the bundle");
        let folder = tempfile::tempdir().map_err(&failed)?;
        let root = folder.path().join("rootfs");
        for sub in ["bin", "dev", "proc", "sys"] {
            fs::create_dir_all(root.join(sub)).map_err(&failed)?;
        }
        fs::copy(busybox, root.join("bin/true")).map_err(&failed)?;
        write_config(runtime, folder.path())?;
        Ok(Workspace { folder, time: programs::find("time", "time").ok() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// One run: milliseconds.
    fn run(&self, subject: &Subject) -> Result<f64, RuntimesError> {
        let started = timeline::now();
        self.end_well(subject, Command::new(&subject.program))?;
        Ok((timeline::now() - started) as f64 / 1e6)
    }

    /// The most KiB that were resident in one run.
    fn peak_memory(&self, subject: &Subject) -> Result<Option<f64>, RuntimesError> {
        let Some(time) = &self.time else { return Ok(None) };
        let told = self.path("peak");
        let mut command = Command::new(time);
        command.args(["--format", "%M", "--output"]).arg(&told).arg(&subject.program);
        self.end_well(subject, command)?;
        let text = fs::read_to_string(&told).map_err(host("read", "what GNU time says"))?;
        Ok(text.trim().parse().ok())
    }

    /// Runs the bundle by `command`, which is the runtime without arguments.
    fn end_well(&self, subject: &Subject, mut command: Command) -> Result<(), RuntimesError> {
        let name = subject.name;
        let said = self.path("said");
        let stderr = fs::File::create(&said).map_err(host("write", "the messages"))?;
        command.arg("--root").arg(self.path(&format!("state-{name}")));
        command.args(["run", "--bundle"]).arg(self.folder.path());
        command.arg(format!("isolab-bench-{}", std::process::id()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let status = command.status().map_err(host("start", name))?;
        if status.success() {
            return Ok(());
        }
        let said = read(&said);
        let (command, status) = ("run", status.to_string());
        Err(RuntimesError::Run { name, command, status, said })
    }
}

/// What `runtime spec` writes, with busybox's `true` for a command.
fn write_config(runtime: &Path, bundle: &Path) -> Result<(), RuntimesError> {
    let mut spec = Command::new(runtime);
    let made = spec.args(["spec", "--bundle"]).arg(bundle).stdin(Stdio::null()).output();
    let made = made.map_err(host("start", OWN))?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        let (command, status) = ("spec", made.status.to_string());
        return Err(RuntimesError::Run { name: OWN, command, status, said });
    }
    let refine = || -> io::Result<()> {
        let path = bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path)?)?;
        config["ociVersion"] = OCI_VERSION.into();
        config["process"]["args"] = json!(["/bin/true"]);
        fs::write(path, serde_json::to_vec(&config)?)
    };
    refine().map_err(host("write", "the bundle's configuration"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn host(action: &'static str, subject: &str) -> impl Fn(io::Error) -> RuntimesError {
    move |source| RuntimesError::Host { action, subject: subject.to_owned(), source }
}
