//! What is done to a container that is there: `start`, `state`, `kill`, `delete`, `pause`, `resume`, `ps`, `list`.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use isolab_container::{hooks, oci::ContainerState, pidfd};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::create;
use crate::folder::{Folder, Root, State, Status};
use crate::options::{Delete, Format, Kill, List, Ps};
use crate::{rfc3339, systemd};

/// How long a killed container may take to be gone.
const KILL_TIMEOUT: u16 = 10_000;

/// Runs what waits since `create`.
pub fn start(root: &Root, id: &str) -> Result<()> {
    let (folder, state) = root.open(id)?;
    expect(&folder, &state, "start", &[Status::Created])?;
    create::start(&folder, &state)
}

/// The state as the specification has it (runtime.md), and what runc adds.
pub fn state(root: &Root, id: &str) -> Result<String> {
    let (folder, state) = root.open(id)?;
    Ok(serde_json::to_string_pretty(&describe(&folder, &state))?)
}

fn describe(folder: &Folder, state: &State) -> Value {
    let status = folder.status(state);
    json!({
        "ociVersion": state.spec.version(),
        "id": state.id,
        "status": status,
        "pid": if status == Status::Stopped { 0 } else { state.pid },
        "bundle": state.bundle,
        "annotations": state.spec.annotations().clone().unwrap_or_default(),
        "created": rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(state.created)),
    })
}

/// Sends a signal.
pub fn kill(root: &Root, options: &Kill) -> Result<()> {
    let signal = parse_signal(&options.signal)?;
    let (folder, state) = root.open(&options.id)?;
    let allowed = [Status::Created, Status::Running, Status::Paused];
    expect(&folder, &state, "kill", &allowed)?;
    let handle = state.handle().context("its process has just ended")?;
    if options.all {
        return Ok(handle.signal_all(signal)?);
    }
    let sent = handle.signal(signal);
    sent.with_context(|| format!("cannot send signal {signal} to container {}", state.id))
}

/// Removes what is left of a container.
pub fn delete(root: &Root, options: &Delete) -> Result<()> {
    let Some((folder, state)) = root.find(&options.id)? else {
        if let Some(unfinished) = root.unfinished(&options.id)? {
            return unfinished.clean_up();
        }
        if options.force {
            return Ok(());
        }
        bail!("container {} does not exist", options.id);
    };
    if !options.force {
        expect(&folder, &state, "delete", &[Status::Stopped])?;
    }
    if let Some(handle) = state.handle() {
        handle.signal(libc::SIGKILL).context("cannot kill the container")?;
        // Version 1's freezer keeps it from hearing of that; version 2's does not, and it may be gone by now.
        if handle.is_paused()
            && let Err(error) = handle.resume()
            && !handle.has_ended()
        {
            return Err(error.into());
        }
        let process = pidfd::open(nix::unistd::Pid::from_raw(handle.pid()));
        if let Ok(process) = process
            && !pidfd::wait(process, KILL_TIMEOUT.into())?
        {
            bail!("container {} does not end", state.id);
        }
    }
    // With whatever else is in them.
    state.memberships().remove()?;
    state.unit.as_deref().map_or(Ok(()), systemd::stop)?;
    folder.remove()?;
    // The container is gone, whatever they say.
    let told = state.to_oci(ContainerState::Stopped);
    for failed in state.spec.hooks().iter().flat_map(|all| hooks::after_removal(all, &told)) {
        eprintln!("isolab-oci: warning: {failed}");
    }
    Ok(())
}

/// Makes it stand still, or go on.
pub fn pause(root: &Root, id: &str, paused: bool) -> Result<()> {
    let (folder, state) = root.open(id)?;
    let (verb, wanted) =
        if paused { ("pause", Status::Running) } else { ("resume", Status::Paused) };
    expect(&folder, &state, verb, &[wanted])?;
    let handle = state.handle().context("its process has just ended")?;
    if paused { Ok(handle.pause()?) } else { Ok(handle.resume()?) }
}

/// The processes in it.
pub fn ps(root: &Root, options: &Ps) -> Result<String> {
    let (folder, state) = root.open(&options.id)?;
    let allowed = [Status::Created, Status::Running, Status::Paused];
    expect(&folder, &state, "list the processes of", &allowed)?;
    let handle = state.handle().context("its process has just ended")?;
    let processes = handle.processes()?;
    if options.format == Format::Json {
        let ids: Vec<i32> = processes.iter().map(|process| process.host_pid).collect();
        return Ok(serde_json::to_string(&ids)?);
    }
    let mut table = format!("{:>8} {:>8} {:>6} {:>9} CMD", "PID", "PPID", "UID", "TIME");
    for process in processes {
        let seconds = process.cpu_time.as_secs();
        let time = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        let command = match process.arguments.is_empty() {
            true => format!("[{}]", process.name),
            false => process.arguments.join(" "),
        };
        // From the container: nothing that a terminal would take for more than letters.
        let command: String =
            command.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        table += &format!(
            "\n{:>8} {:>8} {:>6} {time:>9} {command}",
            process.host_pid, process.host_parent, process.uid
        );
    }
    Ok(table)
}

/// All containers.
pub fn list(root: &Root, options: &List) -> Result<String> {
    let mut found: Vec<(Folder, State)> = Vec::new();
    for id in root.ids() {
        match root.find(&id) {
            Ok(Some(one)) => found.push(one),
            // Nobody makes it any more. One that is being deleted meanwhile is none either.
            Ok(None) => drop(root.unfinished(&id).ok().flatten().map(Folder::clean_up)),
            Err(_) => {}
        }
    }
    if options.quiet {
        let ids: Vec<&str> = found.iter().map(|(_, state)| state.id.as_str()).collect();
        return Ok(ids.join("\n"));
    }
    let described = found.iter().map(|(folder, state)| describe(folder, state));
    if options.format == Format::Json {
        return Ok(serde_json::to_string(&described.collect::<Vec<Value>>())?);
    }
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut table = format!("{:20} {:>8} {:9} {:20} BUNDLE", "ID", "PID", "STATUS", "CREATED");
    for one in described {
        let [id, pid, status, created, bundle] =
            ["id", "pid", "status", "created", "bundle"].map(|name| text(&one[name]));
        table += &format!("\n{id:20} {pid:>8} {status:9} {created:20} {bundle}");
    }
    Ok(table)
}

/// One of the states in which the specification allows it (runtime.md).
pub fn expect(folder: &Folder, state: &State, verb: &str, wanted: &[Status]) -> Result<()> {
    let status = folder.status(state);
    if !wanted.contains(&status) {
        bail!("cannot {verb} container {}: it is {}", state.id, status.name());
    }
    Ok(())
}

fn parse_signal(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse::<i32>() {
        // 0 asks whether it is there (kill(2)).
        if (0..=64).contains(&number) {
            return Ok(number);
        }
    }
    let name = text.to_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    let signal: Signal = name.parse().with_context(|| format!("{text:?} is no signal"))?;
    Ok(signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [("SIGTERM", 15), ("kill", 9), ("9", 9), ("HUP", 1), ("37", 37)] {
            assert_eq!(parse_signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "SIG", "65", "-1", "KILLALL"] {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }
}
