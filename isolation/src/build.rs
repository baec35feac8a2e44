//! The commands of an image build, each in a container of its own.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use error_reporter::Report;
use isolab_container::{
    CgroupPlacement, Container, ContainerConfig, DEFAULT_CAPABILITIES, DEFAULT_PATH, ExitStatus,
    Limits, RootFilesystem, Stdio, Stream, default_seccomp, default_spec, pidfd,
};
use isolab_images::{BuildRunner, BuildStep, Mounted, StepMount};
use nix::unistd::dup;
use oci_spec::OciSpecError;
use oci_spec::runtime::{LinuxNamespaceType, Mount, MountBuilder, Spec};

use crate::error::IsolationError;
use crate::instances::Instances;
use crate::level::Level;
use crate::name_files::{Missing, NameFiles, Names};
use crate::network::{Link, Network};
use crate::{stdio, users};

/// The host name in a step, which is to be the same each time.
const HOSTNAME: &str = "build";

/// Runs build steps in containers, their output on our standard error.
#[derive(Clone, Debug, Default)]
pub struct ContainerSteps(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_interrupted: AtomicBool,
    /// The process of the step that runs now, a pidfd.
    running: Mutex<Option<OwnedFd>>,
}

impl ContainerSteps {
    /// Ends the step that runs, and the build with it, which then cleans up. From another thread.
    pub fn interrupt(&self) {
        self.0.is_interrupted.store(true, Ordering::SeqCst);
        self.kill();
    }

    /// Kills the first process of a PID namespace, and so all of them (pid_namespaces(7)). One that
    /// is gone needs no signal.
    fn kill(&self) {
        if let Some(process) = &*self.running() {
            let _ = pidfd::send(process, libc::SIGKILL);
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        // Nobody panics while holding it, and a descriptor is never half set.
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a container that was started, and lets it be interrupted meanwhile.
    fn wait(&self, container: &mut Container) -> Result<ExitStatus, IsolationError> {
        let pidfd = container.pidfd().try_clone_to_owned();
        let pidfd = pidfd.map_err(IsolationError::host("duplicate a pidfd"))?;
        // Either `interrupt` finds the container, or we find that it was called.
        *self.running() = Some(pidfd);
        if self.is_interrupted() {
            self.kill();
        }
        let ended = container.wait();
        *self.running() = None;
        Ok(ended?)
    }
}

impl BuildRunner for ContainerSteps {
    fn run(&self, step: &BuildStep) -> Result<i32, String> {
        run(step, self).map_err(|error| Report::new(error).to_string())
    }

    fn is_interrupted(&self) -> bool {
        self.0.is_interrupted.load(Ordering::SeqCst)
    }
}

fn run(step: &BuildStep, steps: &ContainerSteps) -> Result<i32, IsolationError> {
    // A step is an instance like others: whatever a kill leaves of it is found.
    let mut folder = Instances::open_default()?.create(None, Level::Container)?;
    // Standard output is for what the command line prints itself.
    let output = || -> Result<Stream, IsolationError> {
        let copy = dup(std::io::stderr()).map_err(|errno| errno.into());
        Ok(Stream::Descriptor(copy.map_err(IsolationError::host("duplicate standard error"))?))
    };
    let (hostname, link) = match step.host_network {
        true => (None, Link::Host),
        false => (Some(HOSTNAME), Link::None),
    };
    let names = Names { hostname, network: &Network::of(link) };
    let (own, shared) = (folder.path(), folder.shared());
    let names = NameFiles::prepare(own, shared, names, &[], &step.lower, Missing::Leave)?;
    let mut spec = spec(step)?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.extend(names.mounts);
    mounts.extend(added_mounts(&step.mounts)?);
    spec.set_mounts(Some(mounts));
    let mut lower = step.lower.clone();
    lower.extend(names.lowest);
    let uid = spec.process().as_ref().map_or(0, |process| process.user().uid());
    stdio::give(std::io::stderr(), uid);
    let stdio = Stdio { stdout: output()?, stderr: output()?, ..Stdio::null() };
    let mut container = Container::create(ContainerConfig {
        id: format!("build-{}", folder.runtime_id()),
        spec,
        rootfs: RootFilesystem::Overlay {
            lower,
            upper: step.upper.clone(),
            work: step.work.clone(),
        },
        bundle: None,
        stdio,
        cgroup: CgroupPlacement::Own,
        map_ids: false,
        keep_keyring: false,
        create_cwd: true,
        cgroup_manager: None,
        no_pivot: false,
        kill_with_parent: true,
        owner_lock: Some(folder.owner_lock()?),
    })?;
    folder.record(container.cgroup_directories(), container.pid())?;
    container.start()?;
    let code = match steps.wait(&mut container)? {
        ExitStatus::Exited(code) => code,
        ExitStatus::Signaled { signal, .. } => 128 + signal as i32,
    };
    container.remove()?;
    folder.remove()?;
    Ok(code)
}

fn spec(step: &BuildStep) -> Result<Spec, IsolationError> {
    let identity = users::resolve(&step.user, &step.lower)?;
    let mut env = step.env.clone();
    for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", &identity.home)] {
        if !env.iter().any(|variable| variable.split('=').next() == Some(name)) {
            env.push(format!("{name}={value}"));
        }
    }
    let mut spec = default_spec(HOSTNAME, step.args.clone(), env, Limits::default())?;
    if let Some(process) = spec.process_mut() {
        process.set_cwd(step.cwd.clone().into());
        // Package scripts use su and the like.
        process.set_no_new_privileges(Some(false));
        process.set_user(identity.to_user()?);
    }
    if let Some(linux) = spec.linux_mut() {
        let held = DEFAULT_CAPABILITIES.into_iter().collect();
        linux.set_seccomp(Some(default_seccomp(&held)?));
    }
    if step.host_network
        && let Some(linux) = spec.linux_mut()
        && let Some(namespaces) = linux.namespaces_mut()
    {
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    }
    Ok(spec)
}

/// Mounts of this step only, over all others.
fn added_mounts(added: &[StepMount]) -> Result<Vec<Mount>, IsolationError> {
    let mut mounts = Vec::new();
    for StepMount { target, what } in added {
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
        let mount = MountBuilder::default().destination(target);
        let mount = match what {
            Mounted::Path { source, read_only } => {
                options.push("bind".to_owned());
                options.push(if *read_only { "ro" } else { "rw" }.to_owned());
                mount.typ("bind").source(source)
            }
            Mounted::Memory { size } => {
                options.push("mode=1777".to_owned());
                options.extend(size.map(|size| format!("size={size}")));
                mount.typ("tmpfs").source("tmpfs")
            }
        };
        let mount = mount.options(options).build();
        let wrong =
            |why: OciSpecError| IsolationError::Setting { field: "mounts", why: why.to_string() };
        mounts.push(mount.map_err(wrong)?);
    }
    Ok(mounts)
}
