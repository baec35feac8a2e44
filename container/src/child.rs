//! A process that the runtime cloned, from the clone to its end: the first of a container, and those that join it.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollTimeout;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::between::{Between, clone_from_within};
use crate::channel::{self, Command, Report};
use crate::child_plan::ChildPlan;
use crate::clone::{Cloned, Parent, clone};
use crate::error::{Error, Result};
use crate::explain;
use crate::init;
use crate::pidfd;
use crate::process::trampoline::Trampoline;
use crate::standing_back::StandingBack;
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

/// What a process has come to on its way to its program.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Only the program is left.
    Ready,
    /// Its filter's notifications are to be handed to whoever answers them.
    Listener(OwnedFd),
    /// It waits for the hooks of its creation.
    Filled,
}

/// The process. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Child {
    /// The container's, for errors.
    id: String,
    pid: Pid,
    pidfd: OwnedFd,
    /// The runtime's end of the channel, until the program runs.
    channel: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
    status: Option<ExitStatus>,
    released: bool,
}

impl Child {
    /// Clones a process that carries out `plan` and executes its program, into new namespaces and `cgroup`.
    pub(crate) fn spawn(
        id: &str,
        plan: &impl ChildPlan,
        namespaces: CloneFlags,
        cgroup: Option<&OwnedFd>,
    ) -> Result<Child, Spawn> {
        let (runtime_end, child_end) = channel::pair()
            .map_err(|errno| Error::host("make a socket pair for the container", errno))?;
        let trampoline = Trampoline::new(plan.process(), child_end.as_fd())?;
        let mut keep = plan.descriptors();
        keep.extend([child_end.as_raw_fd(), trampoline.descriptor()]);
        keep.sort_unstable();
        let cloned = if plan.begins_elsewhere() {
            let report =
                |failure: &Failure| channel::report_failure(child_end.as_raw_fd(), failure);
            // SAFETY: the process between runs `enter` and `report` only, and the clone `init::run`, which keep to system
            // calls and prepared memory, as the documentation of all of it demands, and end in execve or _exit.
            unsafe { clone_from_within(|| plan.enter(), report, namespaces, cgroup) }
        } else {
            // SAFETY: as above, without a process between.
            let cloned = unsafe { clone(namespaces, cgroup, Parent::Caller) };
            cloned.map(|cloned| cloned.map_or(Between::InClone, Between::Cloned))
        };
        let Cloned { pid, pidfd } = match cloned.map_err(Spawn::Clone)? {
            Between::Cloned(cloned) => cloned,
            Between::InClone => init::run(plan, &trampoline, child_end.as_fd(), &keep),
            Between::NotEntered => {
                let failed = |errno| Error::host(format!("enter namespaces for {id}"), errno);
                return Err(Spawn::Prepare(
                    match channel::receive(&runtime_end).map_err(failed)? {
                        Report::Failed(failure) => explain::setup(id, plan, failure),
                        _ => failed(Errno::ECHILD),
                    },
                ));
            }
        };
        Ok(Child {
            id: id.to_owned(),
            pid,
            pidfd,
            channel: Some(runtime_end),
            terminal: None,
            status: None,
            released: false,
        })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    pub(crate) fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    pub(crate) fn terminal_clone(&self) -> Result<Option<OwnedFd>> {
        let clone = self.terminal.as_ref().map(OwnedFd::try_clone).transpose();
        clone.map_err(|source| Error::host("duplicate a terminal's descriptor", source))
    }

    /// Leaves the process to itself, whoever its parent will be.
    pub(crate) fn release(&mut self) {
        self.released = true;
    }

    /// Waits until everything is set up and only the program is left, or for what has to be done meanwhile.
    pub(crate) fn progress(
        &mut self,
        plan: &impl ChildPlan,
        during: &'static str,
    ) -> Result<Progress> {
        loop {
            match self.receive()? {
                Report::Ready => return Ok(Progress::Ready),
                Report::Listener(notifications) => return Ok(Progress::Listener(notifications)),
                Report::Filled => return Ok(Progress::Filled),
                Report::Terminal(master) => self.terminal = Some(master),
                Report::Failed(failure) => return Err(self.explain(plan, failure)),
                Report::Closed => return Err(self.died(during)),
            }
        }
    }

    /// Runs the program. What is not told within `limit` is taken for success: from the trampoline on, others of the
    /// container can get at the channel, and could hold it open for ever.
    pub(crate) fn start(&mut self, plan: &impl ChildPlan, limit: PollTimeout) -> Result<()> {
        let Some(channel) = self.channel.take() else {
            return Err(self.state("has been started already"));
        };
        let _until_it_runs = StandingBack::new();
        self.send_over(&channel, Command::Start)?;
        if !channel::wait(&channel, limit).map_err(|errno| self.unreceived(errno))? {
            return Ok(());
        }
        match self.receive_from(&channel)? {
            // The trampoline's execve closed the other end.
            Report::Closed => Ok(()),
            Report::Failed(failure) => Err(self.explain(plan, failure)),
            _ => Err(self.state("reported out of turn")),
        }
    }

    /// Sends the child a command. One that is gone has left a report, which `receive` finds.
    pub(crate) fn send(&self, command: Command) -> Result<()> {
        self.channel.as_ref().map_or(Ok(()), |channel| self.send_over(channel, command))
    }

    fn send_over(&self, channel: &OwnedFd, command: Command) -> Result<()> {
        match channel::send(channel, command) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => {
                Err(Error::host(format!("send a command to container {}", self.id), errno))
            }
        }
    }

