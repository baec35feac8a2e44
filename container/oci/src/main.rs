//! `isolab-oci`: the container runtime as engines call it, by runc's command line.
//!
//! A container outlives the command that made it. What is known of it is in a folder (`folder`), its first process waits
//! at a socket there, and whoever adopted it, a shim or the host's init, is its parent. The life of a container:
//! `create` → `control::start` → `exec` … → `control::kill` → `control::delete`.

mod bundle;
mod console;
mod control;
mod create;
mod events;
mod exec;
mod features;
mod folder;
mod signals;
mod systemd;
mod update;

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Result, bail};
use isolab_link as _;
use isolab_oci::options;

use crate::folder::Root;
use crate::options::{Command, Global, LogFormat, Options};

/// As runc and crun have it for a failure of their own; podman reads the log for the rest.
const FAILURE: u8 = 1;

fn main() -> ExitCode {
    // SAFETY: SIG_DFL is no function, so that nothing runs in a handler; no thread exists yet. A caller that ignores
    // SIGCHLD would keep us from learning how our children ended.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    let Options { global, command } = Options::read();
    match execute(&global, command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let runtime = error.downcast_ref::<isolab_container::Error>();
            let text = words(&error, runtime);
            eprintln!("isolab-oci: {text}");
            log(&global, &text);
            let code = runtime.map_or(FAILURE, |error| match error.exit_code() {
                code @ (126 | 127) => code as u8,
                _ => FAILURE,
            });
            ExitCode::from(code)
        }
    }
}

/// Engines know a command that is missing, or no executable, by runc's words for it, which are Go's.
fn words(error: &anyhow::Error, runtime: Option<&isolab_container::Error>) -> String {
    match runtime {
        Some(isolab_container::Error::CommandNotFound { command }) if command.contains('/') => {
            format!("exec: {command:?}: no such file or directory")
        }
        Some(isolab_container::Error::CommandNotFound { command }) => {
            format!("exec: {command:?}: executable file not found in $PATH")
        }
        Some(isolab_container::Error::CommandNotExecutable { command, source })
            if source.kind() == std::io::ErrorKind::PermissionDenied =>
        {
            format!("exec: {command:?}: permission denied")
        }
        _ => format!("{error:#}"),
    }
}

fn execute(global: &Global, command: Command) -> Result<u8> {
    let root = Root::new(global.root.clone())?;
    match command {
        Command::Create(options) => create::create(&root, &options, global.systemd_cgroup)?,
        Command::Run(options) => return create::run(&root, &options, global.systemd_cgroup),
        Command::Exec(options) => return exec::exec(&root, &options),
        Command::Start(container) => control::start(&root, &container.id)?,
        Command::State(container) => print(&control::state(&root, &container.id)?),
        Command::Kill(options) => control::kill(&root, &options)?,
        Command::Delete(options) => control::delete(&root, &options)?,
        Command::Pause(container) => control::pause(&root, &container.id, true)?,
        Command::Resume(container) => control::pause(&root, &container.id, false)?,
        Command::Ps(options) => print(&control::ps(&root, &options)?),
        Command::Update(options) => update::update(&root, &options)?,
        Command::Events(options) => events::events(&root, &options)?,
        Command::List(options) => print(&control::list(&root, &options)?),
        Command::Checkpoint(_) | Command::Restore(_) => {
            bail!(
                "checkpoint and restore are not there: no container is written to a disk and made anew"
            )
        }
        Command::Features => print(&serde_json::to_string_pretty(&features::features())?),
        Command::Spec { bundle } => features::spec(&bundle)?,
    }
    Ok(0)
}

/// A reader that has gone is no failure of ours.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Where an engine looks for the reason. A log that cannot be written has been told on standard error already.
fn log(global: &Global, text: &str) {
    let Some(path) = &global.log else { return };
    let now = rfc3339(SystemTime::now());
    let line = match global.log_format {
        LogFormat::Json => {
            serde_json::json!({ "level": "error", "msg": text, "time": now }).to_string()
        }
        LogFormat::Text => format!("time={now:?} level=error msg={text:?}"),
    };
    let file = OpenOptions::new().append(true).create(true).open(path);
    let _ = file.and_then(|mut file| writeln!(file, "{line}"));
}

/// As callers in Go read a time.
fn rfc3339(time: SystemTime) -> String {
    chrono::DateTime::<chrono::Utc>::from(time).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
