//! What a process in a guest may do, where it is not all that its user may.

use serde::{Deserialize, Serialize};

/// The rights and resource limits of the OCI runtime specification's `process`, as init applies them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rights {
    /// Without them, root has all that the guest's kernel knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilitySets>,
    /// Whether no execve gives more than it has (prctl(2), PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// Resource limits; what is not named stays as the kernel has it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// How soon the guest's kernel kills it when memory runs out: -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
}

/// Capability sets (capabilities(7)): bit N is capability number N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilitySets {
    /// What can ever be had.
    pub bounding: u64,
    /// What the process has: permitted and effective.
    pub permitted: u64,
    /// What a user other than root keeps across execve: ambient and inheritable.
    pub ambient: u64,
}

/// One resource limit (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_*` of Linux.
    pub resource: u32,
    /// What holds; `u64::MAX` is no limit.
    pub soft: u64,
    /// How far the process may raise it.
    pub hard: u64,
}

/// Settings of the guest's kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KernelSettings {
    /// Path below /proc/sys, and what is written there, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sysctls: Vec<(String, String)>,
    /// How much /dev/shm holds, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<u64>,
}
