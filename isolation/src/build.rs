//! The commands of an image build, each in a container of its own.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use isolab_container::{
    CgroupPlacement, Container, ContainerConfig, ExitStatus, Limits, RootFilesystem, Stdio, Stream,
    default_spec,
};
use isolab_images::{BuildRunner, BuildStep};
use nix::unistd::dup;
use oci_spec::runtime::{LinuxNamespaceType, Mount, MountBuilder, Spec};

use crate::error::IsolationError;
use crate::{instance_id, users};

/// What says where names are resolved (resolv.conf(5), hosts(5)).
const NAME_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Runs build steps in containers, their output on our standard error.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContainerSteps;

impl BuildRunner for ContainerSteps {
    fn run(&self, step: &BuildStep) -> Result<i32, String> {
        run(step).map_err(|error| error.to_string())
    }
}

fn run(step: &BuildStep) -> Result<i32, IsolationError> {
    // What a step is run with, secrets too, is nobody else's to read.
    let mut state = tempfile::Builder::new();
    let state = state.permissions(fs::Permissions::from_mode(0o700)).tempdir();
    let state = state.map_err(IsolationError::host("make a temporary folder"))?;
    // Standard output is for what the command line prints itself.
    let output = || -> Result<Stream, IsolationError> {
        let copy = dup(std::io::stderr()).map_err(|errno| errno.into());
        Ok(Stream::Descriptor(copy.map_err(IsolationError::host("duplicate standard error"))?))
    };
    let stdio = Stdio { stdin: Stream::Null, stdout: output()?, stderr: output()? };
    let mut lower = step.lower.clone();
    if step.host_network {
        let layer = mount_points(state.path());
        lower.push(layer.map_err(IsolationError::host("make mount points"))?);
    }
    let mut container = Container::create(ContainerConfig {
        id: format!("build-{}", instance_id()?),
        spec: spec(step)?,
        rootfs: RootFilesystem::Overlay {
            lower,
            upper: step.upper.clone(),
            work: step.work.clone(),
        },
        stdio,
        cgroup: CgroupPlacement::Own,
        state_dir: state.path().to_owned(),
        create_cwd: true,
        kill_with_parent: true,
        owner_lock: None,
    })?;
    container.start()?;
    let code = match container.wait()? {
        ExitStatus::Exited(code) => code,
        ExitStatus::Signaled { signal, .. } => 128 + signal as i32,
    };
    container.remove()?;
    Ok(code)
}

fn spec(step: &BuildStep) -> Result<Spec, IsolationError> {
    let identity = users::resolve(&step.user, &step.lower)?;
    let mut env = step.env.clone();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", identity.home));
    }
    let mut spec = default_spec("build", step.args.clone(), env, Limits::default())?;
    let setting = |field| {
        move |why: oci_spec::OciSpecError| IsolationError::Setting { field, why: why.to_string() }
    };
    if let Some(process) = spec.process_mut() {
        process.set_cwd(step.cwd.clone().into());
        // Package scripts use su and the like.
        process.set_no_new_privileges(Some(false));
        process.set_user(identity.to_user()?);
    }
    if step.host_network {
        share_network(&mut spec, step).map_err(setting("network"))?;
    }
    Ok(spec)
}

/// The host's network, and its names where the image has a file to put them over.
fn share_network(spec: &mut Spec, step: &BuildStep) -> Result<(), oci_spec::OciSpecError> {
    if let Some(linux) = spec.linux_mut()
        && let Some(namespaces) = linux.namespaces_mut()
    {
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    }
    let mut mounts: Vec<Mount> = spec.mounts().clone().unwrap_or_default();
    for file in NAME_FILES {
        // Over a link, the mount would make a file where it leads, and leave it in the layer.
        let inside = step.lower.iter().map(|layer| layer.join(file.trim_start_matches('/')));
        let topmost = inside.filter_map(|path| fs::symlink_metadata(path).ok()).next();
        if topmost.is_none_or(|metadata| metadata.is_file()) && Path::new(file).exists() {
            let mount = MountBuilder::default()
                .destination(file)
                .typ("bind")
                .source(file)
                .options(["bind", "ro"].map(str::to_owned).to_vec())
                .build()?;
            mounts.push(mount);
        }
    }
    spec.set_mounts(Some(mounts));
    Ok(())
}

/// A lowest layer with empty files to mount the host's over: an image without them must not get
/// them from being built.
fn mount_points(folder: &Path) -> io::Result<PathBuf> {
    let layer = folder.join("mount-points");
    for file in NAME_FILES {
        let path = layer.join(file.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap_or(&layer))?;
        fs::write(path, "")?;
    }
    Ok(layer)
}
