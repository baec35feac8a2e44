//! The OCI container runtime, as a library.
//!
//! A [`Container`] is made from an OCI runtime configuration: [`Container::create`] makes namespaces, cgroup and root
//! filesystem and leaves the first process waiting just before execve; [`Instance::start`] lets it go,
//! [`Instance::wait`] tells how it ended, [`Container::remove`] or a drop leaves nothing behind. A [`HostProcess`] is
//! the baseline without isolation and behaves the same: exit codes, errors, environment, limits.
//!
//! A [`Handle`] reaches a container that runs from anywhere: further processes ([`Handle::exec`]), pause, figures.
//!
//! The life of a container, in files: `container` (the plan) → `clone` → `init` (inside: `namespaces`, `rootfs`,
//! `process`) while `instance` serves it from outside (`idmap`, `cgroup`, `channel`) and afterwards holds it.
//!
//! The child between clone and execve makes system calls on prepared memory only; `clone` says why.

mod between;
mod cgroup;
mod channel;
mod child;
mod child_plan;
mod clone;
mod config;
mod container;
mod default_seccomp;
mod descriptors;
mod error;
mod executed;
mod explain;
mod guardian;
mod handle;
pub mod hooks;
mod host_process;
mod idmap;
mod init;
mod instance;
mod join;
mod later;
mod namespaces;
mod net_devices;
mod pid_namespace;
pub mod pidfd;
mod plan;
mod proc_file;
mod process;
pub mod processes;
mod rootfs;
mod spec;
mod standing_back;
mod step;
mod sysctl;
mod user_namespace;
mod wire;

pub use cgroup::{
    BlockUsage, CPU_PERIOD_MICROSECONDS, CgroupError, CgroupManager, CgroupPlacement, Counter,
    CpuUsage, Membership, Memberships, MemoryUsage, OomWatch, Stats, Usage, remove_cgroups,
    remove_empty_cgroup, weight_from_shares,
};
pub use child::ExitStatus;
pub use config::{
    ContainerConfig, HostProcessConfig, HostProcessNetwork, RootFilesystem, Stdio, Stream,
    WindowSize,
};
pub use container::Container;
pub use default_seccomp::default_seccomp;
pub use error::{Error, Result};
pub use executed::{Executed, Released};
pub use handle::Handle;
pub use host_process::HostProcess;
pub use instance::Instance;
pub use later::{start_at, start_socket};
pub use namespaces::{NAMESPACES, is_root_of_host};
pub use nix::sys::signal::Signal;
pub use oci_spec::runtime as oci;
pub use process::capabilities::{available_capabilities, capability_mask, known_capabilities};
pub use process::plan::NO_ID;
pub use process::terminal::resize;
pub use rootfs::options::mount_options;
pub use spec::{DEFAULT_CAPABILITIES, DEFAULT_PATH, Limits, default_process, default_spec};
pub use sysctl::sysctl_path;
pub use user_namespace::{
    as_root_of_joined_user_namespace, as_root_of_user_namespace, user_and_network_namespace,
};
