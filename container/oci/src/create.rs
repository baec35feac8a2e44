//! `create` and `run`.

use std::path::Path;

use anyhow::{Context, Result};
use isolab_container::{
    CgroupManager, CgroupPlacement, Container, ContainerConfig, RootFilesystem, Stdio, hooks,
    oci::ContainerState, start_at, start_socket,
};

use nix::errno::Errno;

use crate::folder::{Folder, Root, State, write_atomically};
use crate::options::{Create, Run};
use crate::systemd::{Scope, Unit};
use crate::{bundle, console, signals, systemd};

/// A container that waits to be started. Dropped, it is gone.
struct Created {
    container: Container,
    folder: Folder,
    /// The scope that systemd has made for it.
    unit: Option<String>,
}

/// Who starts it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Start {
    /// This process, at once.
    Here,
    /// A later one, over the socket in the folder.
    Later,
}

/// Makes a container and leaves it waiting.
pub fn create(root: &Root, options: &Create, by_systemd: bool) -> Result<()> {
    let Created { container, .. } = make(root, options, Start::Later, by_systemd)?;
    container.into_instance().release();
    Ok(())
}

/// Makes a container, starts it, waits for its end and deletes it. The exit code is the process's.
pub fn run(root: &Root, options: &Run, by_systemd: bool) -> Result<u8> {
    let signals = signals::block()?;
    let Created { mut container, folder, unit } =
        make(root, &options.create, Start::Here, by_systemd)?;
    let handle = container.handle()?;
    if let Err(error) = container.start() {
        // The error that brought us here is the one to tell.
        let _ = container.remove();
        let _ = unit.as_deref().map_or(Ok(()), systemd::stop);
        folder.remove()?;
        return Err(error.into());
    }
    if options.detach {
        container.into_instance().release();
        return Ok(0);
    }
    // Others find it meanwhile.
    let folder = folder.unlock()?;
    signals.pass_on(&handle)?;
    let status = container.wait()?;
    if options.keep {
        container.into_instance().release();
    } else {
        container.remove()?;
        unit.as_deref().map_or(Ok(()), systemd::stop)?;
        folder.remove()?;
    }
    Ok(status.code() as u8)
}

/// Lets a container's process go.
pub fn start(folder: &Folder, state: &State) -> Result<()> {
    let process = state.spec.process().as_ref().context("config.json has no process")?;
    let handle = state.handle().context("its process has ended")?;
    let hooks = state.spec.hooks().as_ref();
    let told = state.to_oci(ContainerState::Created);
    let before = hooks.map(|all| hooks::before_start(all, process, &handle, &told));
    let started = before
        .unwrap_or(Ok(()))
        .and_then(|()| start_at(&state.id, &folder.start_socket(), process))
        .and_then(|()| hooks.map_or(Ok(()), |all| hooks::after_start(all, &told)));
    if started.is_err() {
        // Already gone, most likely; and after a hook that failed, not to go on.
        handle.signal(libc::SIGKILL)?;
    }
    // Started or dead, it does not wait any more.
    folder.forget_start_socket()?;
    Ok(started?)
}

/// Descriptors that are to be passed on have to be open, or others, our own, would be there in their place. To be
/// called before anything is opened.
pub fn check_further_descriptors(count: u32) -> Result<()> {
    for fd in 3..3 + count as i32 {
        // SAFETY: asks for a flag of a number, which owns nothing.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        Errno::result(flags).with_context(|| {
            format!("--preserve-fds {count} passes on descriptor {fd}, which is not open")
        })?;
    }
    Ok(())
}

/// Ours, but for what a terminal takes the place of.
pub fn streams(terminal: bool, further: u32) -> Stdio {
    Stdio { further, ..if terminal { Stdio::null() } else { Stdio::default() } }
}

fn make(root: &Root, options: &Create, start: Start, by_systemd: bool) -> Result<Created> {
    check_further_descriptors(options.preserve_fds)?;
    let (spec, rootfs, bundle) = bundle::load(&options.bundle)?;
    let terminal = spec.process().as_ref().and_then(|process| process.terminal()) == Some(true);
    console::check(terminal, options.console_socket.as_ref())?;
    let scope = by_systemd.then(|| Scope::new(&options.id, &spec)).transpose()?;
    let unit = scope.as_ref().map(Scope::unit);
    let folder = root.create(&options.id)?;
    if let Some(path) = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_ref()) {
        folder.remember_cgroup(path)?;
    }
    let name = unit.as_ref().map(|unit| unit.name.clone());
    match container(&folder, options, spec, &rootfs, &bundle, start, scope) {
        Ok(container) => Ok(Created { container, folder, unit: name }),
        Err(error) => {
            // The error that brought us here is the one to tell.
            let _ = unit.filter(Unit::is_made).map_or(Ok(()), |unit| systemd::stop(&unit.name));
            let _ = folder.remove();
            Err(error)
        }
    }
}

fn container(
    folder: &Folder,
    options: &Create,
    spec: isolab_container::oci::Spec,
    rootfs: &Path,
    bundle: &Path,
    start: Start,
    scope: Option<Scope>,
) -> Result<Container> {
    let terminal = options.console_socket.is_some();
    let unit = scope.as_ref().map(|scope| scope.unit().name);
    let config = ContainerConfig {
        id: options.id.clone(),
        spec: spec.clone(),
        rootfs: RootFilesystem::Directory(rootfs.to_path_buf()),
        bundle: Some(bundle.to_path_buf()),
        stdio: streams(terminal, options.preserve_fds),
        cgroup: CgroupPlacement::Own,
        cgroup_manager: scope.map(|scope| Box::new(scope) as Box<dyn CgroupManager>),
        map_ids: false,
        keep_keyring: options.no_new_keyring,
        create_cwd: false,
        no_pivot: options.no_pivot,
        kill_with_parent: false,
        owner_lock: None,
    };
    let mut container = match start {
        Start::Here => Container::create(config)?,
        Start::Later => Container::create_for_later(config, start_socket(&folder.start_socket())?)?,
    };
    let state = State::new(spec, bundle.to_path_buf(), &container.handle()?, unit)?;
    folder.save(&state)?;
    if start == Start::Later {
        container.is_known()?;
    }
    if let (Some(master), Some(socket)) = (container.terminal(), &options.console_socket) {
        console::send(socket, master)?;
    }
    // Last: whoever waits for it finds everything in place.
    if let Some(path) = &options.pid_file {
        write_atomically(path, container.pid().to_string().as_bytes())?;
    }
    Ok(container)
}
