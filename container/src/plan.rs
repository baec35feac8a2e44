//! Everything the first process needs, prepared before it exists: after clone it makes system calls and reads this,
//! nothing else, because it must not allocate (see `clone`).

use std::ffi::CString;
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;

use crate::namespaces::JoinedNamespace;
use crate::process::plan::ProcessPlan;
use crate::process::stdio::StdioPlan;
use crate::rootfs::plan::RootfsPlan;
use crate::rootfs::root::Entry;
use crate::step::{Parts, Step};

/// What the child does between clone and execve.
#[derive(Debug)]
pub(crate) struct InitPlan {
    /// As opposed to a host process.
    pub is_container: bool,
    pub stdio: StdioPlan,
    /// Whoever connects there starts it, in place of the runtime.
    pub start_socket: Option<OwnedFd>,
    /// It is in another user namespace than the runtime.
    pub user_namespace: bool,
    /// That one is new: the child waits for its uid and gid maps.
    pub await_id_maps: bool,
    pub join_namespaces: Vec<JoinedNamespace>,
    /// They are joined before the clone, by a process between: a user namespace is among them, or will be new.
    pub join_before: bool,
    /// The offsets of a new time namespace.
    pub time: Option<CString>,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    pub loopback: bool,
    pub rootfs: RootfsPlan,
    /// (path below /proc/sys of the host, value)
    pub sysctls: Vec<(CString, CString)>,
    /// The runtime moves the child into its cgroups while the child works, and says so.
    pub await_cgroup: bool,
    pub cgroup_namespace: bool,
    /// The runtime runs hooks when the root is filled, and says so.
    pub await_hooks: bool,
    pub process: ProcessPlan,
}

impl InitPlan {
    /// Whether the root is a part of what is mounted, as opposed to all of it.
    pub(crate) fn is_chrooted(&self) -> bool {
        matches!(self.rootfs.root.entry, Entry::Chroot)
    }

    /// The network namespace that is joined.
    pub(crate) fn joined_network(&self) -> Option<&OwnedFd> {
        let is_network = |joined: &&JoinedNamespace| joined.is(CloneFlags::CLONE_NEWNET);
        self.join_namespaces.iter().find(is_network).map(|joined| &joined.fd)
    }
}

impl Parts for InitPlan {
    fn part(&self, step: Step, index: usize) -> String {
        let lossy = |path: &CString| path.to_string_lossy().into_owned();
        let own = match step {
            Step::JoinNamespace => {
                self.join_namespaces.get(index).map(|joined| joined.path.display().to_string())
            }
            Step::Sysctl => self.sysctls.get(index).map(|(path, _)| lossy(path)),
            _ => None,
        };
        own.unwrap_or_else(|| self.rootfs.part(step, index) + &self.process.part(step, index))
    }
}
