//! The usual OCI configuration: what `runc spec` writes and podman starts from, as a value to be refined.

use std::collections::HashSet;
use std::path::Path;

use nix::unistd::{getegid, geteuid};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Arch, Capability, LinuxCapabilities, LinuxCpuBuilder, LinuxIdMappingBuilder,
    LinuxMemoryBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder, LinuxSeccomp, LinuxSeccompAction,
    LinuxSeccompBuilder, LinuxSyscallBuilder, Mount, Process, Root, Spec,
};

use crate::cgroup::CPU_PERIOD_MICROSECONDS;
use crate::error::{Error, Result};

/// The search path of a process whose environment has none, as Docker and podman have it.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's default capabilities without `CAP_MKNOD`, which podman dropped too: nothing in a usual container makes
/// device nodes, and without it a container cannot reach the host's disks even where no device cgroup guards them.
pub const DEFAULT_CAPABILITIES: [Capability; 13] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// Limits that mean the same at every isolation level. None means unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Bytes of memory. Swap is not available on top of it, as it is not to a guest with that much RAM.
    pub memory_bytes: Option<u64>,
    /// CPUs' worth of time, for example 1.5.
    pub cpus: Option<f64>,
    /// How many processes and threads there may be at a time.
    pub pids: Option<u32>,
}

impl Limits {
    /// The limits in the words of the OCI runtime specification.
    ///
    /// # Errors
    /// A memory limit above 2^63, or a CPU limit below 0.01 or not a number.
    pub fn to_resources(self) -> Result<LinuxResources> {
        let mut resources = LinuxResourcesBuilder::default().build().map_err(builder)?;
        if let Some(bytes) = self.memory_bytes {
            let bytes = i64::try_from(bytes)
                .map_err(|_| Error::invalid("linux.resources.memory.limit", "above 2^63 bytes"))?;
            let memory = LinuxMemoryBuilder::default().limit(bytes).swap(bytes).build();
            resources.set_memory(Some(memory.map_err(builder)?));
        }
        if let Some(cpus) = self.cpus {
            // The kernel refuses quotas under 1 ms; the upper bound keeps the product exact.
            if !(0.01..=1_000_000.0).contains(&cpus) {
                return Err(Error::invalid(
                    "linux.resources.cpu.quota",
                    format!("{cpus} CPUs: at least 0.01"),
                ));
            }
            let quota = (cpus * CPU_PERIOD_MICROSECONDS as f64).round() as i64;
            let cpu =
                LinuxCpuBuilder::default().quota(quota).period(CPU_PERIOD_MICROSECONDS).build();
            resources.set_cpu(Some(cpu.map_err(builder)?));
        }
        if let Some(pids) = self.pids {
            let pids = LinuxPidsBuilder::default().limit(i64::from(pids)).build();
            resources.set_pids(Some(pids.map_err(builder)?));
        }
        Ok(resources)
    }
}

/// The usual configuration for a command, to be refined by the setters of the OCI types: new mount, pid, ipc, uts,
/// network and cgroup namespaces; `/proc`, `/dev`, `/dev/pts`, `/dev/shm`, `/dev/mqueue`, `/sys` and the cgroup
/// tree; masked and read-only paths; [`DEFAULT_CAPABILITIES`]; a seccomp
/// filter that denies kernel keys; no_new_privs; no rlimits changed.
///
/// For a caller other than root there is a user namespace too, in which the caller is root.
///
/// # Errors
/// None today; the OCI builders can fail by type.
pub fn default_spec(
    hostname: &str,
    args: Vec<String>,
    env: Vec<String>,
    limits: Limits,
) -> Result<Spec> {
    let rootless = !geteuid().is_root();
    // Not by builders, which make the default of what they build, with all that is in it, once more.
    let mut spec = Spec::default();
    let mut linux = spec.linux_mut().take().unwrap_or_default();
    linux
        .set_namespaces(Some(default_namespaces(rootless)?))
        .set_seccomp(Some(default_seccomp()?))
        .set_resources(Some(limits.to_resources()?));
    // Later additions of Docker and podman: RAPL energy counters (a side channel) and thermal interrupts.
    let later = ["/proc/interrupts", "/sys/devices/virtual/powercap"].map(String::from);
    linux.masked_paths_mut().get_or_insert_default().extend(later);
    if rootless {
        let map = |host: u32| {
            let mapping =
                LinuxIdMappingBuilder::default().container_id(0u32).host_id(host).size(1u32);
            mapping.build().map_err(builder)
        };
        linux
            .set_uid_mappings(Some(vec![map(geteuid().as_raw())?]))
            .set_gid_mappings(Some(vec![map(getegid().as_raw())?]));
    }
    refine_mounts(spec.mounts_mut().get_or_insert_default(), rootless);
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(false));
    spec.set_version("1.2.0".to_owned())
        .set_hostname(Some(hostname.to_owned()))
        .set_root(Some(root))
        .set_process(Some(default_process(args, env)))
        .set_linux(Some(linux));
    Ok(spec)
}

