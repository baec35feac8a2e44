//! What is kept of a container between two commands: a folder for each, with its state as JSON, which is replaced as a
//! whole, and the socket at which it waits to be started. The folder itself is the lock.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use isolab_container::oci::{ContainerState, Spec};
use isolab_container::{
    Handle, Membership, Memberships, is_root_of_host, processes, remove_empty_cgroup,
};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};

/// The version of the file, told apart from later ones.
const VERSION: u32 = 1;

const STATE: &str = "state.json";
const START: &str = "start";
/// A symbolic link that leads nowhere, to `linux.cgroupsPath`: what takes one call to write and none to close.
const CGROUP: &str = "cgroup";

/// What is known of a container.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    pub version: u32,
    pub id: String,
    pub pid: i32,
    /// Of the process, in clock ticks since the boot: with the id it names it for ever.
    pub started_ticks: u64,
    pub bundle: PathBuf,
    /// Seconds since 1970.
    pub created: u64,
    /// (controllers, directory)
    pub cgroups: Vec<(Vec<String>, PathBuf)>,
    /// The scope that systemd has made for it.
    #[serde(default)]
    pub unit: Option<String>,
    pub spec: Spec,
}

/// The states of the runtime specification (runtime.md, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// All containers.
pub struct Root(PathBuf);

/// One container's folder, locked.
pub struct Folder {
    path: PathBuf,
    lock: Flock<File>,
}

impl Root {
    /// The folder of the command line, or the usual one.
    pub fn new(chosen: Option<PathBuf>) -> Result<Self> {
        // Root of a user namespace that an engine without root has made is not root where /run is.
        let usual = || match (is_root_of_host(), std::env::var_os("XDG_RUNTIME_DIR")) {
            (false, Some(folder)) => Ok(Path::new(&folder).join("isolab-oci")),
            _ if geteuid().is_root() => Ok(PathBuf::from("/run/isolab-oci")),
            _ => bail!("XDG_RUNTIME_DIR is not set: say where with --root"),
        };
        Ok(Root(chosen.map_or_else(usual, Ok)?))
    }

    /// Makes the folder of a new container.
    pub fn create(&self, id: &str) -> Result<Folder> {
        check(id)?;
        let mut builder = fs::DirBuilder::new();
        builder.mode(0o700);
        builder.recursive(true).create(&self.0).with_context(|| words("create", &self.0))?;
        let path = self.0.join(id);
        match builder.recursive(false).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("container {id} exists")
            }
            made => made.with_context(|| words("create", &path))?,
        }
        Folder::lock(path)
    }

    /// A container that exists.
    pub fn open(&self, id: &str) -> Result<(Folder, State)> {
        self.find(id)?.with_context(|| format!("container {id} does not exist"))
    }

    /// None if there is no such container.
    pub fn find(&self, id: &str) -> Result<Option<(Folder, State)>> {
        check(id)?;
        let path = self.0.join(id);
        if !path.is_dir() {
            return Ok(None);
        }
        let folder = Folder::lock(path)?;
        // Deleted, or not yet created, while we waited for the lock.
        let state = folder.load()?;
        Ok(state.map(|state| (folder, state)))
    }

    /// What a `create` that was killed left of a container: its folder.
    pub fn unfinished(&self, id: &str) -> Result<Option<Folder>> {
        let path = self.0.join(id);
        if !path.is_dir() {
            return Ok(None);
        }
        let folder = Folder::lock(path)?;
        // Another may have been made under this name meanwhile.
        Ok(folder.load()?.is_none().then_some(folder))
    }

    /// The ids of all.
    pub fn ids(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let mut ids: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort();
        ids
    }
}

/// As the runtime has it; here because the id becomes a path before.
fn check(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    if id.is_empty() || id.len() > 128 || id == "." || id == ".." || !id.bytes().all(allowed) {
        bail!("container id {id:?}: 1 to 128 of A-Z a-z 0-9 _ + - . are allowed");
    }
    Ok(())
}

impl Folder {
    fn lock(path: PathBuf) -> Result<Self> {
        let folder = File::open(&path).with_context(|| words("open", &path))?;
        let lock = Flock::lock(folder, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
        let lock = lock.with_context(|| words("lock", &path))?;
        Ok(Folder { path, lock })
    }

    fn load(&self) -> Result<Option<State>> {
        let path = self.path.join(STATE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| words("read", &path))?,
        };
        let state: State = serde_json::from_slice(&text).with_context(|| words("parse", &path))?;
        if state.version != VERSION {
            bail!("{} is of version {}, not {VERSION}", path.display(), state.version);
        }
        Ok(Some(state))
    }

    /// Writes the state, all of it or nothing.
    pub fn save(&self, state: &State) -> Result<()> {
        write_atomically(&self.path.join(STATE), &serde_json::to_vec(state)?)
    }

