//! A created process and its life from there on; containers and host processes alike.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::poll::PollTimeout;
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitPidFlag;
use oci_spec::runtime::{Hooks, Process, State};

use crate::cgroup::{Awaited, Cgroup, DeviceRules, Stats};
use crate::channel::Command;
use crate::child::{Child, ExitStatus, Progress, Spawn};
use crate::error::{Error, Result};
use crate::explain;
use crate::guardian::{Guardian, Ward};
use crate::handle::Handle;
use crate::hooks;
use crate::idmap::IdMaps;
use crate::net_devices::{self, NetDevice};
use crate::pid_namespace::{ChildrenIn, Hidden};
use crate::plan::InitPlan;

/// A process that the runtime made: created, then started, then ended. Dropping it kills it and removes all traces.
#[derive(Debug)]
pub struct Instance {
    // Dropped first: then the cgroup with whatever else is in it, and the guardian.
    child: Child,
    plan: InitPlan,
    cgroup: Option<Cgroup>,
    _guardian: Option<Guardian>,
    owner_lock: Option<OwnedFd>,
    /// Made with the child, and owned by its user namespace.
    network_namespace: Option<OwnedFd>,
    /// What others are told of a container, and the hooks that are told.
    told: Option<Told>,
}

/// Who is told of a container's life, and what.
#[derive(Debug)]
pub(crate) struct Told {
    pub state: State,
    pub hooks: Hooks,
    /// As whom the hooks inside run.
    pub process: Process,
}

/// What [`Instance::create`] needs.
pub(crate) struct Parts {
    pub id: String,
    pub namespaces: CloneFlags,
    /// In which it is born.
    pub pid_namespace: Option<OwnedFd>,
    pub id_maps: Option<IdMaps>,
    /// They become the container's.
    pub net_devices: Vec<NetDevice>,
    pub plan: InitPlan,
    pub cgroup: Option<Cgroup>,
    /// One that somebody else makes, in its place.
    pub awaited: Option<Awaited>,
    pub device_rules: Option<DeviceRules>,
    pub owner_lock: Option<OwnedFd>,
    pub told: Option<Told>,
}

