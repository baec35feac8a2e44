//! The process of pasta or passt: started, heard until it is ready, and ended with whoever started it.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

use crate::error::NetworkError;

/// It is ready in some tens of milliseconds; a host may be busy.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// More than it ever says before it gives up.
const MAX_SAID: usize = 16 << 10;

/// A process that moves the packets of one instance.
#[derive(Debug)]
pub(super) struct Connector {
    child: Child,
    /// What it says later is for nobody; but who writes where nobody can read is ended.
    _said: File,
}

impl Connector {
    /// Starts the program and waits until it is ready. `streams`: its standard input and output.
    pub(super) fn start(
        program: &Path,
        arguments: &[String],
        [stdin, stdout]: [Stdio; 2],
    ) -> Result<Self, NetworkError> {
        let name = program.display().to_string();
        let failed = |action| NetworkError::kernel(action, &name);
        let (said, telling) = io::pipe().map_err(failed("make a pipe to hear"))?;
        // When nobody reads any more, it must not wait.
        set_nonblocking(&telling).map_err(failed("make a pipe to hear"))?;
        let parent = getpid();
        let mut command = Command::new(program);
        command.args(arguments).stdin(stdin).stdout(stdout).stderr(telling);
        // A terminal's signals are for the workload.
        command.process_group(0);
        // SAFETY: the closure makes two system calls and allocates nothing.
        unsafe { command.pre_exec(move || end_with_parent(parent)) };
        let child = command.spawn().map_err(failed("start"))?;
        // With it our copy of the pipe's other end, which would keep us from hearing of its end.
        drop(command);
        let mut connector = Self { child, _said: File::from(OwnedFd::from(said)) };
        match connector.wait_ready().map_err(failed("hear"))? {
            None => Ok(connector),
            Some(said) => Err(NetworkError::UserMode { program: name, said }),
        }
    }

    /// None when it is ready; else what it said before it ended, or did not.
    fn wait_ready(&mut self) -> io::Result<Option<String>> {
        let own_id = self.child.id().to_string();
        let deadline = Instant::now() + READY_WITHIN;
        let mut said = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || said.len() > MAX_SAID {
                return Ok(Some("it does not become ready".to_owned()));
            }
            let mut heard = [PollFd::new(self._said.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut heard, timeout) {
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut buffer = [0; 1024];
            let length = self._said.read(&mut buffer)?;
            said.extend(&buffer[..length]);
            let text = String::from_utf8_lossy(&said);
            if text.lines().any(|line| line == own_id) && text.ends_with('\n') {
                return Ok(None);
            }
            if length == 0 {
                return Ok(Some(in_short(&text)));
            }
        }
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The last line is why it gave up; that there is no syslog it says in between.
fn in_short(said: &str) -> String {
    let mut lines = said.lines().map(str::trim);
    let last = lines.rfind(|line| !line.is_empty() && !line.ends_with("to syslog"));
    last.unwrap_or("it ended without a word").to_owned()
}

/// Child: when the thread that started it ends, be it by a kill, the kernel ends this process. Its own user namespace,
/// which it enters, is the caller's, so that the setting stays (cred_cap_issubset of kernel/cred.c).
fn end_with_parent(parent: Pid) -> io::Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    match getppid() == parent {
        true => Ok(()),
        false => Err(Errno::ESRCH.into()),
    }
}

fn set_nonblocking(fd: &impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Connector, NetworkError> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        Connector::start(Path::new("/bin/sh"), &arguments, [Stdio::null(), Stdio::null()])
    }

    #[test]
    fn it_is_ready_when_it_writes_its_number_and_ends_with_us() {
        let connector = shell("echo hello >&2; echo $$ >&2; while :; do sleep 1; done").unwrap();
        let process = format!("/proc/{}", connector.child.id());
        assert!(Path::new(&process).exists());
        drop(connector);
        assert!(!Path::new(&process).exists());
    }

    #[test]
    fn what_it_says_before_it_gives_up_is_told() {
        let script = "echo 1234 >&2; echo 'no such thing' >&2; echo 'Failed to send 9 bytes to syslog' >&2; exit 1";
        let error = shell(script).unwrap_err();
        assert!(
            matches!(&error, NetworkError::UserMode { said, .. } if said == "no such thing"),
            "{error}"
        );
        let silent = shell("exit 1").unwrap_err().to_string();
        assert!(silent.contains("/bin/sh") && silent.contains("without a word"), "{silent}");
    }

    #[test]
    fn a_thread_that_ends_takes_it_along() {
        let thread = std::thread::spawn(|| {
            let connector = shell("echo $$ >&2; exec sleep 1000").unwrap();
            let id = connector.child.id();
            // As when a kill ends us: nobody drops it.
            std::mem::forget(connector);
            id
        });
        let id = thread.join().unwrap();
        let status = nix::sys::wait::waitpid(Pid::from_raw(id as i32), None).unwrap();
        let killed =
            nix::sys::wait::WaitStatus::Signaled(Pid::from_raw(id as i32), Signal::SIGKILL, false);
        assert_eq!(status, killed);
    }
}
