//! `exec`.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, bail};
use isolab_container::oci::{Capability, LinuxCapabilities, Process, User};

use crate::create::{check_further_descriptors, streams};
use crate::folder::{Root, State, Status, write_atomically};
use crate::options::Exec;
use crate::{bundle, console};

/// Runs a further process. The exit code is its own.
pub fn exec(root: &Root, options: &Exec) -> Result<u8> {
    check_further_descriptors(options.preserve_fds)?;
    let (folder, state) = root.open(&options.id)?;
    let status = folder.status(&state);
    let handle = match status {
        Status::Created | Status::Running => state.handle(),
        Status::Paused | Status::Stopped => None,
    };
    let handle = handle.with_context(|| {
        format!("cannot exec in container {}: it is {}", state.id, status.name())
    })?;
    let process = process(&state, options)?;
    let terminal = process.terminal() == Some(true);
    console::check(terminal, options.console_socket.as_ref())?;
    let stdio = streams(terminal, options.preserve_fds);
    if options.detach {
        let released = handle.exec_released(&process, stdio)?;
        report(options, released.pid, released.terminal)?;
        return Ok(0);
    }
    let mut executed = handle.exec(&process, stdio)?;
    drop(folder);
    report(options, executed.pid(), executed.terminal())?;
    match executed.wait() {
        Ok(status) => Ok(status.code() as u8),
        Err(error) => bail!("cannot wait for the process: {error}"),
    }
}

/// Tells the caller what it asked for.
fn report(options: &Exec, pid: i32, terminal: Option<OwnedFd>) -> Result<()> {
    if let (Some(master), Some(socket)) = (terminal, &options.console_socket) {
        console::send(socket, master)?;
    }
    match &options.pid_file {
        Some(path) => write_atomically(path, pid.to_string().as_bytes()),
        None => Ok(()),
    }
}

/// The process of `--process`, or the container's own with another command and what the options say.
fn process(state: &State, options: &Exec) -> Result<Process> {
    if let Some(path) = &options.process {
        return bundle::load_process(path);
    }
    if options.command.is_empty() {
        bail!("exec needs a command, or --process");
    }
    let mut process = state.spec.process().clone().context("config.json has no process")?;
    process.set_args(Some(options.command.clone()));
    process.set_terminal(Some(options.tty));
    if let Some(cwd) = &options.cwd {
        process.set_cwd(cwd.clone());
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(options.env.iter().cloned());
    process.set_env(Some(env));
    if let Some(user) = &options.user {
        process.set_user(parse_user(user)?);
    }
    if !options.additional_gids.is_empty() {
        let mut user = process.user().clone();
        user.set_additional_gids(Some(options.additional_gids.clone()));
        process.set_user(user);
    }
    if !options.cap.is_empty() {
        let held = process.capabilities().clone();
        process.set_capabilities(Some(add_capabilities(held, &options.cap)?));
    }
    if options.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    if let Some(profile) = &options.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &options.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    Ok(process)
}

/// As runc: what its program may do, and not what programs of its program inherit.
fn add_capabilities(
    held: Option<LinuxCapabilities>,
    names: &[String],
) -> Result<LinuxCapabilities> {
    let mut sets = held.unwrap_or_default();
    for name in names {
        let capability: Capability = serde_json::from_value(name.to_uppercase().into())
            .with_context(|| format!("{name:?} is no capability"))?;
        let with = |set: &Option<HashSet<Capability>>| {
            let mut set = set.clone().unwrap_or_default();
            set.insert(capability);
            Some(set)
        };
        let (bounding, effective, permitted) =
            (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
        sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    }
    Ok(sets)
}

fn parse_user(text: &str) -> Result<User> {
    let number = |text: &str| {
        text.parse::<u32>().with_context(|| format!("--user {text:?}: a number is wanted"))
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, "0"));
    let mut user = User::default();
    user.set_uid(number(uid)?).set_gid(number(gid)?);
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_numbers() {
        let user = parse_user("1000:7").unwrap();
        assert_eq!((user.uid(), user.gid()), (1000, 7));
        assert_eq!(parse_user("5").unwrap().gid(), 0);
        assert!(parse_user("root").is_err() && parse_user("1:").is_err());
    }
}
