//! The levels `process` and `container`, which share the host's kernel.

mod controller;
mod oom;

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use isolab_container::{
    CgroupPlacement, Container, ContainerConfig, HostProcess, HostProcessConfig,
    HostProcessNetwork, RootFilesystem,
};
use isolab_images::Image;
use isolab_volumes::Lease;
use nix::unistd::{getegid, geteuid};
use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxNamespaceBuilder, LinuxNamespaceType, LinuxResources, Mount, Spec};
use tracing::debug_span;

use self::controller::{NativeController, streams};
use crate::controller::{Controller, Stdio};
use crate::error::IsolationError;
use crate::filesystem::native::{Prepared, in_order, map_ids_of};
use crate::instance::{Instance, InstanceSpec, Isolation};
use crate::instances::InstanceFolder;
use crate::level::Level;
use crate::name_files::{Missing, NameFiles, Names};
use crate::network::Link;
use crate::security::{UserAndNetwork, UserIds, check_ids, wants_ids};
use crate::stdio::Copies;
use crate::timeline::{Milestone, Milestones, now};
use crate::upper;
use crate::workload_status::WorkloadStatus;

/// Level `process`: a chroot and nothing else, the baseline. The mounts that make the root file
/// system are in a mount namespace of the process's own, so that the host never sees them.
pub(crate) struct ProcessLevel;

/// Level `container`.
pub(crate) struct ContainerLevel;

impl Isolation for ProcessLevel {
    fn create(&self, mut spec: InstanceSpec) -> Result<Box<dyn Instance>, IsolationError> {
        spec.network.check(Level::Process)?;
        let mut process = spec.spec.process().clone().ok_or_else(|| IsolationError::Setting {
            field: "process",
            why: "the specification has none".to_owned(),
        })?;
        let resources = spec.spec.linux().as_ref().and_then(|linux| linux.resources().clone());
        let limited = resources.as_ref().is_some_and(has_limits);
        let names = Names { hostname: None, network: &spec.network };
        let root = debug_span!("root").in_scope(|| Root::prepare(&spec, names, false))?;
        let owner = process.user().uid();
        let stdio = take(&mut spec.stdio);
        let (streams, copies) = streams(Level::Process, owner, &mut process, stdio)?;
        let process = HostProcess::create(HostProcessConfig {
            id: spec.folder.runtime_id().to_owned(),
            process,
            rootfs: root.filesystem,
            read_only: spec.filesystem.read_only,
            host_filesystems: true,
            mounts: root.mounts,
            stdio: streams,
            resources: resources.filter(|_| limited),
            cgroup: if limited { CgroupPlacement::Own } else { CgroupPlacement::Tracked },
            network: match mem::replace(&mut spec.network.link, Link::None) {
                Link::Namespace(namespace) => HostProcessNetwork::Joined(namespace),
                Link::Host => HostProcessNetwork::Host,
                Link::None | Link::Taps(_) | Link::Owned(_) => HostProcessNetwork::Own,
            },
            create_cwd: true,
            kill_with_parent: true,
            owner_lock: Some(spec.folder.owner_lock()?),
        });
        let process = process.map_err(|error| upper::explain(error, spec.folder.shared()))?;
        let InstanceSpec { folder, image, .. } = spec;
        let held = Held { folder, image, leases: root.leases, ids: None };
        NativeInstance::boxed(Level::Process, process.into_instance(), held, copies)
    }
}

