//! What runs inside a process that joins a running container, between clone and execve; `init` has the first one's.
//!
//! Until its execve it is the runtime's code with the runtime's rights, in sight of processes that may be hostile. So:
//! it is not dumpable from its first instruction on, and none of them can trace it or look at it through /proc; all
//! descriptors but those of its plan are closed before it joins anything (CVE-2016-9962, CVE-2024-21626); it is under
//! the container's limits, in its cgroup, before it is in its namespaces; it names nothing by a path of the container's
//! /proc; and what the program finds at /proc/self/exe is the trampoline (CVE-2019-5736).

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, chroot, fchdir, setsid};

use crate::channel::{self, Command};
use crate::child_plan::ChildPlan;
use crate::init;
use crate::process::plan::ProcessPlan;
use crate::process::stdio::StdioPlan;
use crate::process::{credentials, keyring};
use crate::step::{At, Failure, Parts, Step};

/// Everything that a further process needs, prepared before it exists.
#[derive(Debug)]
pub(crate) struct JoinPlan {
    pub stdio: StdioPlan,
    /// The container's first process.
    pub target: OwnedFd,
    /// Its namespaces that are not ours and are joined by the clone itself. That of pids it is in already.
    pub namespaces: CloneFlags,
    /// Those that a process between joins first, which a caller needs who has no rights outside of them.
    pub born_in: CloneFlags,
    /// The root directory, where it is not its mount namespace's own.
    pub root: Option<OwnedFd>,
    /// The runtime moves the child into version 1 cgroups, and says so.
    pub await_cgroup: bool,
    pub process: ProcessPlan,
}

impl ChildPlan for JoinPlan {
    fn process(&self) -> &ProcessPlan {
        &self.process
    }

    fn descriptors(&self) -> Vec<RawFd> {
        let own = [Some(&self.target), self.root.as_ref()];
        let own = own.into_iter().flatten().map(AsRawFd::as_raw_fd);
        self.stdio.descriptors().chain(own).collect()
    }

    fn further_descriptors(&self) -> u32 {
        self.stdio.further
    }

    fn begins_elsewhere(&self) -> bool {
        !self.born_in.is_empty()
    }

    fn enter(&self) -> Result<(), Failure> {
        // The process between is not in sight yet, and its files of /proc are still ours to write to.
        init::set_oom_score(&self.process)?;
        prctl::set_dumpable(false).at(Step::NotDumpable)?;
        setns(self.target.as_fd(), self.born_in).at(Step::JoinContainer)
    }

    fn set_up(&self, child_end: RawFd) -> Result<(), Failure> {
        // The clone has it from the runtime; a runtime that changed its mind meanwhile does not count.
        prctl::set_dumpable(false).at(Step::NotDumpable)?;
        init::take_streams(&self.stdio)?;
        setsid().at(Step::NewSession)?;
        umask(Mode::empty());
        if !self.begins_elsewhere() {
            // By the host's /proc, as long as it is in sight.
            init::set_oom_score(&self.process)?;
        }
        self.process.scheduling.before_joining()?;
        if self.await_cgroup {
            channel::await_command(child_end, Command::Joined).at(Step::AwaitCgroup)?;
        }
        self.process.scheduling.apply()?;
        if let Some(label) = &self.process.label {
            label.apply()?;
        }
        if self.process.new_keyring {
            keyring::join_new_session().at(Step::Keyring)?;
        }
        // All at once, or none: what is checked, and who we are, does not change in between.
        setns(self.target.as_fd(), self.namespaces).at(Step::JoinContainer)?;
        self.enter_root().at(Step::ChangeRoot)?;
        if (self.namespaces | self.born_in).contains(CloneFlags::CLONE_NEWUSER) {
            credentials::become_root_of_user_namespace()?;
        }
        for (index, limit) in self.process.rlimits.iter().enumerate() {
            limit.apply().at_index(Step::Rlimit, index)?;
        }
        if let Some(terminal) = &self.process.terminal {
            let root = open(c"/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
            let root = root.at(Step::Terminal)?;
            init::take_terminal(terminal, &root, self.process.uid, child_end)?;
        }
        init::become_the_process(&self.process, child_end)?;
        channel::report_ready(child_end).at(Step::Report)?;
        channel::await_command(child_end, Command::Start).at(Step::AwaitStart)
    }
}

impl Parts for JoinPlan {
    fn part(&self, step: Step, index: usize) -> String {
        self.process.part(step, index)
    }
}

impl JoinPlan {
    fn enter_root(&self) -> Result<(), Errno> {
        // To join a mount namespace is to be in its root, which in a container is the only one.
        let Some(root) = &self.root else { return Ok(()) };
        fchdir(root)?;
        chroot(c".")?;
        chdir(c"/")
    }
}
