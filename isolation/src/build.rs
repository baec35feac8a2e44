//! The commands of an image build, each in a container of its own.

use isolab_container::{
    CgroupPlacement, Container, ContainerConfig, ExitStatus, Limits, RootFilesystem, Stdio, Stream,
    default_spec,
};
use isolab_images::{BuildRunner, BuildStep};
use nix::unistd::dup;
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::error::IsolationError;
use crate::instances::Instances;
use crate::level::Level;
use crate::name_files::{Missing, NameFiles, Names};
use crate::{stdio, users};

/// The host name in a step, which is to be the same each time.
const HOSTNAME: &str = "build";

/// Runs build steps in containers, their output on our standard error.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContainerSteps;

impl BuildRunner for ContainerSteps {
    fn run(&self, step: &BuildStep) -> Result<i32, String> {
        run(step).map_err(|error| error.to_string())
    }
}

fn run(step: &BuildStep) -> Result<i32, IsolationError> {
    // A step is an instance like others: whatever a kill leaves of it is found.
    let mut folder = Instances::open_default()?.create(None, Level::Container)?;
    let files = folder.files();
    // Standard output is for what the command line prints itself.
    let output = || -> Result<Stream, IsolationError> {
        let copy = dup(std::io::stderr()).map_err(|errno| errno.into());
        Ok(Stream::Descriptor(copy.map_err(IsolationError::host("duplicate standard error"))?))
    };
    let names = match step.host_network {
        true => Names::Hosts,
        false => Names::Own { hostname: HOSTNAME, interface: None },
    };
    let names = NameFiles::prepare(&files, names, &step.lower, Missing::Leave)?;
    let mut spec = spec(step)?;
    let mut mounts = spec.mounts().clone().unwrap_or_default();
    mounts.extend(names.mounts);
    spec.set_mounts(Some(mounts));
    let mut lower = step.lower.clone();
    lower.push(names.lowest);
    let uid = spec.process().as_ref().map_or(0, |process| process.user().uid());
    stdio::give(std::io::stderr(), uid);
    let stdio = Stdio { stdin: Stream::Null, stdout: output()?, stderr: output()? };
    let mut container = Container::create(ContainerConfig {
        id: format!("build-{}", folder.runtime_id()),
        spec,
        rootfs: RootFilesystem::Overlay {
            lower,
            upper: step.upper.clone(),
            work: step.work.clone(),
        },
        stdio,
        cgroup: CgroupPlacement::Own,
        state_dir: files,
        create_cwd: true,
        kill_with_parent: true,
        owner_lock: Some(folder.owner_lock()?),
    })?;
    folder.record(container.cgroup_directories(), container.pid())?;
    container.start()?;
    let code = match container.wait()? {
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
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    let mut spec = default_spec(HOSTNAME, step.args.clone(), env, Limits::default())?;
    if let Some(process) = spec.process_mut() {
        process.set_cwd(step.cwd.clone().into());
        // Package scripts use su and the like.
        process.set_no_new_privileges(Some(false));
        process.set_user(identity.to_user()?);
    }
    if step.host_network
        && let Some(linux) = spec.linux_mut()
        && let Some(namespaces) = linux.namespaces_mut()
    {
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    }
    Ok(spec)
}
