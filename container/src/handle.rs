//! A container that runs, reached from outside by anybody who knows it: to start further processes in it, to pause it,
//! to see what is in it. It owns nothing.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::PollTimeout;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Process, State};

use crate::cgroup::{Memberships, Stats};
use crate::config::Stdio;
use crate::error::{Error, Result};
use crate::executed::{Executed, Released, Target};
use crate::join::JoinPlan;
use crate::namespaces::{NEWTIME, is_root_of_host};
use crate::pidfd;
use crate::process::capabilities::CapabilitySets;
use crate::process::plan::ProcessPlan;
use crate::process::seccomp::Filter;
use crate::process::stdio::StdioPlan;
use crate::processes;

/// A running container or host process. From any thread; keeps nothing alive.
#[derive(Debug)]
pub struct Handle {
    pub(crate) id: String,
    pub(crate) pid: Pid,
    pub(crate) pidfd: OwnedFd,
    pub(crate) cgroups: Memberships,
    pub(crate) seccomp: Option<Arc<Filter>>,
    /// As opposed to a host process.
    pub(crate) is_container: bool,
    /// Its root is a part of its mount namespace's.
    pub(crate) is_chrooted: bool,
    /// What others are told of a container.
    pub(crate) state: Option<State>,
}

/// Namespaces, their names in /proc/PID/ns. That of pids is joined by the clone, not by the process.
const NAMESPACES: [(CloneFlags, &str); 8] = [
    (CloneFlags::CLONE_NEWUSER, "user"),
    (NEWTIME, "time"),
    (CloneFlags::CLONE_NEWNS, "mnt"),
    (CloneFlags::CLONE_NEWCGROUP, "cgroup"),
    (CloneFlags::CLONE_NEWUTS, "uts"),
    (CloneFlags::CLONE_NEWIPC, "ipc"),
    (CloneFlags::CLONE_NEWNET, "net"),
    (CloneFlags::CLONE_NEWPID, "pid"),
];

impl Handle {
    /// A container that another process has made, by what it wrote down of it: its state, in which the first process's
    /// id is, what [`Handle::cgroups`] said, and the configuration it was made by. The caller makes sure that the id is still that process's
    /// ([`processes::ProcessInfo::started_ticks`]) after this returned.
    ///
    /// # Errors
    /// There is no such process, or the filter cannot be compiled.
    pub fn of_container(
        state: State,
        cgroups: Memberships,
        linux: Option<&Linux>,
    ) -> Result<Handle> {
        let id = state.id().clone();
        let pid = Pid::from_raw(state.pid().unwrap_or_default());
        let pidfd = pidfd::open(pid).map_err(|errno| {
            Error::host(format!("open the first process of container {id} ({pid})"), errno)
        })?;
        let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
        let seccomp = seccomp.map(Filter::from_oci).transpose()?.map(Arc::new);
        let namespaces = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let is_joined_mount =
            |one: &LinuxNamespace| one.typ() == LinuxNamespaceType::Mount && one.path().is_some();
        let is_chrooted = namespaces.iter().any(is_joined_mount);
        let (is_container, state) = (true, Some(state));
        Ok(Handle { id, pid, pidfd, cgroups, seccomp, is_container, is_chrooted, state })
    }

    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The first process's id, as seen from here.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Its cgroups.
    pub fn cgroups(&self) -> &Memberships {
        &self.cgroups
    }

    /// Becomes readable (poll(2)) when the first process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether the first process has ended.
    pub fn has_ended(&self) -> bool {
        pidfd::wait(&self.pidfd, PollTimeout::ZERO).unwrap_or(true)
    }