    fn receive(&self) -> Result<Report> {
        self.channel.as_ref().map_or(Ok(Report::Closed), |channel| self.receive_from(channel))
    }

    fn receive_from(&self, channel: &OwnedFd) -> Result<Report> {
        channel::receive(channel).map_err(|errno| self.unreceived(errno))
    }

    fn unreceived(&self, errno: Errno) -> Error {
        Error::host(format!("receive a report from container {}", self.id), errno)
    }

    /// Why the child gave up, if it has said so.
    pub(crate) fn pending_failure(&self, plan: &impl ChildPlan) -> Option<Error> {
        match self.receive() {
            Ok(Report::Failed(failure)) => Some(self.explain(plan, failure)),
            _ => None,
        }
    }

    pub(crate) fn send_signal(&self, signal: Signal) -> Result<()> {
        // A process that has been waited for has no pid, which a pidfd knows.
        pidfd::send(&self.pidfd, signal as i32)
            .map_err(|errno| Error::host(format!("send {signal} to container {}", self.id), errno))
    }

    /// How it ended, once it has. `oom_killed`: whether the container has lost processes to its memory limit.
    pub(crate) fn reap(
        &mut self,
        flags: WaitPidFlag,
        oom_killed: impl Fn() -> bool,
    ) -> Result<Option<ExitStatus>> {
        if self.status.is_some() {
            return Ok(self.status);
        }
        let ended = pidfd::reap(self.pidfd.as_fd(), flags)
            .map_err(|errno| Error::host(format!("wait for container {}", self.id), errno))?;
        self.status = match ended {
            WaitStatus::Exited(_, code) => Some(ExitStatus::Exited(code)),
            WaitStatus::Signaled(_, signal, _) => Some(ExitStatus::Signaled {
                signal,
                oom_killed: signal == Signal::SIGKILL && oom_killed(),
            }),
            _ => None,
        };
        Ok(self.status)
    }

    /// As [`Child::reap`], waiting.
    pub(crate) fn wait(&mut self, oom_killed: impl Fn() -> bool) -> Result<ExitStatus> {
        let ended = self.reap(WaitPidFlag::WEXITED, oom_killed)?;
        ended.ok_or_else(|| self.state("ended without a status"))
    }

    pub(crate) fn kill_and_reap(&mut self) {
        if !self.released && self.status.is_none() && self.send_signal(Signal::SIGKILL).is_ok() {
            // Of our own child that was just killed there is nothing else to learn.
            let _ = self.wait(|| false);
        }
    }

    pub(crate) fn state(&self, problem: &'static str) -> Error {
        Error::State { id: self.id.clone(), problem }
    }

    fn explain(&self, plan: &impl ChildPlan, failure: Failure) -> Error {
        explain::setup(&self.id, plan, failure)
    }

    fn died(&mut self, during: &'static str) -> Error {
        let status = self.wait(|| false).map_or_else(
            |e| error_reporter::Report::new(e).to_string(),
            |status| status.to_string(),
        );
        Error::Died { id: self.id.clone(), during, status }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill_and_reap();
    }
}

/// Why there is no child.
#[derive(Debug)]
pub(crate) enum Spawn {
    /// clone3(2) refused.
    Clone(Errno),
    /// What had to be made for it could not be.
    Prepare(Error),
}

impl From<Error> for Spawn {
    fn from(error: Error) -> Self {
        Spawn::Prepare(error)
    }
}