    /// Where its cgroup will be, for who finds the folder of a `create` that was killed.
    pub fn remember_cgroup(&self, path: &Path) -> Result<()> {
        let link = self.path.join(CGROUP);
        symlink(path, &link).with_context(|| words("create", &link))
    }

    /// Removes what a `create` that was killed has left: its process has ended with it.
    pub fn clean_up(self) -> Result<()> {
        let path = fs::read_link(self.path.join(CGROUP)).ok();
        let id = self.path.file_name().unwrap_or_default().to_string_lossy();
        remove_empty_cgroup(&id, path.as_deref());
        self.remove()
    }

    /// The socket at which the container waits, by a path that is short whatever the folder's is.
    pub fn start_socket(&self) -> PathBuf {
        format!("/proc/self/fd/{}/{START}", self.lock.as_raw_fd()).into()
    }

    /// Nobody waits there any more.
    pub fn forget_start_socket(&self) -> Result<()> {
        let path = self.path.join(START);
        fs::remove_file(&path).with_context(|| words("remove", &path))
    }

    /// What the container does now.
    pub fn status(&self, state: &State) -> Status {
        match state.handle() {
            None => Status::Stopped,
            Some(handle) if handle.has_ended() => Status::Stopped,
            Some(_) if self.path.join(START).exists() => Status::Created,
            Some(handle) if handle.is_paused() => Status::Paused,
            Some(_) => Status::Running,
        }
    }

    /// Removes the folder.
    pub fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.path).with_context(|| words("remove", &self.path))
    }

    /// Lets others at it.
    pub fn unlock(self) -> Result<Unlocked> {
        let folder = self.lock.unlock().map_err(|(_, errno)| errno);
        let folder = folder.with_context(|| words("unlock", &self.path))?;
        Ok(Unlocked { path: self.path, folder })
    }
}

/// A folder that others may have meanwhile, and remove.
pub struct Unlocked {
    path: PathBuf,
    folder: File,
}

impl Unlocked {
    /// Removes the folder, unless somebody else has: what has its name then is another container's.
    pub fn remove(self) -> Result<()> {
        let lock = Flock::lock(self.folder, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
        let lock = lock.with_context(|| words("lock", &self.path))?;
        let identity = |file: &fs::Metadata| (file.dev(), file.ino());
        let own = lock.metadata().with_context(|| words("look at", &self.path))?;
        match fs::metadata(&self.path) {
            Ok(named) if identity(&named) == identity(&own) => {
                Folder { path: self.path, lock }.remove()
            }
            _ => Ok(()),
        }
    }
}

impl State {
    /// Of a container that was just made.
    pub fn new(spec: Spec, bundle: PathBuf, handle: &Handle, unit: Option<String>) -> Result<Self> {
        let started_ticks = processes::started_ticks(Pid::from_raw(handle.pid()));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Ok(State {
            version: VERSION,
            id: handle.id().to_owned(),
            pid: handle.pid(),
            started_ticks: started_ticks.context("the container's process has ended")?,
            bundle,
            created: now.map(|since| since.as_secs()).unwrap_or_default(),
            cgroups: handle
                .cgroups()
                .0
                .iter()
                .map(|one| (one.controllers.clone(), one.directory.clone()))
                .collect(),
            unit,
            spec,
        })
    }

    /// The container, unless its process has gone.
    pub fn handle(&self) -> Option<Handle> {
        let state = self.to_oci(ContainerState::Running);
        let handle =
            Handle::of_container(state, self.memberships(), self.spec.linux().as_ref()).ok()?;
        // Opened first: what the id names now is what was opened.
        let started_ticks = processes::started_ticks(Pid::from_raw(self.pid))?;
        (started_ticks == self.started_ticks).then_some(handle)
    }

    /// What hooks, and whoever answers for seccomp, are told.
    pub fn to_oci(&self, status: ContainerState) -> isolab_container::oci::State {
        let mut state = isolab_container::oci::State::default();
        state
            .set_version(self.spec.version().clone())
            .set_id(self.id.clone())
            .set_status(status)
            .set_pid(Some(self.pid))
            .set_bundle(self.bundle.clone())
            .set_annotations(self.spec.annotations().clone());
        state
    }

    /// Its cgroups.
    pub fn memberships(&self) -> Memberships {
        let one = |(controllers, directory): &(Vec<String>, PathBuf)| Membership {
            controllers: controllers.clone(),
            directory: directory.clone(),
        };
        Memberships(self.cgroups.iter().map(one).collect())
    }
}

/// Writes a file, all of it or nothing.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options.open(&new).and_then(|mut file| file.write_all(bytes));
    let renamed = written.and_then(|()| fs::rename(&new, path));
    renamed.with_context(|| words("write", path))
}

fn words(attempt: &str, path: &Path) -> String {
    format!("cannot {attempt} {}", path.display())
}
