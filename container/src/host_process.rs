//! The baseline without isolation: a plain process of the host, whose root directory is the image's.
//!
//! It shares pids, users, and unless asked otherwise the network, and everything else with the host. A mount namespace of its own has its root, of
//! which no device node can be opened, and the host's /proc, /dev and /sys, so that nothing of it leaks. There is no
//! device cgroup: a root of the host that has the host's /dev is not held by one.

use std::ops::{Deref, DerefMut};
use std::path::Path;

use nix::sched::CloneFlags;
use nix::unistd::geteuid;

use crate::cgroup::{Cgroup, no_limits};
use crate::config::{HostProcessConfig, HostProcessNetwork, check_id};
use crate::error::{Error, Result};
use crate::instance::{Instance, Parts};
use crate::namespaces::JoinedNamespace;
use crate::plan::InitPlan;
use crate::process::plan::ProcessPlan;
use crate::process::stdio::StdioPlan;
use crate::rootfs::mounts::MountPlan;
use crate::rootfs::plan::RootfsPlan;
use crate::rootfs::root::{Entry, RootPlan};

/// The host's trees that nearly every program expects.
const HOST_FILESYSTEMS: [&str; 3] = ["/proc", "/dev", "/sys"];

/// A plain host process in another root directory. See [`Instance`] for what can be done with it.
#[derive(Debug)]
pub struct HostProcess(Instance);

impl HostProcess {
    /// Sets everything up; the process waits just before execve.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, or the first step that failed. Nothing is left behind then.
    pub fn create(config: HostProcessConfig) -> Result<HostProcess> {
        let HostProcessConfig {
            id,
            process,
            rootfs,
            read_only,
            host_filesystems,
            mounts,
            stdio,
            resources,
            cgroup,
            network,
            create_cwd,
            kill_with_parent,
            owner_lock,
        } = config;
        if !geteuid().is_root() {
            let problem = "chroot needs root (CAP_SYS_CHROOT); run as root, or use a container, which needs none";
            return Err(Error::invalid("process isolation", problem));
        }
        check_id(&id)?;
        let mut root = RootPlan::new(&rootfs, false)?;
        (root.entry, root.readonly) = (Entry::Chroot, read_only);
        let mut process = ProcessPlan::new(&process, false)?;
        process.create_cwd = create_cwd;
        process.kill_with_parent = kill_with_parent;
        let trees: &[&str] = if host_filesystems { &HOST_FILESYSTEMS } else { &[] };
        let trees = trees.iter().map(|path| MountPlan::host_tree(Path::new(path)));
        let further =
            mounts.iter().enumerate().map(|(index, mount)| MountPlan::new(mount, index, None));
        let mounts = trees.chain(further).collect::<Result<_>>()?;
        let resources = resources.unwrap_or_else(no_limits);
        if resources.devices().as_ref().is_some_and(|rules| !rules.is_empty()) {
            let problem =
                "rules about devices are for containers; a host process has the host's /dev";
            return Err(Error::unsupported("linux.resources.devices", problem));
        }
        let cgroup = Cgroup::place(cgroup, &id, None, &resources, false)?;
        let mut namespaces = CloneFlags::CLONE_NEWNS;
        let mut joined = Vec::new();
        match network {
            HostProcessNetwork::Host => {}
            HostProcessNetwork::Own => namespaces |= CloneFlags::CLONE_NEWNET,
            HostProcessNetwork::Joined(fd) => joined.push(JoinedNamespace::network(fd)),
        }
        let plan = InitPlan {
            is_container: false,
            stdio: StdioPlan::new(stdio)?,
            start_socket: None,
            user_namespace: false,
            await_id_maps: false,
            join_namespaces: joined,
            join_before: false,
            time: None,
            hostname: None,
            domainname: None,
            loopback: namespaces.contains(CloneFlags::CLONE_NEWNET),
            rootfs: RootfsPlan::with_mounts(root, mounts),
            sysctls: Vec::new(),
            await_cgroup: cgroup.as_ref().is_some_and(Cgroup::needs_join),
            cgroup_namespace: false,
            await_hooks: false,
            process,
        };
        let device_rules = None;
        let pid_namespace = None;
        let parts = Parts {
            id,
            namespaces,
            pid_namespace,
            id_maps: None,
            net_devices: Vec::new(),
            plan,
            cgroup,
            awaited: None,
            device_rules,
            owner_lock,
            told: None,
        };
        Instance::create(parts).map(HostProcess)
    }

    /// As [`Instance::remove`].
    ///
    /// # Errors
    /// A cgroup that cannot be removed.
    pub fn remove(self) -> Result<()> {
        self.0.remove()
    }

    /// The running instance, to be waited for, signalled and removed.
    pub fn into_instance(self) -> Instance {
        self.0
    }
}

impl Deref for HostProcess {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.0
    }
}

impl DerefMut for HostProcess {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.0
    }
}
