//! A created process and its life from there on; containers and host processes alike.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::cgroup::{Cgroup, DeviceRules, Stats};
use crate::channel::{self, Command, Report};
use crate::clone::{self, Cloned};
use crate::error::{Error, Result};
use crate::explain;
use crate::guardian::{Guardian, Ward};
use crate::idmap::IdMaps;
use crate::init;
use crate::pidfd;
use crate::plan::InitPlan;
use crate::process::trampoline::Trampoline;
use crate::step::Failure;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this exit code.
    Exited(i32),
    /// By a signal.
    Signaled {
        /// The signal.
        signal: Signal,
        /// Processes of this instance were killed because of its memory limit: most likely why.
        oom_killed: bool,
    },
}

impl ExitStatus {
    /// The exit code for a command line: the process's own, or 128 plus the signal, as shells have it.
    pub fn code(self) -> i32 {
        match self {
            ExitStatus::Exited(code) => code,
            ExitStatus::Signaled { signal, .. } => 128 + signal as i32,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExitStatus::Exited(code) => write!(f, "exit code {code}"),
            ExitStatus::Signaled { signal, oom_killed: false } => write!(f, "killed by {signal}"),
            ExitStatus::Signaled { signal, oom_killed: true } => {
                write!(f, "killed by {signal}, out of memory under its limit")
            }
        }
    }
}

/// A process that the runtime made: created, then started, then ended. Dropping it kills it and removes all traces.
#[derive(Debug)]
pub struct Instance {
    id: String,
    pid: Pid,
    pidfd: OwnedFd,
    /// The runtime's end of the channel, until the program runs.
    channel: Option<OwnedFd>,
    plan: InitPlan,
    status: Option<ExitStatus>,
    cgroup: Option<Cgroup>,
    _guardian: Option<Guardian>,
    owner_lock: Option<OwnedFd>,
}

/// What [`Instance::create`] needs.
pub(crate) struct Parts {
    pub id: String,
    pub namespaces: CloneFlags,
    pub id_maps: Option<IdMaps>,
    pub plan: InitPlan,
    pub cgroup: Option<Cgroup>,
    pub device_rules: Option<DeviceRules>,
    pub owner_lock: Option<OwnedFd>,
}

impl Instance {
    /// Clones the child, serves it until it waits before execve.
    pub(crate) fn create(parts: Parts) -> Result<Instance> {
        let Parts { id, namespaces, id_maps, plan, cgroup, device_rules, owner_lock } = parts;
        let (runtime_end, child_end) = channel::pair()
            .map_err(|errno| Error::host("make a socket pair for the container", errno))?;
        let target = match &cgroup {
            Some(cgroup) => cgroup.clone_target()?,
            None => None,
        };
        let trampoline = Trampoline::new(&plan.process.exec, child_end.as_fd())?;
        let keep = plan.descriptors([child_end.as_raw_fd(), trampoline.descriptor()]);
        // SAFETY: the clone runs `init::run` only, which keeps to system calls and prepared memory, as the documentation
        // of all of it demands, and ends in execve or _exit.
        let cloned = unsafe { clone::clone(namespaces, target.as_ref()) };
        let Some(Cloned { pid, pidfd }) =
            cloned.map_err(|errno| explain::clone(errno, namespaces))?
        else {
            init::run(&plan, &trampoline, child_end.as_fd(), &keep)
        };
        drop((child_end, trampoline));
        // From here on, dropping the instance ends the child and removes the cgroup.
        let mut instance = Instance {
            id,
            pid,
            pidfd,
            channel: Some(runtime_end),
            plan,
            status: None,
            cgroup,
            _guardian: None,
            owner_lock,
        };
        // The child has copies; ours would keep the other ends from seeing end-of-file.
        instance.plan.stdio.close();
        if let Some(id_maps) = id_maps {
            id_maps.write(pid)?;
            instance.send(Command::Mapped)?;
        }
        if let Some(cgroup) = instance.cgroup.as_ref().filter(|cgroup| cgroup.needs_join()) {
            // The child mounts its root file system meanwhile.
            let joined = cgroup.join(pid);
            // A child that failed is gone, and cannot be moved; its own report says more.
            match joined {
                Ok(()) => instance.send(Command::Joined)?,
                Err(error) => {
                    instance.send_signal(Signal::SIGKILL)?;
                    return Err(instance.pending_failure().unwrap_or(error.into()));
                }
            }
        }
        if instance.plan.process.kill_with_parent {
            // The child sets itself up meanwhile, and runs nothing of the image's before it is started.
            instance._guardian = Some(Guardian::start(instance.ward())?);
        }
        match instance.receive()? {
            Report::Ready => {}
            Report::Failed(failure) => return Err(instance.explain(failure)),
            Report::Closed => return Err(instance.died("setting up the container")),
        }
        // Only now: the set-up may mount what is on a device, the program may not.
        if let (Some(cgroup), Some(rules)) = (&instance.cgroup, &device_rules) {
            cgroup.restrict_devices(rules)?;
        }
        Ok(instance)
    }

