//! `isolab bench startup --peers podman`: a container of an engine beside one of ours, by each one's `run`: the same image, command,
//! limits and no network, each from a store of the measurement's own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use isolab_guest::programs;
use nix::mount::umount;
use tempfile::TempDir;

use super::jobs::instances::{InstancesError, store_of, succeed};
use super::own_store::{IMAGE, OwnStore};
use super::startup::{StartupError, TO_EXIT, TO_FIRST_OUTPUT, TO_GONE, observe};
use crate::leftovers::{self, Cost};
use crate::runner::{Figure, TURN_LIMIT, Workload, limit};
use crate::subjects::Peer;
use crate::subjects::peers::podman;

/// Our subject's name in reports.
pub const OWN: &str = "isolab run";
/// A line, from a shell that every image of the measurement has.
const COMMAND: [&str; 3] = ["sh", "-c", "echo ready"];

/// Why an engine has no figures.
#[derive(Debug, thiserror::Error)]
pub enum EnginesError {
    /// The image, or an engine that does not take it.
    #[error(transparent)]
    Image(#[from] InstancesError),
    /// A run.
    #[error(transparent)]
    Run(#[from] StartupError),
    /// A file of ours.
    #[error("cannot {action} for podman")]
    Host {
        /// What was attempted: a verb and its object.
        action: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// A container to its end, once a turn.
pub struct Engines {
    subjects: Vec<Subject>,
    /// Bytes.
    memory: u64,
}

enum Subject {
    Own(Rc<OwnStore>),
    /// The one engine that there is a way to measure.
    Podman(PodmanStore, Runtime),
}

impl Engines {
    /// `program` is the `isolab` that takes part; a note for each engine that is not installed.
    ///
    /// # Errors
    /// The image cannot be made, or an engine does not take it.
    pub fn new(
        program: &Path,
        engines: &[Peer],
        memory: u64,
    ) -> Result<(Self, Vec<String>), EnginesError> {
        leftovers::adopt();
        let shell = programs::find("busybox", "busybox-static").map_err(InstancesError::from)?;
        let own = store_of(program, &[shell])?;
        let (mut subjects, mut notes) = (Vec::new(), Vec::new());
        for engine in engines {
            if let Err(why) = engine.program() {
                notes.push(format!("{engine} is left out: {why}"));
                continue;
            }
            let tried = limit::within(TURN_LIMIT, || {
                let store = PodmanStore::with_image_of(&own)?;
                let runtime = store.working_runtime();
                Ok::<_, EnginesError>(runtime.map(|runtime| Subject::Podman(store, runtime)))
            });
            match tried {
                Ok(tried) => match tried? {
                    Ok(subject) => subjects.push(subject),
                    Err(why) => notes.push(format!("{engine} is left out: {why}")),
                },
                Err(_) => notes.push(format!("{engine} is left out: it did not come to an end")),
            }
        }
        subjects.insert(0, Subject::Own(own));
        Ok((Self { subjects, memory }, notes))
    }
}

impl Workload for Engines {
    type Error = EnginesError;

    fn name(&self) -> &'static str {
        "engines"
    }

    fn subjects(&self) -> Vec<String> {
        self.subjects.iter().map(|subject| subject.name().to_owned()).collect()
    }

    fn turn(&mut self, subject: usize, _round: u32) -> Result<Vec<Figure>, EnginesError> {
        let subject = &self.subjects[subject];
        let mut run = subject.run();
        run.args(["--memory", &self.memory.to_string(), IMAGE]).args(COMMAND);
        let failed = |source| EnginesError::Host { action: "ask for the cost", source };
        let before = Cost::of_children().map_err(failed)?;
        let observed = observe(&mut run, subject.name())?;
        let gone = leftovers::wait();
        let cost = Cost::of_children().map_err(failed)?.since(before);
        let since = |time: u64| (time as f64 - observed.spawned as f64) / 1e6;
        let mut found = vec![
            Figure::new(TO_FIRST_OUTPUT, "ms", since(observed.first_output)),
            Figure::new(TO_EXIT, "ms", since(observed.exited)),
        ];
        if let Some(gone) = gone {
            found.push(Figure::new(TO_GONE, "ms", since(gone)));
            found.extend(cost.figures());
        }
        Ok(found)
    }
}

impl Subject {
    fn name(&self) -> &'static str {
        match self {
            Self::Own(_) => OWN,
            Self::Podman(_, runtime) => runtime.name,
        }
    }

    fn run(&self) -> Command {
        let mut command = match self {
            Self::Own(store) => store.isolab(),
            Self::Podman(store, runtime) => store.podman(runtime),
        };
        command.args(RUN);
        command
    }
}

/// Of both: podman's own default for ulimits takes CAP_SYS_RESOURCE, which not every root has.
const RUN: [&str; 10] = [
    "run",
    "--rm",
    "--pull",
    "never",
    "--network",
    "none",
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1000:1000",
];

/// Which OCI runtime podman uses.
#[derive(Clone, Copy)]
struct Runtime {
    name: &'static str,
    options: &'static [&'static str],
}

/// podman's default, and where that cannot (crun 1.8 refuses hybrid cgroups) another.
const RUNTIMES: [Runtime; 2] = [
    Runtime { name: "podman run", options: &[] },
    Runtime { name: "podman run (runc)", options: &["--runtime", "runc"] },
];

/// A store of podman's, which it mounts on itself. Emptied when dropped.
struct PodmanStore(TempDir);

impl PodmanStore {
    fn with_image_of(own: &OwnStore) -> Result<Self, EnginesError> {
        let failed = |action| move |source| EnginesError::Host { action, source };
        let folder = tempfile::tempdir_in("/var/tmp").map_err(failed("make a store"))?;
        let archive: PathBuf = folder.path().join("image.tar");
        let mut save = own.isolab();
        save.args(["image", "save", "--format", "docker-archive", "-o"]).arg(&archive).arg(IMAGE);
        succeed(&mut save, "isolab image save", "podman run")?;
        // From here on it is emptied, whatever comes.
        let store = Self(folder);
        let mut load = podman::command(store.0.path());
        succeed(
            load.args(["load", "--quiet", "--input"]).arg(&archive),
            "podman load",
            "podman run",
        )?;
        Ok(store)
    }
}

impl PodmanStore {
    fn podman(&self, runtime: &Runtime) -> Command {
        let mut command = podman::command(self.0.path());
        command.args(runtime.options);
        command
    }

    /// The first runtime that runs something here, or what the first one says.
    fn working_runtime(&self) -> Result<Runtime, String> {
        let mut why = None;
        for runtime in RUNTIMES {
            let mut run = self.podman(&runtime);
            match succeed(run.args(RUN).args([IMAGE, "true"]), "podman run", runtime.name) {
                Ok(_) => return Ok(runtime),
                Err(error) => why = why.or(Some(error.to_string())),
            }
        }
        Err(why.unwrap_or_default())
    }
}

impl Drop for PodmanStore {
    fn drop(&mut self) {
        // What it leaves is in a folder that goes, but for the mount.
        let _ = podman::command(self.0.path()).args(["rmi", "--all", "--force"]).output();
        let _ = umount(&self.0.path().join("root/overlay"));
    }
}