/// The usual process: root, `/`, [`DEFAULT_CAPABILITIES`], no_new_privs, rlimits as they are.
pub fn default_process(args: Vec<String>, env: Vec<String>) -> Process {
    let held: HashSet<Capability> = DEFAULT_CAPABILITIES.into_iter().collect();
    let none = HashSet::new();
    let mut process = Process::default();
    let mut capabilities = LinuxCapabilities::default();
    capabilities
        .set_bounding(Some(held.clone()))
        .set_effective(Some(held.clone()))
        .set_permitted(Some(held))
        .set_inheritable(Some(none.clone()))
        .set_ambient(Some(none));
    process
        .set_args(Some(args))
        .set_env(Some(env))
        .set_cwd("/".into())
        .set_capabilities(Some(capabilities))
        .set_no_new_privileges(Some(true))
        // The default is 1024 open files, which is not the usual for a container and may be a raise.
        .set_rlimits(None);
    process
}

fn default_namespaces(rootless: bool) -> Result<Vec<LinuxNamespace>> {
    use LinuxNamespaceType as Type;
    let mut types = vec![Type::Mount, Type::Pid, Type::Ipc, Type::Uts, Type::Network, Type::Cgroup];
    if rootless {
        types.push(Type::User);
    }
    types
        .into_iter()
        .map(|typ| LinuxNamespaceBuilder::default().typ(typ).build().map_err(builder))
        .collect()
}

/// Keys are the host's: keyrings are by user id, not by any namespace that an image's root would be alone in. Denied as
/// in podman's and Docker's default profiles, by all three ways into the kernel.
fn default_seccomp() -> Result<LinuxSeccomp> {
    let keys = LinuxSyscallBuilder::default()
        .names(["add_key", "keyctl", "request_key"].map(String::from))
        .action(LinuxSeccompAction::ScmpActErrno)
        .errno_ret(libc::EPERM as u32);
    LinuxSeccompBuilder::default()
        .default_action(LinuxSeccompAction::ScmpActAllow)
        .architectures([Arch::ScmpArchX86_64, Arch::ScmpArchX32, Arch::ScmpArchX86])
        .syscalls([keys.build().map_err(builder)?])
        .build()
        .map_err(builder)
}

/// Changes the specification's own mounts to the usual ones.
fn refine_mounts(mounts: &mut [Mount], rootless: bool) {
    for mount in mounts {
        if mount.destination() == Path::new("/proc") {
            mount.set_options(Some(["nosuid", "noexec", "nodev"].map(String::from).to_vec()));
        }
        // Group 5 (tty) has no mapping in a rootless user namespace, and the kernel refuses unmapped ids.
        if rootless
            && mount.destination() == Path::new("/dev/pts")
            && let Some(options) = mount.options_mut()
        {
            options.retain(|option| !option.starts_with("gid="));
        }
    }
}

/// What the builders of the OCI types fail with, which is never in practice.
pub(crate) fn builder(error: OciSpecError) -> Error {
    Error::invalid("config.json", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_become_oci_resources() {
        let limits = Limits { memory_bytes: Some(64 << 20), cpus: Some(1.5), pids: Some(10) };
        let resources = limits.to_resources().unwrap();
        let memory = resources.memory().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(64 << 20)));
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(150_000), Some(100_000)));
        assert_eq!(resources.pids().unwrap().limit(), 10);
    }

    #[test]
    fn absurd_limits_are_refused() {
        assert!(
            Limits { memory_bytes: Some(u64::MAX), ..Limits::default() }.to_resources().is_err()
        );
        for cpus in [f64::NAN, 0.0, -1.0, f64::INFINITY] {
            assert!(Limits { cpus: Some(cpus), ..Limits::default() }.to_resources().is_err());
        }
    }
}
