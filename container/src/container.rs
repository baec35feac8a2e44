//! A container: from an OCI configuration to a process that waits before execve.

use std::ffi::CString;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::CloneFlags;
use nix::unistd::geteuid;
use oci_spec::runtime::{ContainerState, Linux, LinuxResources, Spec, State};

use crate::cgroup::{Awaited, Cgroup, DeviceRules, InnerMount, no_limits};
use crate::config::{ContainerConfig, check_id};
use crate::error::{Error, Result};
use crate::hooks;
use crate::idmap::IdMaps;
use crate::instance::{Instance, Parts, Told};
use crate::namespaces::{Namespaces, is_root_of_host};
use crate::net_devices;
use crate::plan::InitPlan;
use crate::process::capabilities::CapabilitySets;
use crate::process::labels::needs_selinux;
use crate::process::plan::ProcessPlan;
use crate::process::seccomp::Filter;
use crate::process::stdio::StdioPlan;
use crate::rootfs::cgroup_mount::CgroupMountPlan;
use crate::rootfs::devices;
use crate::rootfs::id_mapped::Mappings;
use crate::rootfs::mounts::MountPlan;
use crate::rootfs::options::propagation;
use crate::rootfs::plan::RootfsPlan;
use crate::rootfs::resolve::InnerPath;
use crate::rootfs::root::{Entry, RootPlan};
use crate::sysctl;

/// A container. See [`Instance`] for what can be done with it.
#[derive(Debug)]
pub struct Container(Instance);

impl Container {
    /// Makes namespaces, cgroup and root filesystem; the first process waits just before execve.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration, or the first step that failed. Nothing is left behind then.
    pub fn create(config: ContainerConfig) -> Result<Container> {
        Self::make(config, None, false)
    }

    /// As [`Container::create`], with a process of ours between: the program's parent, which is the first process, passes
    /// signals on, reaps orphans and ends as the program does.
    ///
    /// # Errors
    /// As there.
    pub fn create_with_init(config: ContainerConfig) -> Result<Container> {
        Self::make(config, None, true)
    }

    /// As [`Container::create`], for a container that outlives the caller ([`Instance::release`]): it is started over
    /// this socket of [`start_socket`](crate::start_socket), by [`start_at`](crate::start_at).
    ///
    /// # Errors
    /// As there.
    pub fn create_for_later(config: ContainerConfig, start_socket: OwnedFd) -> Result<Container> {
        Self::make(config, Some(start_socket), false)
    }

