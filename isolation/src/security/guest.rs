//! What a guest's init is told of a workload's rights: the same fields of the OCI specification that a container's
//! runtime reads.

use isolab_container::{capability_mask, sysctl_path};
use isolab_guest::{CapabilitySets, KernelSettings, Rights, Rlimit};
use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, Process, Spec};

use super::{paths, ulimit};

/// What the process may do.
pub(crate) fn rights(process: &Process) -> Rights {
    Rights {
        capabilities: process.capabilities().as_ref().map(sets),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        rlimits: process.rlimits().iter().flatten().filter_map(rlimit).collect(),
        oom_score_adj: process.oom_score_adj(),
    }
}

fn sets(sets: &LinuxCapabilities) -> CapabilitySets {
    CapabilitySets {
        bounding: capability_mask(sets.bounding()),
        permitted: capability_mask(sets.permitted()),
        ambient: capability_mask(sets.ambient()),
    }
}

fn rlimit(limit: &PosixRlimit) -> Option<Rlimit> {
    let resource = ulimit::number(limit.typ())?;
    Some(Rlimit { resource, soft: limit.soft(), hard: limit.hard() })
}

/// What its kernel is to be set to.
pub(crate) fn kernel_settings(spec: &Spec) -> KernelSettings {
    let sysctls = spec.linux().iter().flat_map(|linux| linux.sysctl().iter().flatten());
    let mut sysctls: Vec<_> =
        sysctls.map(|(name, value)| (sysctl_path(name), value.clone())).collect();
    sysctls.sort_unstable();
    KernelSettings { sysctls, shm_size: paths::shm_size(spec) }
}
