//! Where a container's cgroup is.

/// Where in the cgroup tree a container goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupPlacement {
    /// A cgroup of its own: `linux.cgroupsPath` of the configuration, otherwise `isolab-ID`, below the caller's own
    /// cgroup on cgroup v1 and at the top on v2 (where a cgroup with processes cannot have limited children).
    /// Where the tree is not writable this is an error if any limit was asked for; otherwise the process stays in the
    /// caller's cgroup, and [`stats`](crate::Instance::stats) has nothing to tell.
    #[default]
    Own,
    /// A cgroup of its own without controllers, in the version 2 hierarchy where there is one: to know all processes,
    /// and to kill them together. For host processes, which no pid namespace holds together. Asking for limits as well
    /// is an error.
    Tracked,
    /// Stay in the caller's cgroup. Asking for limits as well is an error.
    Inherit,
}
