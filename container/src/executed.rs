//! A further process in a running container, seen from outside: it is brought into the cgroups and started.

use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::thread;

use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sched::CloneFlags;
use nix::unistd::Pid;
use oci_spec::runtime::State;

use crate::cgroup::Memberships;
use crate::channel::Command;
use crate::child::{Child, ExitStatus, Progress, Spawn};
use crate::error::{Error, Result};
use crate::explain;
use crate::join::JoinPlan;
use crate::pid_namespace::{ChildrenIn, Hidden};
use crate::pidfd;

/// How long the kernel may take to execute a program: it reads it from a disk, perhaps.
const START_LIMIT_MILLISECONDS: u16 = 30_000;

/// Where a further process goes.
pub(crate) struct Target<'a> {
    pub id: &'a str,
    /// The first process.
    pub pid: Pid,
    pub cgroups: &'a Memberships,
    /// Its pid namespace is not ours.
    pub join_pids: bool,
    /// What is told about it.
    pub state: Option<&'a State>,
}

impl Target<'_> {
    fn notify(&self, plan: &JoinPlan, notifications: &OwnedFd, pid: Pid) -> Result<()> {
        let listener = plan.process.seccomp.as_ref().and_then(|filter| filter.listener.as_ref());
        match (listener, self.state) {
            (Some(listener), Some(state)) => listener.send(notifications, pid.as_raw(), state),
            _ => Ok(()),
        }
    }
}

/// A process that [`Handle::exec`](crate::Handle::exec) has started. Dropping it kills it; what it started itself
/// lives on.
#[derive(Debug)]
pub struct Executed {
    pid: Pid,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    /// How it ended, once it has.
    end: Arc<OnceLock<Result<ExitStatus>>>,
}

/// A process that [`Handle::exec_released`](crate::Handle::exec_released) has left to itself.
#[derive(Debug)]
pub struct Released {
    /// Its process id, as seen from here.
    pub pid: i32,
    /// The master of its terminal, if it asked for one.
    pub terminal: Option<OwnedFd>,
}

impl Released {
    /// Starts it. Nobody of ours waits for it: how it ended is for whoever adopts it.
    pub(crate) fn start(plan: JoinPlan, target: Target) -> Result<Released> {
        let mut child = start(plan, &target)?;
        child.release();
        Ok(Released { pid: child.pid().as_raw(), terminal: child.terminal() })
    }
}

impl Executed {
    pub(crate) fn start(plan: JoinPlan, target: Target) -> Result<Executed> {
        let mut child = start(plan, &target)?;
        let pidfd = child.pidfd().try_clone_to_owned();
        let pidfd =
            pidfd.map_err(|source| Error::host("duplicate a process's descriptor", source))?;
        let (pid, terminal) = (child.pid(), child.terminal());
        let end = Arc::new(OnceLock::new());
        reap(child, target.cgroups.clone(), Arc::clone(&end))?;
        Ok(Executed { pid, pidfd, terminal, end })
    }

    /// Its process id, as seen from here. It stays reserved until [`Executed::wait`].
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// The master of its terminal, once, if it asked for one.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Waits until it has ended. Can be called again, and from several threads: the answer stays the same.
    ///
    /// # Errors
    /// None in practice: the kernel's if the process is not ours to wait for.
    pub fn wait(&self) -> Result<ExitStatus, &Error> {
        self.end.wait().as_ref().copied()
    }

    /// Ok(false): it has not ended within this time.
    pub(crate) fn ended_within(&self, limit: PollTimeout) -> Result<bool, Errno> {
        pidfd::wait(&self.pidfd, limit)
    }

    /// Sends it a signal by its number. Ok if it has ended already.
    ///
    /// # Errors
    /// EPERM; EINVAL for a number that is no signal's.
    pub fn signal(&self, signal: i32) -> Result<(), Errno> {
        pidfd::send(&self.pidfd, signal)
    }
}

