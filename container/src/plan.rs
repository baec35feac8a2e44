//! Everything the child needs, prepared before it exists: after clone it makes system calls and reads this, nothing
//! else, because it must not allocate (see `clone`).

use std::ffi::CString;
use std::os::fd::{AsRawFd, RawFd};

use crate::namespaces::JoinedNamespace;
use crate::process::plan::ProcessPlan;
use crate::process::stdio::StdioPlan;
use crate::rootfs::plan::RootfsPlan;

/// What the child does between clone and execve.
#[derive(Debug)]
pub(crate) struct InitPlan {
    pub stdio: StdioPlan,
    /// The child waits for its uid and gid maps.
    pub user_namespace: bool,
    pub join_namespaces: Vec<JoinedNamespace>,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    pub loopback: bool,
    pub rootfs: RootfsPlan,
    /// (path below /proc/sys of the host, value)
    pub sysctls: Vec<(CString, CString)>,
    /// The runtime moves the child into its cgroups while the child works, and says so.
    pub await_cgroup: bool,
    pub cgroup_namespace: bool,
    pub process: ProcessPlan,
}

impl InitPlan {
    /// The descriptors, ascending, that the child keeps besides its standard streams.
    /// `own`: the channel's and the trampoline's.
    pub(crate) fn descriptors(&self, own: [RawFd; 2]) -> Vec<RawFd> {
        let namespaces = self.join_namespaces.iter().map(|joined| joined.fd.as_raw_fd());
        let mut all: Vec<RawFd> = self.stdio.descriptors().chain(namespaces).chain(own).collect();
        all.sort_unstable();
        all
    }
}
