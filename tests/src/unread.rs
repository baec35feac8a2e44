//! Commands whose output nobody reads.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::{Run, TIME_LIMIT};

impl Run {
    /// Starts it with pipes from standard output and error that are held and never read.
    pub fn start_unread(mut self) -> Unread {
        let (reader, writer) = io::pipe().expect("a pipe");
        let (errors, error_writer) = io::pipe().expect("a pipe");
        for pipe in [&reader, &errors] {
            // A page, so that it is full soon.
            fcntl(pipe, FcntlArg::F_SETPIPE_SZ(1)).expect("a pipe can be smaller");
        }
        let writable = writer.try_clone().expect("a descriptor");
        let command = self.0.stdout(writer).stderr(error_writer);
        let child = command.spawn().expect("the program starts");
        drop(self);
        Unread { child, writable, _stdout: reader, _stderr: errors }
    }
}

/// A command whose output nobody reads.
pub struct Unread {
    child: Child,
    /// The other end of `_stdout`, to see when it is full.
    writable: io::PipeWriter,
    _stdout: io::PipeReader,
    _stderr: io::PipeReader,
}

impl Unread {
    /// Waits until the pipe from standard output takes no more.
    #[track_caller]
    pub fn wait_until_full(&mut self) {
        self.wait_while("its output is not full", |unread| {
            let mut poll = [PollFd::new(unread.writable.as_fd(), PollFlags::POLLOUT)];
            nix::poll::poll(&mut poll, PollTimeout::ZERO).expect("a pipe can be polled") > 0
        });
    }

    /// Waits until it has a thread of this name.
    #[track_caller]
    pub fn wait_for_thread(&mut self, name: &str) {
        self.wait_while("it lacks the thread", |unread| {
            let tasks = fs::read_dir(format!("/proc/{}/task", unread.id()));
            let named = |path: PathBuf| fs::read_to_string(path.join("comm"));
            let names =
                tasks.expect("it runs").flatten().filter_map(|task| named(task.path()).ok());
            !names.into_iter().any(|found| found.trim() == name)
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32);
        signal::kill(pid, signal).expect("the process has not been waited for");
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end; the exit code.
    #[track_caller]
    pub fn finish(mut self) -> Option<i32> {
        let mut status = None;
        self.wait_while("it does not end", |unread| {
            status = unread.child.try_wait().expect("it is our child");
            status.is_none()
        });
        status.expect("it was waited for").code()
    }

    #[track_caller]
    fn wait_while(&mut self, complaint: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + TIME_LIMIT;
        while condition(self) {
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("{complaint}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