impl Instance {
    /// Clones the child, serves it until it waits before execve.
    pub(crate) fn create(parts: Parts) -> Result<Instance> {
        let Parts {
            id,
            namespaces,
            pid_namespace,
            id_maps,
            net_devices,
            plan,
            cgroup,
            awaited,
            device_rules,
            owner_lock,
            told,
        } = parts;
        let target = match &cgroup {
            Some(cgroup) => cgroup.clone_target()?,
            None => None,
        };
        let born_in = pid_namespace.as_ref().map(|namespace| {
            let hidden = Hidden::new()?;
            Ok::<_, Error>((hidden, ChildrenIn::new(namespace.as_fd())?))
        });
        let born_in = born_in.transpose()?;
        let spawned = Child::spawn(&id, &plan, namespaces, target.as_ref());
        let child = spawned.map_err(|error| match error {
            Spawn::Clone(errno) => explain::clone(errno, namespaces),
            Spawn::Prepare(error) => error,
        })?;
        drop(born_in);
        // From here on, dropping the instance ends the child and removes the cgroup.
        let mut instance = Instance {
            child,
            plan,
            cgroup,
            _guardian: None,
            owner_lock,
            network_namespace: None,
            told,
        };
        if let Some(told) = &mut instance.told {
            told.state.set_pid(Some(instance.child.pid().as_raw()));
        }
        // The child has copies; ours would keep the other ends from seeing end-of-file.
        instance.plan.stdio.close();
        let child = &mut instance.child;
        if let Some(id_maps) = &id_maps {
            id_maps.write(child.pid())?;
        }
        let is_new_network = namespaces.contains(CloneFlags::CLONE_NEWNET);
        if is_new_network && (id_maps.is_some() || !net_devices.is_empty()) {
            // While it waits for us, in a new user namespace: soon it lets nobody look at it.
            let path = format!("/proc/{}/ns/net", child.pid());
            let opened = File::open(&path);
            let opened = opened.map_err(|source| Error::host(format!("open {path}"), source))?;
            instance.network_namespace = Some(opened.into());
        }
        if !net_devices.is_empty() {
            let joined = instance.plan.joined_network().map(AsFd::as_fd);
            let network = instance.network_namespace.as_ref().map(AsFd::as_fd).or(joined);
            // The plan has devices only with a namespace for them.
            if let Some(network) = network {
                net_devices::move_all(&net_devices, network, child.pid().as_raw())?;
            }
        }
        if id_maps.is_some() {
            child.send(Command::Mapped)?;
        }
        // The child mounts its root file system meanwhile.
        let adopted = awaited.map(|awaited| awaited.adopt(child.pid())).transpose();
        let joined = adopted.and_then(|adopted| {
            instance.cgroup = instance.cgroup.take().or(adopted);
            match &instance.cgroup {
                Some(cgroup) => Ok(cgroup.join(child.pid())?),
                None => Ok(()),
            }
        });
        match joined {
            Ok(()) if instance.plan.await_cgroup => child.send(Command::Joined)?,
            Ok(()) => {}
            // A child that failed is gone, and cannot be moved; its own report says more.
            Err(error) => {
                child.send_signal(Signal::SIGKILL)?;
                return Err(child.pending_failure(&instance.plan).unwrap_or(error));
            }
        }
        if instance.plan.process.kill_with_parent {
            // The child sets itself up meanwhile, and runs nothing of the image's before it is started.
            instance._guardian = Some(Guardian::start(instance.ward())?);
        }
        loop {
            match instance.child.progress(&instance.plan, "setting up the container")? {
                Progress::Ready => break,
                Progress::Listener(notifications) => instance.notify(&notifications)?,
                Progress::Filled => {
                    if let Some(told) = &instance.told {
                        hooks::at_creation(&told.hooks, &instance.handle()?, &told.state)?;
                    }
                    instance.child.send(Command::Hooked)?;
                }
            }
        }
        // Only now: the set-up may mount what is on a device, the program may not.
        if let (Some(cgroup), Some(rules)) = (&instance.cgroup, &device_rules) {
            cgroup.restrict_devices(rules)?;
        }
        Ok(instance)
    }

    /// Lets a container that is to be started later outlive its maker: to be called when others can find it, and
    /// before anybody starts it.
    ///
    /// # Errors
    /// None in practice: those of a socket.
    pub fn is_known(&self) -> Result<()> {
        self.child.send(Command::Known)
    }

    /// Runs the program, and the hooks before and after.
    ///
    /// # Errors
    /// A hook that failed: the process is killed then. [`Error::CommandNotFound`] and [`Error::CommandNotExecutable`] when execve fails; [`Error::State`] when called
    /// twice. The process is then gone, and [`Instance::wait`] has 127 or 126 as its exit code.
    pub fn start(&mut self) -> Result<()> {
        let Some(told) = &self.told else {
            // Nobody else is in there yet.
            return self.child.start(&self.plan, PollTimeout::NONE);
        };
        let before =
            || hooks::before_start(&told.hooks, &told.process, &self.handle()?, &told.state);
        let started = before()
            .and_then(|()| self.child.start(&self.plan, PollTimeout::NONE))
            .and_then(|()| hooks::after_start(&told.hooks, &told.state));
        if started.is_err() {
            self.child.send_signal(Signal::SIGKILL)?;
        }
        started
    }

    /// Hands the notifications of the filter to whoever answers them.
    fn notify(&self, notifications: &OwnedFd) -> Result<()> {
        let filter = self.plan.process.seccomp.as_ref();
        let listener = filter.and_then(|filter| filter.listener.as_ref());
        match (listener, &self.told) {
            (Some(listener), Some(told)) => listener.send(notifications, self.pid(), &told.state),
            _ => Ok(()),
        }
    }

    /// The process id of the first process, as seen from the caller. It stays reserved until [`Instance::wait`].
    pub fn pid(&self) -> i32 {
        self.child.pid().as_raw()
    }