impl Isolation for ContainerLevel {
    fn create(&self, mut spec: InstanceSpec) -> Result<Box<dyn Instance>, IsolationError> {
        spec.network.check(Level::Container)?;
        // Kept until the container is in it.
        let (ids, _user) = set_user_namespace(&mut spec.spec, &mut spec.network.link)?;
        check_ids(&spec.spec)?;
        let hostname = spec.spec.hostname().clone().unwrap_or_default();
        let names = Names { hostname: Some(&hostname), network: &spec.network };
        let prepare = || Root::prepare(&spec, names, ids.is_some());
        let root = debug_span!("root").in_scope(prepare)?;
        let mut mounts = spec.spec.mounts().clone().unwrap_or_default();
        // Who mounts something on /dev/shm wants that one.
        let is_replaced = |mount: &Mount| {
            root.mounts.iter().any(|other| other.destination() == mount.destination())
        };
        mounts.retain(|mount| !is_replaced(mount));
        mounts.extend(root.mounts);
        spec.spec.set_mounts(Some(mounts));
        set_network(&mut spec.spec, &spec.network.link)?;
        if spec.filesystem.read_only {
            spec.spec.root_mut().get_or_insert_default().set_readonly(Some(true));
        }
        let stdio = take(&mut spec.stdio);
        let process = spec.spec.process_mut().get_or_insert_default();
        let uid = process.user().uid();
        let owner = ids.as_ref().map_or(uid, |ids| ids.on_host(uid));
        let (stdio, copies) = streams(Level::Container, owner, process, stdio)?;
        let InstanceSpec { spec: oci, folder, image, init, .. } = spec;
        let config = ContainerConfig {
            id: folder.runtime_id().to_owned(),
            spec: oci,
            rootfs: root.filesystem,
            map_ids: ids.is_some(),
            bundle: None,
            stdio,
            cgroup: CgroupPlacement::Own,
            keep_keyring: false,
            create_cwd: true,
            cgroup_manager: None,
            no_pivot: false,
            kill_with_parent: true,
            owner_lock: Some(folder.owner_lock()?),
        };
        let container = match init {
            true => Container::create_with_init(config),
            false => Container::create(config),
        };
        let container = container.map_err(|error| upper::explain(error, folder.shared()))?;
        let held = Held { folder, image, leases: root.leases, ids };
        NativeInstance::boxed(Level::Container, container.into_instance(), held, copies)
    }
}

/// Gives a container that is to have a user namespace its ids, and the namespace if one is there already.
fn set_user_namespace(
    spec: &mut Spec,
    link: &mut Link,
) -> Result<(Option<UserIds>, Option<OwnedFd>), IsolationError> {
    if !wants_ids(spec) {
        return Ok((None, None));
    }
    let (ids, user) = match mem::replace(link, Link::None) {
        Link::Owned(UserAndNetwork { ids, user, network }) => {
            *link = Link::Namespace(network);
            (ids, Some(user))
        }
        other => {
            *link = other;
            (UserIds::take()?, None)
        }
    };
    let [users, groups] = ids.maps()?;
    let linux = spec.linux_mut().get_or_insert_default();
    linux.set_uid_mappings(Some(users)).set_gid_mappings(Some(groups));
    let path = user.as_ref().map(|user| format!("/proc/self/fd/{}", user.as_raw_fd()).into());
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        if namespace.typ() == LinuxNamespaceType::User {
            namespace.set_path(path.clone());
        }
    }
    Ok((Some(ids), user))
}

/// The network namespace in the specification's words: a new one, none of its own, or one that is there.
fn set_network(spec: &mut Spec, link: &Link) -> Result<(), IsolationError> {
    let namespaces = spec.linux_mut().as_mut().and_then(|linux| linux.namespaces_mut().as_mut());
    let Some(namespaces) = namespaces.filter(|_| !matches!(link, Link::None)) else {
        return Ok(());
    };
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    if let Link::Namespace(namespace) = link {
        let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
        let joined = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).path(path);
        let wrong = |error: OciSpecError| IsolationError::Setting {
            field: "network",
            why: error.to_string(),
        };
        namespaces.push(joined.build().map_err(wrong)?);
    }
    Ok(())
}

/// What is left is never used.
fn take(stdio: &mut Stdio) -> Stdio {
    mem::replace(stdio, Stdio::Inherit { stdin: false })
}

fn has_limits(resources: &LinuxResources) -> bool {
    resources.memory().is_some() || resources.cpu().is_some() || resources.pids().is_some()
}

/// The root file system of an instance: the image's layers, and over them what it writes.
struct Root {
    filesystem: RootFilesystem,
    /// What is mounted over the image's own.
    mounts: Vec<Mount>,
    /// The volumes among them.
    leases: Vec<Lease>,
}

