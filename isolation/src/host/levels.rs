//! The levels that share the host's kernel, tried as `isolab run` makes them: with an empty image,
//! in the data folder, up to the moment before the command.

use std::fs;
use std::path::Path;

use error_reporter::Report;
use isolab_container::{
    CgroupPlacement, Container, ContainerConfig, HostProcess, HostProcessConfig,
    HostProcessNetwork, Limits, RootFilesystem, Stdio, default_process, default_spec,
};

use super::Fact;
use crate::error::IsolationError;
use crate::upper;

/// What the two levels made of it.
pub(super) struct Tried {
    pub(super) process: Fact,
    pub(super) container: Fact,
    /// Whether a container's limits can be set as well.
    pub(super) limits: Fact,
}

/// Tries all of it in `folder`, which somebody else removes.
pub(super) fn try_in(folder: &Path) -> Tried {
    let limits = Limits { memory_bytes: Some(64 << 20), cpus: Some(1.0), pids: Some(16) };
    let told = |result: Result<(), IsolationError>, found: &str| {
        result.map(|()| found.to_owned()).map_err(|error| Report::new(error).to_string())
    };
    let process = told(process(&folder.join("process")), "can be made");
    let limited = told(container(&folder.join("limited"), limits), "can be set");
    let container = match &limited {
        Ok(_) => Ok("can be made".to_owned()),
        Err(_) => told(container(&folder.join("unlimited"), Limits::default()), "can be made"),
    };
    Tried {
        process: Fact::new("a process", process),
        container: Fact::new("a container", container),
        limits: Fact::new("a container's limits", limited),
    }
}

fn container(folder: &Path, limits: Limits) -> Result<(), IsolationError> {
    let rootfs = root(folder)?;
    let container = Container::create(ContainerConfig {
        id: id(),
        spec: default_spec("check", vec!["/none".to_owned()], Vec::new(), limits)?,
        rootfs,
        bundle: None,
        stdio: Stdio::null(),
        cgroup: CgroupPlacement::Own,
        map_ids: false,
        keep_keyring: false,
        create_cwd: true,
        cgroup_manager: None,
        no_pivot: false,
        kill_with_parent: true,
        owner_lock: None,
    });
    let container = container.map_err(|error| upper::explain(error, folder))?;
    Ok(container.remove()?)
}

fn process(folder: &Path) -> Result<(), IsolationError> {
    let rootfs = root(folder)?;
    let mut process = default_process(vec!["/none".to_owned()], Vec::new());
    process.set_capabilities(None);
    let process = HostProcess::create(HostProcessConfig {
        id: id(),
        process,
        rootfs,
        read_only: false,
        host_filesystems: true,
        mounts: Vec::new(),
        stdio: Stdio::null(),
        resources: None,
        cgroup: CgroupPlacement::Inherit,
        network: HostProcessNetwork::Host,
        create_cwd: true,
        kill_with_parent: true,
        owner_lock: None,
    });
    let process = process.map_err(|error| upper::explain(error, folder))?;
    Ok(process.remove()?)
}

fn id() -> String {
    format!("check-{}", std::process::id())
}

/// An empty image with something to write over it.
fn root(folder: &Path) -> Result<RootFilesystem, IsolationError> {
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| folder.join(name));
    for folder in [&lower, &upper, &work] {
        fs::create_dir_all(folder).map_err(|source| IsolationError::Io {
            action: "create",
            path: folder.clone(),
            source,
        })?;
    }
    Ok(RootFilesystem::Overlay { lower: vec![lower], upper, work })
}