    /// Becomes readable (poll(2)) when the first process has ended; never needs SIGCHLD.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd()
    }

    /// The network namespace that was made with a new user namespace, which owns it: whoever connects it enters that
    /// first. None where the network is the caller's own to change.
    pub fn network_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.network_namespace.as_ref().map(AsFd::as_fd)
    }

    /// The container's id, as the configuration gave it.
    pub fn id(&self) -> &str {
        self.child.id()
    }

    /// The master of the terminal, once, if `process.terminal` asked for one.
    pub fn terminal(&mut self) -> Option<OwnedFd> {
        self.child.terminal()
    }

    /// Another descriptor of that master, to [`resize`](crate::resize) the terminal by. None if it was taken already.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn terminal_clone(&self) -> Result<Option<OwnedFd>> {
        self.child.terminal_clone()
    }

    /// What reaches the instance from any thread, as long as it runs.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn handle(&self) -> Result<Handle> {
        let pidfd = self.pidfd().try_clone_to_owned();
        let pidfd =
            pidfd.map_err(|source| Error::host("duplicate a process's descriptor", source))?;
        Ok(Handle {
            id: self.id().to_owned(),
            pid: self.child.pid(),
            pidfd,
            cgroups: self.cgroup.as_ref().map(Cgroup::memberships).unwrap_or_default(),
            seccomp: self.plan.process.seccomp.clone(),
            is_container: self.plan.is_container,
            is_chrooted: self.plan.is_chrooted(),
            state: self.told.as_ref().map(|told| told.state.clone()),
        })
    }

    /// Leaves the instance to itself: it outlives this value and the runtime, and somebody else removes it.
    pub fn release(mut self) {
        self.child.release();
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.leave();
        }
    }

    /// The cgroup directories; empty where there is none of its own.
    pub fn cgroup_directories(&self) -> Vec<PathBuf> {
        self.cgroup.as_ref().map(|cgroup| cgroup.memberships().directories()).unwrap_or_default()
    }

    /// Sends a signal to the first process. Ok if it has ended already.
    ///
    /// The first process of a pid namespace is its init: of the signals that it has no handler for, the kernel
    /// delivers only SIGKILL and SIGSTOP (pid_namespaces(7)).
    ///
    /// # Errors
    /// The kernel's, for example EPERM.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.child.status().is_some() {
            return Ok(());
        }
        self.child.send_signal(signal)
    }

    /// Waits until the first process has ended. Can be called again: the answer stays the same.
    ///
    /// # Errors
    /// None in practice: the kernel's if the process is not ours to wait for.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        let cgroup = &self.cgroup;
        self.child.wait(|| oom_killed(cgroup))
    }

    /// As [`Instance::wait`], without waiting: None if it still lives.
    ///
    /// # Errors
    /// As [`Instance::wait`].
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        let cgroup = &self.cgroup;
        self.child.reap(WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG, || oom_killed(cgroup))
    }

    /// What it has used so far. All None where it has no cgroup of its own.
    pub fn stats(&self) -> Stats {
        stats(&self.cgroup)
    }

    /// Whether the kernel has killed a process of this instance because of its memory limit. Keeps its meaning until
    /// [`Instance::remove`].
    pub fn oom_killed(&self) -> bool {
        oom_killed(&self.cgroup)
    }

    /// Kills what still lives and removes the cgroups. Dropping does the same but cannot report.
    ///
    /// # Errors
    /// A cgroup that cannot be removed; or, when all is removed, a poststop hook that failed.
    pub fn remove(mut self) -> Result<()> {
        self.child.kill_and_reap();
        if let Some(cgroup) = &mut self.cgroup {
            cgroup.remove()?;
        }
        // All is gone, whatever they say.
        let told = self.told.take();
        let failed = told.map(|told| hooks::after_removal(&told.hooks, &told.state));
        failed.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    fn ward(&self) -> Ward<'_> {
        Ward {
            process: self.pidfd(),
            cgroups: self.cgroup_directories(),
            lock: self.owner_lock.as_ref().map(AsFd::as_fd),
        }
    }
}

fn stats(cgroup: &Option<Cgroup>) -> Stats {
    cgroup.as_ref().map(|cgroup| cgroup.memberships().stats()).unwrap_or_default()
}

fn oom_killed(cgroup: &Option<Cgroup>) -> bool {
    stats(cgroup).oom_kills.is_some_and(|kills| kills > 0)
}