    /// Runs the program.
    ///
    /// # Errors
    /// [`Error::CommandNotFound`] and [`Error::CommandNotExecutable`] when execve fails; [`Error::State`] when called
    /// twice. The process is then gone, and [`Instance::wait`] has 127 or 126 as its exit code.
    pub fn start(&mut self) -> Result<()> {
        if self.channel.is_none() {
            return Err(Error::State { id: self.id.clone(), problem: "has been started already" });
        }
        self.send(Command::Start)?;
        let report = self.receive()?;
        self.channel = None;
        match report {
            // The trampoline's execve closed the other end.
            Report::Closed => Ok(()),
            Report::Failed(failure) => Err(self.explain(failure)),
            Report::Ready => {
                Err(Error::State { id: self.id.clone(), problem: "reported out of turn" })
            }
        }
    }

    /// The process id of the first process, as seen from the caller. It stays reserved until [`Instance::wait`].
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Becomes readable (poll(2)) when the first process has ended; never needs SIGCHLD.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The container's id, as the configuration gave it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The cgroup directories; empty where there is none of its own.
    pub fn cgroup_directories(&self) -> Vec<PathBuf> {
        self.cgroup.as_ref().map(Cgroup::directories).unwrap_or_default()
    }

    /// Sends a signal to the first process. Ok if it has ended already.
    ///
    /// The first process of a pid namespace is its init: of the signals that it has no handler for, the kernel
    /// delivers only SIGKILL and SIGSTOP (pid_namespaces(7)).
    ///
    /// # Errors
    /// The kernel's, for example EPERM.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        self.send_signal(signal)
    }

    /// Waits until the first process has ended. Can be called again: the answer stays the same.
    ///
    /// # Errors
    /// None in practice: the kernel's if the process is not ours to wait for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        match self.reap(WaitPidFlag::WEXITED)? {
            Some(status) => Ok(status),
            None => Err(Error::State { id: self.id.clone(), problem: "ended without a status" }),
        }
    }

    /// As [`Instance::wait`], without waiting: None if it still lives.
    ///
    /// # Errors
    /// As [`Instance::wait`].
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.reap(WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)
    }

    /// What it has used so far. All None where it has no cgroup of its own.
    pub fn stats(&self) -> Stats {
        self.cgroup.as_ref().map(Cgroup::stats).unwrap_or_default()
    }

    /// Whether the kernel has killed a process of this instance because of its memory limit. Keeps its meaning until
    /// [`Instance::remove`].
    pub fn oom_killed(&self) -> bool {
        self.stats().oom_kills.is_some_and(|kills| kills > 0)
    }

    /// Kills what still lives and removes the cgroups. Dropping does the same but cannot report.
    ///
    /// # Errors
    /// A cgroup that cannot be removed.
    pub fn remove(mut self) -> Result<()> {
        self.kill_and_reap();
        match &mut self.cgroup {
            Some(cgroup) => Ok(cgroup.remove()?),
            None => Ok(()),
        }
    }

    fn reap(&mut self, flags: WaitPidFlag) -> Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        let ended = loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), flags) {
                Err(Errno::EINTR) => {}
                other => {
                    break other.map_err(|errno| {
                        Error::host(format!("wait for container {}", self.id), errno)
                    })?;
                }
            }
        };
        self.status = match ended {
            WaitStatus::Exited(_, code) => Some(ExitStatus::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::Signaled {
                signal,
                oom_killed: signal == Signal::SIGKILL && self.oom_killed(),
            }),
            _ => None,
        };
        Ok(self.status)
    }

    fn kill_and_reap(&mut self) {
        if self.status.is_none() && self.send_signal(Signal::SIGKILL).is_ok() {
            // Of our own child that was just killed there is nothing else to learn.
            let _ = self.wait();
        }
    }

    fn send_signal(&self, signal: Signal) -> Result<()> {
        pidfd::send(&self.pidfd, signal as i32)
            .map_err(|errno| Error::host(format!("send {signal} to container {}", self.id), errno))
    }

    /// Sends the child a command. One that is gone has left a report, which `receive` finds.
    fn send(&self, command: Command) -> Result<()> {
        let Some(channel) = &self.channel else { return Ok(()) };
        match channel::send(channel, command) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => {
                Err(Error::host(format!("send a command to container {}", self.id), errno))
            }
        }
    }

    fn receive(&self) -> Result<Report> {
        let Some(channel) = &self.channel else { return Ok(Report::Closed) };
        channel::receive(channel).map_err(|errno| {
            Error::host(format!("receive a report from container {}", self.id), errno)
        })
    }

    fn ward(&self) -> Ward<'_> {
        Ward {
            process: self.pidfd.as_fd(),
            cgroups: self.cgroup_directories(),
            lock: self.owner_lock.as_ref().map(AsFd::as_fd),
        }
    }

    fn pending_failure(&mut self) -> Option<Error> {
        match self.receive() {
            Ok(Report::Failed(failure)) => Some(self.explain(failure)),
            _ => None,
        }
    }

    fn explain(&self, failure: Failure) -> Error {
        explain::setup(&self.id, &self.plan, failure)
    }

    fn died(&mut self, during: &'static str) -> Error {
        let status = self.wait().map_or_else(
            |e| error_reporter::Report::new(e).to_string(),
            |status| status.to_string(),
        );
        Error::Died { id: self.id.clone(), during, status }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Then, field by field, the cgroup with whatever else is in it, and the guardian.
        self.kill_and_reap();
    }
}