impl Root {
    /// `map_ids`: it is for a user namespace, in which what is isolab's has the ids that it has on the disk. What is the
    /// host's has not: it belongs to nobody there.
    fn prepare(spec: &InstanceSpec, names: Names, map_ids: bool) -> Result<Self, IsolationError> {
        let InstanceSpec { folder, image, filesystem, .. } = spec;
        upper::check(folder.shared())?;
        let own = folder.path();
        let io = |source| IsolationError::Io { action: "write to", path: own.to_owned(), source };
        let [upper, work] = ["upper", "work"].map(|name| own.join(name));
        // An instance that is started again has what it wrote before.
        let is_first = !upper.exists();
        for folder in [&upper, &work] {
            fs::create_dir_all(folder).map_err(io)?;
        }
        let mut lower = image.layers()?;
        if let Some(top) = lower.first().filter(|_| is_first) {
            give_root(top, &upper).map_err(io)?;
        }
        let user = spec.spec.process().as_ref().map(|process| process.user());
        let user = user.map_or((0, 0), |user| (user.uid(), user.gid()));
        let Prepared { mounts, leases } =
            filesystem.prepare_native(folder, &lower, user, map_ids)?;
        let entries = &filesystem.hosts;
        let mut names =
            NameFiles::prepare(own, folder.shared(), names, entries, &lower, Missing::Make)?;
        if map_ids {
            names.mounts.iter_mut().for_each(map_ids_of);
        }
        lower.extend(names.lowest);
        let mounts = in_order([names.mounts, mounts].concat());
        let filesystem = RootFilesystem::Overlay { lower, upper, work };
        Ok(Self { filesystem, mounts, leases })
    }
}

/// overlayfs shows the upper folder's owner and mode as the root's, which are to be the image's.
fn give_root(image: &Path, upper: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(image)?;
    let (uid, gid) = (geteuid(), getegid());
    // Nearly always root's, as the folder is.
    if uid.is_root() && (metadata.uid(), metadata.gid()) != (uid.as_raw(), gid.as_raw()) {
        chown(upper, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    fs::set_permissions(upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

struct NativeInstance {
    level: Level,
    instance: isolab_container::Instance,
    /// The master of the workload's terminal, for whoever resizes it.
    master: Option<OwnedFd>,
    milestones: Milestones,
    copies: Copies,
    // Dropped after the instance, which uses all of it.
    held: Held,
}

/// What an instance needs as long as it is there; the image's lease goes with the image.
struct Held {
    folder: InstanceFolder,
    image: Image,
    leases: Vec<Lease>,
    /// Those of a user namespace of its own.
    ids: Option<UserIds>,
}

impl NativeInstance {
    fn boxed(
        level: Level,
        instance: isolab_container::Instance,
        mut held: Held,
        copies: Copies,
    ) -> Result<Box<dyn Instance>, IsolationError> {
        held.folder.record(instance.cgroup_directories(), instance.pid())?;
        let mut milestones = Milestones::default();
        milestones.reach(Milestone::Created, now());
        let master = instance.terminal_clone()?;
        Ok(Box::new(Self { level, instance, master, milestones, copies, held }))
    }
}

impl Instance for NativeInstance {
    fn start(&mut self) -> Result<(), IsolationError> {
        self.milestones.reach(Milestone::WorkloadStarted, now());
        self.copies.start()?;
        Ok(self.instance.start()?)
    }

    fn wait(&mut self) -> Result<WorkloadStatus, IsolationError> {
        let status = self.instance.wait()?;
        self.milestones.reach(Milestone::WorkloadEnded, now());
        self.copies.finish();
        Ok(status.into())
    }

    fn has_run_out_of_memory(&self) -> bool {
        oom::has_killed(self.instance.cgroup_directories())
    }

    fn controller(&self) -> Result<Box<dyn Controller>, IsolationError> {
        let handle = self.instance.handle()?;
        let terminal = self.master.as_ref().map(OwnedFd::try_clone).transpose();
        let terminal =
            terminal.map_err(IsolationError::host("duplicate a terminal's descriptor"))?;
        let first_user = self.held.ids.as_ref().map_or(0, |ids| ids.on_host(0));
        Ok(Box::new(NativeController { level: self.level, first_user, handle, terminal }))
    }

    fn terminal(&mut self) -> Option<OwnedFd> {
        self.instance.terminal()
    }

    fn network_namespace(&self) -> Option<BorrowedFd<'_>> {
        self.instance.network_namespace()
    }

    fn milestones(&self) -> Milestones {
        self.milestones.clone()
    }

    fn remove(self: Box<Self>) -> Result<(), IsolationError> {
        let Self { instance, held: Held { folder, image, leases, ids }, .. } = *self;
        instance.remove()?;
        folder.remove()?;
        drop((image, leases, ids));
        Ok(())
    }
}