    fn make(
        config: ContainerConfig,
        start_socket: Option<OwnedFd>,
        init: bool,
    ) -> Result<Container> {
        let ContainerConfig {
            id,
            spec,
            rootfs,
            map_ids,
            bundle,
            stdio,
            cgroup,
            cgroup_manager,
            keep_keyring,
            create_cwd,
            no_pivot,
            kill_with_parent,
            owner_lock,
        } = config;
        check_id(&id)?;
        let hooks = spec.hooks().clone().unwrap_or_default();
        hooks::check(&hooks)?;
        let default_linux = Linux::default();
        let linux = spec.linux().as_ref().unwrap_or(&default_linux);
        check_host(linux)?;
        let namespaces = Namespaces::from_oci(linux.namespaces().as_deref().unwrap_or_default())?;
        let user = namespaces.has(CloneFlags::CLONE_NEWUSER);
        check_namespaces(&namespaces, user)?;
        let net_devices = net_devices::plan(linux, &namespaces)?;
        let is_new_user = namespaces.is_new(CloneFlags::CLONE_NEWUSER);
        let id_maps = is_new_user.then(|| id_maps(linux)).transpose()?;
        let mappings = mappings(linux, user);
        let mut root = match (map_ids, mappings) {
            (false, _) => RootPlan::new(&rootfs, user)?,
            (true, Some(mappings)) => RootPlan::mapped(&rootfs, mappings)?,
            (true, None) => {
                let problem = "needed to map the ids of the root filesystem";
                return Err(Error::invalid("linux.uidMappings", problem));
            }
        };
        root.readonly = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
        if let Some(flags) = root_propagation(linux)? {
            root.propagate(flags)?;
        }
        root.shares_namespace = namespaces.joins(CloneFlags::CLONE_NEWNS);
        root.entry = match (root.shares_namespace, no_pivot) {
            (true, _) => Entry::Chroot,
            (false, true) => Entry::moved(root.mount_point())?,
            (false, false) => Entry::Pivot,
        };
        let mut process = process_plan(&spec, user, id_maps.as_ref())?;
        process.create_cwd = create_cwd;
        process.kill_with_parent = kill_with_parent;
        process.scheduling.first();
        if let Some(personality) = linux.personality() {
            process.scheduling.set_personality(personality)?;
        }
        if let Some(policy) = linux.memory_policy() {
            process.scheduling.set_memory_policy(policy)?;
        }
        process.new_keyring = !keep_keyring;
        process.init = init;
        process.seccomp = linux.seccomp().as_ref().map(Filter::from_oci).transpose()?.map(Arc::new);
        if let Some(terminal) = &mut process.terminal {
            terminal.add_console()?;
        }
        let mut mounts = mount_plans(&spec, mappings)?;
        if let Some(label) = linux.mount_label().as_ref().filter(|label| !label.is_empty()) {
            mounts.iter_mut().try_for_each(|mount| mount.label(label))?;
        }
        let binds_dev =
            mounts.iter().any(|mount| mount.is_bind() && mount.target.as_c_str() == c"/dev");
        let extra_devices = linux.devices().as_deref().unwrap_or_default();
        let sysctls = sysctl::plan(linux, &namespaces)?;
        let masked = inner_paths(linux.masked_paths().as_deref(), "linux.maskedPaths")?;
        let readonly = inner_paths(linux.readonly_paths().as_deref(), "linux.readonlyPaths")?;

        let default_resources = no_limits();
        let resources = linux.resources().as_ref().unwrap_or(&default_resources);
        let nodes = devices::plan(extra_devices)?;
        let device_rules = device_rules(&nodes, resources)?;
        let devices = device_rules.is_some();
        let awaited = cgroup_manager.map(|manager| Awaited::new(manager, resources, devices));
        let awaited = awaited.transpose()?;
        let cgroup = match &awaited {
            Some(_) => None,
            None => {
                Cgroup::place(cgroup, &id, linux.cgroups_path().as_deref(), resources, devices)?
            }
        };
        let shape = match (&cgroup, &awaited) {
            (Some(cgroup), _) => Some((cgroup.inner_mount(), cgroup.memberships().directories())),
            (None, Some(awaited)) => Some(awaited.shape()?),
            (None, None) => None,
        };
        let cgroup_mount = cgroup_mount(&mounts, shape, &namespaces)?;
        let rootfs = RootfsPlan {
            root,
            mounts,
            cgroup_mount,
            devices: if binds_dev { Vec::new() } else { nodes },
            device_links: !binds_dev,
            masked,
            readonly,
        };
        let plan = InitPlan {
            is_container: true,
            stdio: StdioPlan::new(stdio)?,
            start_socket,
            user_namespace: user,
            await_id_maps: is_new_user,
            hostname: text(spec.hostname().as_deref(), "hostname")?,
            domainname: text(spec.domainname().as_deref(), "domainname")?,
            loopback: namespaces.is_new(CloneFlags::CLONE_NEWNET),
            rootfs,
            sysctls,
            await_cgroup: awaited.is_some() || cgroup.as_ref().is_some_and(Cgroup::needs_join),
            cgroup_namespace: namespaces.new_cgroup,
            await_hooks: hooks::any_at_creation(&hooks),
            process,
            time: time_offsets(linux, namespaces.new_time)?,
            join_namespaces: namespaces.joined,
            join_before: namespaces.join_before,
        };
        let is_told = spec.hooks().is_some()
            || plan.process.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some());
        let told = match (is_told, bundle) {
            (false, _) => None,
            (true, Some(bundle)) => {
                let process = spec.process().clone().unwrap_or_default();
                Some(Told { state: state(&spec, &id, bundle), hooks, process })
            }
            (true, None) => {
                let problem =
                    "there is no bundle that could be told of (hooks, linux.seccomp.listenerPath)";
                return Err(Error::invalid("hooks", problem));
            }
        };
        let after = told.as_ref().map(|told| (told.hooks.clone(), told.state.clone()));
        let parts = Parts {
            id,
            namespaces: namespaces.new,
            pid_namespace: namespaces.pid.map(|joined| joined.fd),
            id_maps,
            net_devices,
            plan,
            cgroup,
            awaited,
            device_rules,
            owner_lock,
            told,
        };
        Instance::create(parts).map(Container).inspect_err(|_| {
            // "Continue the lifecycle" with what follows the removal (runtime.md). The error to tell is the first.
            if let Some((hooks, state)) = after {
                hooks::after_removal(&hooks, &state);
            }
        })
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

impl Deref for Container {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.0
    }
}

impl DerefMut for Container {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.0
    }
}

/// None where only root of the whole host can set any, and we are not: as runc does, a container without root goes
/// without, whose user may open no device of the host that the caller may not.
fn device_rules(
    nodes: &[devices::DevicePlan],
    resources: &LinuxResources,
) -> Result<Option<DeviceRules>> {
    if !is_root_of_host() {
        return Ok(None);
    }
    let configured = resources.devices().as_deref().unwrap_or_default();
    let identities = nodes.iter().map(devices::DevicePlan::identity);
    DeviceRules::new(identities, configured).map(Some)
}

/// What the host cannot do, before anything is made.
fn check_host(linux: &Linux) -> Result<()> {
    if linux.intel_rdt().is_some() {
        let problem = match Path::new("/sys/fs/resctrl/schemata").exists() {
            true => "cannot be set by this runtime",
            false => "this host has no resctrl file system mounted at /sys/fs/resctrl",
        };
        return Err(Error::unsupported("linux.intelRdt", problem));
    }
    if linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()) {
        needs_selinux("linux.mountLabel")?;
    }
    Ok(())
}

