//! Starting what the host asks for.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use isolab_protocol::{Process, Service, Task, User, WindowSize};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown, fork, setgid,
    setgroups, setsid, setuid,
};

use crate::rights::RightsPlan;
use crate::services;

/// Why a process did not start, with the exit code that shells, runc and podman give it.
pub struct NotStarted {
    /// 127: no such command; 126: it cannot be executed.
    pub code: u8,
    /// What failed, in one line.
    pub why: String,
}

/// A child that runs, and our ends of its streams, which do not block.
pub struct Child {
    pub pid: Pid,
    pub streams: Streams,
}

/// Our ends.
pub enum Streams {
    Pipes {
        stdin: Option<File>,
        stdout: File,
        stderr: File,
    },
    /// The master of its terminal.
    Terminal(File),
}

/// Starts what `task` says.
pub fn spawn(task: &Task) -> Result<Child, NotStarted> {
    match task {
        Task::Process(process) => spawn_process(process),
        Task::Service(service) => {
            spawn_service(service).map_err(|e| NotStarted { code: 126, why: format!("fork: {e}") })
        }
    }
}

/// As podman does for a WORKDIR that no layer has; if it cannot be made, chdir will say so.
pub fn make_working_directory(process: &Process) {
    let _ = fs::create_dir_all(&process.cwd);
}

fn spawn_process(process: &Process) -> Result<Child, NotStarted> {
    let Some((program, arguments)) = process.args.split_first() else {
        return Err(NotStarted { code: 127, why: "the command is empty".to_owned() });
    };
    let refused = |why| NotStarted { code: 126, why };
    if let Err(error) = fs::read_dir(&process.cwd) {
        return Err(refused(format!("chdir to {}: {error}", process.cwd)));
    }
    let user = process.user.clone();
    let rights = RightsPlan::new(&process.rights);
    if user.is_unset() {
        return Err(refused("a uid or gid of -1 would leave root's in place".to_owned()));
    }
    let mut command = match find(process) {
        Some(path) => Command::new(path),
        None => Command::new(program),
    };
    command
        .arg0(program)
        .args(arguments)
        .env_clear()
        .envs(process.env.iter().map(|v| v.split_once('=').unwrap_or((v, ""))))
        .current_dir(&process.cwd);
    let no_streams = |e: io::Error| refused(format!("make the standard streams: {e}"));
    let streams = match process.terminal {
        Some(size) => terminal(&mut command, size, user.uid).map_err(no_streams)?,
        None => pipes(&mut command, process.stdin).map_err(no_streams)?,
    };
    let has_terminal = process.terminal.is_some();
    // SAFETY: between fork and exec the closure makes system calls only, on data that it owns;
    // init has one thread, so no lock can be held by another.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            if has_terminal {
                take_terminal()?;
            }
            rights.apply_as_root()?;
            become_user(&user)?;
            rights.apply_as_user()
        });
    }
    let child = command.spawn().map_err(|error| NotStarted {
        code: if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 },
        why: format!("exec {program}: {error}"),
    })?;
    Ok(Child { pid: Pid::from_raw(child.id() as i32), streams })
}

/// Where execvp(3) would find root's program by PATH, for which it would have one execve fail in each
/// folder before, and an execve makes an address space before it looks. All that is not plain is left
/// to execvp: other users, relative folders, and the reason why there is none.
fn find(process: &Process) -> Option<PathBuf> {
    let program = process.args.first().filter(|program| !program.contains('/'))?;
    let path = process.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="))?;
    if process.user.uid != 0 {
        return None;
    }
    let mut folders = path.split(':').map(Path::new).take_while(|folder| folder.is_absolute());
    folders.find_map(|folder| {
        let candidate = folder.join(program);
        let found = fs::metadata(&candidate);
        found.is_ok_and(|it| it.is_file() && it.mode() & 0o111 != 0).then_some(candidate)
    })
}

fn pipes(command: &mut Command, stdin: bool) -> io::Result<Streams> {
    let input = match stdin {
        true => {
            let (theirs, ours) = io::pipe()?;
            command.stdin(theirs);
            Some(without_blocking(ours.into())?)
        }
        false => {
            command.stdin(Stdio::null());
            None
        }
    };
    let (stdout, theirs) = io::pipe()?;
    command.stdout(theirs);
    let (stderr, theirs) = io::pipe()?;
    command.stderr(theirs);
    let (stdout, stderr) = (without_blocking(stdout.into())?, without_blocking(stderr.into())?);
    Ok(Streams::Pipes { stdin: input, stdout, stderr })
}

fn terminal(command: &mut Command, size: WindowSize, uid: u32) -> io::Result<Streams> {
    let OpenptyResult { master, slave } = openpty(Some(&window(size)), None)?;
    // As runc: the user opens /dev/stdout and the like by its name.
    fchown(&slave, Some(Uid::from_raw(uid)), None)?;
    // openpty(3) knows no O_CLOEXEC, and init has one thread.
    for end in [&master, &slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
    Ok(Streams::Terminal(without_blocking(master)?))
}

fn without_blocking(end: OwnedFd) -> io::Result<File> {
    fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(File::from(end))
}

fn window(WindowSize { rows, columns }: WindowSize) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Tells a terminal its size, of which its foreground processes hear by SIGWINCH.
pub fn resize(master: impl AsFd, size: WindowSize) {
    let (terminal, size) = (master.as_fd().as_raw_fd(), window(size));
    // SAFETY: TIOCSWINSZ reads a winsize, which lives until the call is over. It can only fail for a
    // terminal that has ended.
    let _ = unsafe { libc::ioctl(terminal, libc::TIOCSWINSZ, &raw const size) };
}

/// Makes standard input the controlling terminal of the session that this process leads.
fn take_terminal() -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
    Ok(())
}

fn become_user(user: &User) -> io::Result<()> {
    if let Some(mask) = user.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    let groups: Vec<Gid> = user.additional_gids.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setgid(Gid::from_raw(user.gid))?;
    setuid(Uid::from_raw(user.uid))?;
    Ok(())
}

/// A child of init's own, as root.
fn spawn_service(service: &Service) -> io::Result<Child> {
    let (their_input, stdin) = io::pipe()?;
    let (stdout, their_output) = io::pipe()?;
    let (stderr, their_errors) = io::pipe()?;
    // SAFETY: init has one thread, so that the child may do whatever its parent might.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => {
            let [stdin, stdout, stderr] =
                [OwnedFd::from(stdin), stdout.into(), stderr.into()].map(without_blocking);
            let streams = Streams::Pipes { stdin: Some(stdin?), stdout: stdout?, stderr: stderr? };
            Ok(Child { pid: child, streams })
        }
        ForkResult::Child => {
            drop((stdin, stdout, stderr));
            let streams = dup2_stdin(&their_input)
                .and_then(|()| dup2_stdout(&their_output))
                .and_then(|()| dup2_stderr(&their_errors));
            drop((their_input, their_output, their_errors));
            let code = match streams.map_err(io::Error::from).and_then(|()| as_a_program()) {
                Ok(()) => services::run(service),
                Err(_) => 126,
            };
            std::process::exit(code)
        }
    }
}

/// A child that does this and ends.
pub fn in_child(act: impl FnOnce()) -> io::Result<Pid> {
    // SAFETY: init has one thread, so that the child may do whatever its parent might.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            act();
            std::process::exit(0)
        }
    }
}

/// Undoes what is init's alone: its session, its blocked SIGCHLD and its ignored SIGPIPE.
fn as_a_program() -> io::Result<()> {
    setsid()?;
    SigSet::all().thread_unblock()?;
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGPIPE, &default) }?;
    Ok(())
}