impl Drop for Executed {
    fn drop(&mut self) {
        if self.end.get().is_none() && self.signal(libc::SIGKILL).is_ok() {
            self.end.wait();
        }
    }
}

/// Brings a process into the cgroups and starts it.
fn start(mut plan: JoinPlan, target: &Target) -> Result<Child> {
    let mut child = spawn(&plan, target)?;
    plan.stdio.close();
    if plan.await_cgroup {
        match target.cgroups.join_version_1(child.pid()) {
            Ok(()) => child.send(Command::Joined)?,
            // A child that failed is gone, and cannot be moved; its own report says more.
            Err(error) => return Err(child.pending_failure(&plan).unwrap_or(error.into())),
        }
    }
    loop {
        match child.progress(&plan, "joining the container")? {
            Progress::Ready => break,
            Progress::Listener(notifications) => {
                target.notify(&plan, &notifications, child.pid())?
            }
            Progress::Filled => return Err(child.state("reported out of turn")),
        }
    }
    child.start(&plan, START_LIMIT_MILLISECONDS.into())?;
    Ok(child)
}

/// Waits for the process on a thread of its own: the first process of a pid namespace does not end before all others
/// have been waited for, and those from outside only their parent can wait for, who is us (pid_namespaces(7)).
fn reap(
    mut child: Child,
    cgroups: Memberships,
    end: Arc<OnceLock<Result<ExitStatus>>>,
) -> Result<()> {
    let body = move || {
        let ended = child.wait(|| cgroups.stats().oom_kills.is_some_and(|kills| kills > 0));
        // Set once, here.
        let _ = end.set(ended);
    };
    let thread = thread::Builder::new().name("reaper".to_owned()).stack_size(STACK).spawn(body);
    thread.map(drop).map_err(|source| Error::host("start a thread", source))
}

/// The usual 2 MiB may be given a huge page at the first touch.
const STACK: usize = 128 << 10;

/// The clone is in the container's pid namespace from its first instruction on, as is the only way by one clone: a
/// process cannot change its own. So the calling thread's children are, for a moment.
fn spawn(plan: &JoinPlan, target: &Target) -> Result<Child> {
    // A process between hides itself.
    let _hidden = plan.born_in.is_empty().then(Hidden::new).transpose()?;
    let _pids = target.join_pids.then(|| ChildrenIn::new(plan.target.as_fd())).transpose()?;
    let mut cgroup = target.cgroups.unified().map(PathBuf::from);
    loop {
        let opened = cgroup.as_ref().map(File::open).transpose();
        let opened = opened.map_err(|source| {
            let path = cgroup.as_deref().unwrap_or("".as_ref());
            Error::host(format!("open cgroup {}", path.display()), source)
        })?;
        let into = opened.map(OwnedFd::from);
        match Child::spawn(target.id, plan, CloneFlags::empty(), into.as_ref()) {
            Ok(child) => return Ok(child),
            Err(Spawn::Prepare(error)) => return Err(error),
            // What manages cgroups inside, such as systemd, has handed the controllers on, and moved on itself:
            // version 2 wants no processes in between.
            Err(Spawn::Clone(Errno::EBUSY)) if cgroup.as_deref() == target.cgroups.unified() => {
                cgroup = below(target);
                if cgroup.is_none() {
                    return Err(explain::clone(Errno::EBUSY, CloneFlags::empty()));
                }
            }
            Err(Spawn::Clone(errno)) => {
                return Err(explain::clone(errno, CloneFlags::empty()));
            }
        }
    }
}

/// The version 2 cgroup that the first process has moved to, below the container's own.
fn below(target: &Target) -> Option<PathBuf> {
    let own = target.cgroups.unified()?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", target.pid)).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Where the hierarchy is mounted: the longest part of our path that begins the process's.
    let within = own.ancestors().find_map(|mount| {
        let here = mount.join(path);
        (here.starts_with(own) && here != own && here.is_dir()).then_some(here)
    });
    within.filter(|found| !found.components().any(|part| part == std::path::Component::ParentDir))
}