/// What is told of it, to be completed when there is a process.
fn state(spec: &Spec, id: &str, bundle: PathBuf) -> State {
    let mut state = State::default();
    state
        .set_version(spec.version().clone())
        .set_id(id.to_owned())
        .set_status(ContainerState::Creating)
        .set_bundle(bundle)
        .set_annotations(spec.annotations().clone());
    state
}

fn check_namespaces(namespaces: &Namespaces, user: bool) -> Result<()> {
    if !namespaces.has(CloneFlags::CLONE_NEWNS) {
        // Without one, the container's mounts would be the host's.
        return Err(Error::invalid("linux.namespaces", "a container needs a mount namespace"));
    }
    if !user && !geteuid().is_root() {
        let problem = "a caller other than root needs a user namespace, with linux.uidMappings and gidMappings";
        return Err(Error::invalid("linux.namespaces", problem));
    }
    Ok(())
}

fn id_maps(linux: &Linux) -> Result<IdMaps> {
    let (uid, gid) = (linux.uid_mappings().as_deref(), linux.gid_mappings().as_deref());
    IdMaps::new(uid.unwrap_or_default(), gid.unwrap_or_default())
}

fn process_plan(spec: &Spec, user: bool, id_maps: Option<&IdMaps>) -> Result<ProcessPlan> {
    let Some(process) = spec.process() else {
        return Err(Error::invalid("process", "missing: there is nothing to run"));
    };
    let mut plan = ProcessPlan::new(process, user)?;
    // A container without a capabilities section has none, as in runc.
    plan.capabilities.get_or_insert(CapabilitySets::default());
    if id_maps.is_some_and(IdMaps::denies_setgroups) && !plan.groups.is_empty() {
        let problem = "an unprivileged user namespace does not allow additional groups";
        return Err(Error::invalid("process.user.additionalGids", problem));
    }
    Ok(plan)
}

/// Of a user namespace that is joined, they are its own, if told.
fn mappings(linux: &Linux, user: bool) -> Option<Mappings<'_>> {
    let mappings = Mappings {
        uid: linux.uid_mappings().as_deref().unwrap_or_default(),
        gid: linux.gid_mappings().as_deref().unwrap_or_default(),
    };
    (user && !mappings.uid.is_empty() && !mappings.gid.is_empty()).then_some(mappings)
}

fn mount_plans(spec: &Spec, mappings: Option<Mappings>) -> Result<Vec<MountPlan>> {
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    mounts.iter().enumerate().map(|(index, mount)| MountPlan::new(mount, index, mappings)).collect()
}

/// The cgroup tree inside, if the configuration mounts one and there is one to show.
fn cgroup_mount(
    mounts: &[MountPlan],
    shape: Option<(InnerMount, Vec<PathBuf>)>,
    namespaces: &Namespaces,
) -> Result<Option<CgroupMountPlan>> {
    let Some(mount) = mounts.iter().find(|mount| mount.is_cgroup()) else { return Ok(None) };
    let is_hidden = namespaces.new_cgroup || namespaces.joins(CloneFlags::CLONE_NEWCGROUP);
    // Without a cgroup of its own, a container has none to show: a version 1 tree would be the caller's, and
    // an empty tmpfs says so.
    let (inner, own) = match shape {
        Some((inner, own)) => (inner, Some(own)),
        None => (InnerMount::V1(Vec::new()), None),
    };
    // Without a namespace a mount would show the host's tree.
    let own = own.filter(|_| !is_hidden);
    CgroupMountPlan::new(mount, &inner, own.as_deref()).map(Some)
}

/// What is written to /proc/PID/timens_offsets (time_namespaces(7)); None without a new time namespace.
fn time_offsets(linux: &Linux, is_new: bool) -> Result<Option<CString>> {
    let invalid = |problem: &str| Err(Error::invalid("linux.timeOffsets", problem));
    let mut lines = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if clock != "monotonic" && clock != "boottime" {
            return invalid(&format!("{clock:?} is neither monotonic nor boottime"));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= 1_000_000_000 {
            return invalid(&format!("{clock}: {nanoseconds} ns are more than a second"));
        }
        lines += &format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0));
    }
    if !is_new && !lines.is_empty() {
        return invalid("are of a new time namespace, which linux.namespaces does not ask for");
    }
    Ok(is_new.then(|| CString::new(lines).unwrap_or_default()))
}

fn root_propagation(linux: &Linux) -> Result<Option<nix::mount::MsFlags>> {
    let Some(word) = linux.rootfs_propagation().as_deref().filter(|word| !word.is_empty()) else {
        return Ok(None);
    };
    let invalid =
        || Error::invalid("linux.rootfsPropagation", format!("{word:?} is not a propagation"));
    propagation(word).map(Some).ok_or_else(invalid)
}

fn inner_paths(paths: Option<&[String]>, field: &str) -> Result<Vec<InnerPath>> {
    paths.unwrap_or_default().iter().map(|path| InnerPath::new(Path::new(path), field)).collect()
}

fn text(text: Option<&str>, field: &str) -> Result<Option<CString>> {
    let convert =
        |text: &str| CString::new(text).map_err(|_| Error::invalid(field, "contains a NUL byte"));
    text.filter(|text| !text.is_empty()).map(convert).transpose()
}
