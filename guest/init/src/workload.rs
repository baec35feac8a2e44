//! Starting the OCI process.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use isolab_protocol::{User, Workload};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid, setgid, setgroups, setsid, setuid};

/// Why the workload did not start, with the exit code that shells, runc and podman give it.
pub struct NotStarted {
    /// 127: no such command; 126: it cannot be executed.
    pub code: u8,
    /// What failed, in one line.
    pub why: String,
}

/// Starts the workload with pipes for its output, and for its input if the host sends one.
pub fn spawn(workload: &Workload) -> Result<Child, NotStarted> {
    let Some((program, arguments)) = workload.args.split_first() else {
        return Err(NotStarted { code: 127, why: "the command is empty".to_owned() });
    };
    // As podman does for a WORKDIR that no layer has; if it cannot be made, chdir will say so.
    let _ = fs::create_dir_all(&workload.cwd);
    if let Err(error) = fs::read_dir(&workload.cwd) {
        return Err(NotStarted { code: 126, why: format!("chdir to {}: {error}", workload.cwd) });
    }
    let user = workload.user.clone();
    if user.is_unset() {
        let why = "a uid or gid of -1 would leave root's in place".to_owned();
        return Err(NotStarted { code: 126, why });
    }
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(workload.env.iter().map(|v| v.split_once('=').unwrap_or((v, ""))))
        .current_dir(&workload.cwd)
        .stdin(if workload.stdin { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec the closure makes system calls only, on data that it owns;
    // init has one thread, so no lock can be held by another.
    unsafe { command.pre_exec(move || become_user(&user)) };
    command.spawn().map_err(|error| NotStarted {
        code: if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 },
        why: format!("exec {program}: {error}"),
    })
}

fn become_user(user: &User) -> io::Result<()> {
    setsid()?;
    if let Some(mask) = user.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    let groups: Vec<Gid> = user.additional_gids.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setgid(Gid::from_raw(user.gid))?;
    setuid(Uid::from_raw(user.uid))?;
    Ok(())
}
