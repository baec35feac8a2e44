//! Everything the first process needs, prepared before it exists: after clone it makes system calls and reads this,
//! nothing else, because it must not allocate (see `clone`).

use std::ffi::CString;
use std::os::fd::OwnedFd;

use crate::namespaces::JoinedNamespace;
use crate::process::plan::ProcessPlan;
use crate::process::stdio::StdioPlan;
use crate::rootfs::plan::RootfsPlan;

/// What the child does between clone and execve.
#[derive(Debug)]
pub(crate) struct InitPlan {
    pub stdio: StdioPlan,
    /// Whoever connects there starts it, in place of the runtime.
    pub start_socket: Option<OwnedFd>,
    /// The child waits for its uid and gid maps.
    pub user_namespace: bool,
    pub join_namespaces: Vec<JoinedNamespace>,
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
    /// Whether the root is the container's only one, as opposed to a host process's, which is in the host's tree.
    pub(crate) fn is_container(&self) -> bool {
        self.rootfs.root.pivot
    }
}