    /// Sends a signal to the first process, by number; see [`Instance::signal`](crate::Instance::signal). Ok if it has
    /// ended.
    ///
    /// # Errors
    /// EPERM; EINVAL for a number that is no signal's.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        pidfd::send(&self.pidfd, signal)
    }

    /// Sends a signal to all processes, none of which can escape it by forking.
    ///
    /// # Errors
    /// It has no cgroup by which they are known.
    pub fn signal_all(&self, signal: i32) -> Result<()> {
        if self.cgroups.signal_all(signal) { Ok(()) } else { Err(self.without_cgroup()) }
    }

    /// Makes all processes stand still, and waits until they do.
    ///
    /// # Errors
    /// It has no cgroup that could; or some process did not stand still, and all go on.
    pub fn pause(&self) -> Result<()> {
        self.freeze(true)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// As [`Handle::pause`].
    pub fn resume(&self) -> Result<()> {
        self.freeze(false)
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.cgroups.is_frozen()
    }

    fn freeze(&self, frozen: bool) -> Result<()> {
        if self.cgroups == Memberships::default() {
            return Err(self.without_cgroup());
        }
        self.check_alive()?;
        Ok(self.cgroups.freeze(frozen)?)
    }

    /// What it has used so far. All None where it has no cgroup of its own.
    pub fn stats(&self) -> Stats {
        self.cgroups.stats()
    }

    /// Bytes that went over its network namespace's interfaces but loopback: (received, sent). None where the network
    /// is the host's own.
    pub fn network_bytes(&self) -> Option<(u64, u64)> {
        if self.namespace("net").ok() == ours("net").ok() {
            return None;
        }
        processes::network_bytes(self.pid).filter(|_| !self.has_ended())
    }

    /// The processes in it, the first one first, then in the order of their ids.
    ///
    /// # Errors
    /// A host process without a cgroup: nothing tells its processes from others.
    pub fn processes(&self) -> Result<Vec<processes::ProcessInfo>> {
        let pids = match self.cgroups.processes() {
            Some(pids) => pids,
            None if self.is_container => processes::in_pid_namespace_of(self.pid),
            None => return Err(self.without_cgroup()),
        };
        let mut found: Vec<_> = pids.into_iter().filter_map(processes::look).collect();
        found.sort_by_key(|process| process.host_pid != self.pid.as_raw());
        Ok(found)
    }

    /// Starts a further process. Its streams are `stdio`, or a terminal if `process.terminal` says so; without
    /// capabilities, a container's process has none, and a host process's the caller's.
    ///
    /// # Errors
    /// [`Error::CommandNotFound`] and [`Error::CommandNotExecutable`]; [`Error::State`] where the container has ended;
    /// whatever is wrong with `process`; the first step that failed.
    pub fn exec(&self, process: &Process, stdio: Stdio) -> Result<Executed> {
        self.join_by(self.plan(process, true)?, stdio, Executed::start)
    }

    /// As [`Handle::exec`], for a process that outlives the caller: it is not waited for here, so that whoever adopts
    /// it learns how it ended, however soon that is.
    ///
    /// # Errors
    /// As there.
    pub fn exec_released(&self, process: &Process, stdio: Stdio) -> Result<Released> {
        self.join_by(self.plan(process, true)?, stdio, Released::start)
    }

    /// What a further process is given. `confined`: as any process of the container is; otherwise as the runtime,
    /// which hooks of the creation are.
    pub(crate) fn plan(&self, process: &Process, confined: bool) -> Result<ProcessPlan> {
        let user_namespace = self.namespace("user").ok() != ours("user").ok();
        let mut plan = ProcessPlan::new(process, user_namespace)?;
        if self.is_container && confined {
            plan.capabilities.get_or_insert(CapabilitySets::default());
            plan.new_keyring = true;
            plan.seccomp = self.seccomp.clone();
        }
        Ok(plan)
    }

    /// Starts a further process by its plan.
    pub(crate) fn join(&self, plan: ProcessPlan, stdio: Stdio) -> Result<Executed> {
        self.join_by(plan, stdio, Executed::start)
    }

    fn join_by<T>(
        &self,
        process: ProcessPlan,
        stdio: Stdio,
        start: impl FnOnce(JoinPlan, Target) -> Result<T>,
    ) -> Result<T> {
        self.check_alive()?;
        // Read before, looked at afterwards: then they were this process's all the while.
        let namespaces = self.foreign_namespaces();
        let root = self.root();
        self.check_alive()?;
        let namespaces = namespaces
            .map_err(|source| Error::host(self.words("look at the namespaces of"), source))?;
        let target = self.pidfd.try_clone();
        let target =
            target.map_err(|source| Error::host("duplicate a process's descriptor", source))?;
        // Who is not the whole host's root has rights in the container's user namespace alone, and has to be there before
        // it can be where the container's processes are.
        let born_in = match is_root_of_host() {
            true => CloneFlags::empty(),
            false => namespaces & (CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID),
        };
        let plan = JoinPlan {
            stdio: StdioPlan::new(stdio)?,
            target,
            namespaces: namespaces.difference(CloneFlags::CLONE_NEWPID | born_in),
            born_in,
            root: root?,
            await_cgroup: self.cgroups.needs_version_1(),
            process,
        };
        let join_pids = namespaces.difference(born_in).contains(CloneFlags::CLONE_NEWPID);
        let target = Target {
            id: &self.id,
            pid: self.pid,
            cgroups: &self.cgroups,
            join_pids,
            state: self.state.as_ref(),
        };
        match start(plan, target) {
            // Most likely that is why.
            Err(_) if self.has_ended() => Err(self.ended()),
            other => other,
        }
    }

    /// Where it is a part of what is mounted, as it was when the process was made: only root changes it.
    fn root(&self) -> Result<Option<OwnedFd>> {
        if !self.is_chrooted {
            return Ok(None);
        }
        let path = format!("/proc/{}/root", self.pid);
        let opened = open(
            path.as_str(),
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        opened.map(Some).map_err(|errno| Error::host(format!("open {path}"), errno))
    }

    fn foreign_namespaces(&self) -> io::Result<CloneFlags> {
        let mut foreign = CloneFlags::empty();
        for (flag, name) in NAMESPACES {
            let ours = match ours(name) {
                // A kernel without this kind.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                ours => ours?,
            };
            if self.namespace(name)? != ours {
                foreign |= flag;
            }
        }
        Ok(foreign)
    }

    fn namespace(&self, name: &str) -> io::Result<(u64, u64)> {
        identity(Path::new(&format!("/proc/{}/ns/{name}", self.pid)))
    }

    fn check_alive(&self) -> Result<()> {
        if self.has_ended() { Err(self.ended()) } else { Ok(()) }
    }

    fn ended(&self) -> Error {
        Error::State { id: self.id.clone(), problem: "has ended" }
    }

    fn without_cgroup(&self) -> Error {
        Error::State {
            id: self.id.clone(),
            problem: "has no cgroup of its own by which its processes are known and can be paused",
        }
    }

    fn words(&self, attempt: &str) -> String {
        format!("{attempt} container {}", self.id)
    }
}

fn ours(name: &str) -> io::Result<(u64, u64)> {
    identity(Path::new(&format!("/proc/thread-self/ns/{name}")))
}

/// Two namespaces are one if their files are (namespaces(7)).
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}
