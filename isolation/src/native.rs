//! The levels `process` and `container`, which share the host's kernel.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use isolab_container::{
    CgroupPlacement, Container, ContainerConfig, ExitStatus, HostProcess, HostProcessConfig,
    RootFilesystem, Stdio, Stream,
};
use isolab_images::Image;
use nix::errno::Errno;
use oci_spec::runtime::LinuxResources;
use tempfile::TempDir;

use crate::error::IsolationError;
use crate::instance::{Ended, Instance, InstanceSpec, Isolation, Signaller};
use crate::timeline::{Milestone, Timeline, now};

/// Level `process`: a chroot and nothing else, the baseline. The mounts that make the root file
/// system are in a mount namespace of the process's own, so that the host never sees them.
pub(crate) struct ProcessLevel;

/// Level `container`.
pub(crate) struct ContainerLevel;

/// A tap is the back end of a machine's network controller.
fn refuse_network(spec: &InstanceSpec) -> Result<(), IsolationError> {
    match spec.network {
        None => Ok(()),
        Some(_) => Err(IsolationError::Setting {
            field: "network",
            why: "a tap is for the levels paravirt and fullvirt; leave --network out here"
                .to_owned(),
        }),
    }
}

impl Isolation for ProcessLevel {
    fn create(&self, spec: InstanceSpec) -> Result<Box<dyn Instance>, IsolationError> {
        refuse_network(&spec)?;
        let scratch = Scratch::new(&spec)?;
        let mut process = spec.spec.process().clone().ok_or_else(|| IsolationError::Setting {
            field: "process",
            why: "the specification has none".to_owned(),
        })?;
        // A plain process has what its caller has.
        process.set_capabilities(None);
        process.set_no_new_privileges(Some(false));
        let resources = spec.spec.linux().as_ref().and_then(|linux| linux.resources().clone());
        let limited = resources.as_ref().is_some_and(has_limits);
        let process = HostProcess::create(HostProcessConfig {
            id: spec.id.clone(),
            process,
            rootfs: scratch.rootfs(&spec)?,
            host_filesystems: true,
            stdio: stdio(&spec),
            resources: resources.filter(|_| limited),
            cgroup: if limited { CgroupPlacement::Own } else { CgroupPlacement::Inherit },
            state_dir: scratch.state_dir(),
            create_cwd: true,
            kill_with_parent: true,
            owner_lock: None,
        })?;
        Ok(NativeInstance::boxed(process.into_instance(), scratch))
    }
}

impl Isolation for ContainerLevel {
    fn create(&self, spec: InstanceSpec) -> Result<Box<dyn Instance>, IsolationError> {
        check_user(&spec)?;
        refuse_network(&spec)?;
        let scratch = Scratch::new(&spec)?;
        let container = Container::create(ContainerConfig {
            id: spec.id.clone(),
            spec: spec.spec.clone(),
            rootfs: scratch.rootfs(&spec)?,
            stdio: stdio(&spec),
            cgroup: CgroupPlacement::Own,
            state_dir: scratch.state_dir(),
            create_cwd: true,
            kill_with_parent: true,
            owner_lock: None,
        })?;
        Ok(NativeInstance::boxed(container.into_instance(), scratch))
    }
}

/// Without root, the container's user namespace has one user and one group: root, who is us.
fn check_user(spec: &InstanceSpec) -> Result<(), IsolationError> {
    let user = spec.spec.process().as_ref().map(|process| process.user());
    if nix::unistd::geteuid().is_root() || user.is_none_or(|u| (u.uid(), u.gid()) == (0, 0)) {
        return Ok(());
    }
    Err(IsolationError::Setting {
        field: "user",
        why: "without root a container has no user but 0:0, who is the caller; run as root"
            .to_owned(),
    })
}

fn has_limits(resources: &LinuxResources) -> bool {
    resources.memory().is_some() || resources.cpu().is_some() || resources.pids().is_some()
}

fn stdio(spec: &InstanceSpec) -> Stdio {
    Stdio { stdin: if spec.stdin { Stream::Inherit } else { Stream::Null }, ..Stdio::default() }
}

/// What an instance writes, removed with it, over an image whose layers stay as long.
struct Scratch {
    dir: TempDir,
    /// Holds the image's lease.
    _image: Image,
}

impl Scratch {
    fn new(spec: &InstanceSpec) -> Result<Self, IsolationError> {
        let io = |action| {
            let path = spec.scratch.clone();
            move |source| IsolationError::Io { action, path, source }
        };
        fs::create_dir_all(&spec.scratch).map_err(io("create"))?;
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}-", spec.id))
            .tempdir_in(&spec.scratch)
            .map_err(io("write to"))?;
        for name in ["upper", "work", "state"] {
            fs::create_dir(dir.path().join(name)).map_err(io("write to"))?;
        }
        Ok(Self { dir, _image: spec.image.clone() })
    }

    fn rootfs(&self, spec: &InstanceSpec) -> Result<RootFilesystem, IsolationError> {
        let (upper, work) = (self.dir.path().join("upper"), self.dir.path().join("work"));
        let lower = spec.image.layers_unpacked()?;
        if let Some(top) = lower.first() {
            give_root(top, &upper).map_err(|source| IsolationError::Io {
                action: "prepare",
                path: upper.clone(),
                source,
            })?;
        }
        Ok(RootFilesystem::Overlay { lower, upper, work })
    }

    fn state_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }
}

/// overlayfs shows the upper folder's owner and mode as the root's, which are to be the image's.
fn give_root(image: &Path, upper: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(image)?;
    if nix::unistd::geteuid().is_root() {
        chown(upper, Some(metadata.uid()), Some(metadata.gid()))?;
    }
    fs::set_permissions(upper, fs::Permissions::from_mode(metadata.mode() & 0o7777))
}

struct NativeInstance {
    instance: isolab_container::Instance,
    timeline: Timeline,
    // Dropped after the instance, which uses it.
    _scratch: Scratch,
}

impl NativeInstance {
    fn boxed(instance: isolab_container::Instance, scratch: Scratch) -> Box<dyn Instance> {
        let mut timeline = Timeline::default();
        timeline.reach(Milestone::Created, now());
        Box::new(Self { instance, timeline, _scratch: scratch })
    }
}

impl Instance for NativeInstance {
    fn start(&mut self) -> Result<(), IsolationError> {
        self.timeline.reach(Milestone::WorkloadStarted, now());
        Ok(self.instance.start()?)
    }

    fn wait(&mut self) -> Result<Ended, IsolationError> {
        let status = self.instance.wait()?;
        self.timeline.reach(Milestone::WorkloadEnded, now());
        Ok(match status {
            ExitStatus::Exited(code) => Ended::Exited(code as u8),
            ExitStatus::Signaled { signal, .. } => Ended::Killed(signal as u8),
        })
    }

    fn signaller(&self) -> Result<Signaller, IsolationError> {
        let pidfd = self.instance.pidfd().as_fd().try_clone_to_owned();
        let pidfd = pidfd.map_err(IsolationError::host("duplicate a process's descriptor"))?;
        Ok(Box::new(move |signal| {
            // SAFETY: the call takes numbers and a null pointer, which stands for the usual
            // siginfo; the descriptor is open as long as the closure lives.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    pidfd.as_raw_fd(),
                    signal,
                    std::ptr::null::<libc::siginfo_t>(),
                    0,
                )
            };
            Errno::result(result).map(drop).map_err(io::Error::from)
        }))
    }

    fn timeline(&self) -> Timeline {
        self.timeline.clone()
    }
}
