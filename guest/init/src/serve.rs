//! Carries the workload's input and output, and reaps, until the workload has ended.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin};

use isolab_protocol::{Frame, MAX_PAYLOAD, Marker, STDIN_WINDOW, Workload};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::Failure;
use crate::control::Control;
use crate::machine;
use crate::workload::{NotStarted, spawn};

/// Runs the workload to its end and reports that end over the control channel.
pub fn run_workload(workload: &Workload, control: &mut Control) -> Result<(), Failure> {
    let mut child_signals = SigSet::empty();
    child_signals.add(Signal::SIGCHLD);
    child_signals.thread_block().map_err(|e| format!("block SIGCHLD: {e}"))?;
    let reaper = SignalFd::with_flags(&child_signals, SfdFlags::SFD_CLOEXEC)
        .map_err(|e| format!("signalfd: {e}"))?;

    control.send(&Frame::StdinCredit(STDIN_WINDOW as u32));
    machine::mark(Marker::Workload);
    let mut child = match spawn(workload) {
        Ok(child) => child,
        Err(NotStarted { code, why }) => {
            control.send(&Frame::NotStarted(code, why));
            return Ok(());
        }
    };
    let mut output = Output::take(&mut child);
    let mut input = Input::take(&mut child)?;
    let pid = Pid::from_raw(child.id() as i32);
    let end = loop {
        let ready = wait_for_event(control, &reaper, &output, &input)?;
        if ready.output {
            output.forward(control)?;
        }
        if ready.control {
            for frame in control.receive()? {
                match frame {
                    Frame::Stdin(data) => input.push(&data),
                    // The workload may have ended meanwhile; then there is nobody to signal.
                    Frame::Signal(number) => drop(send_signal(pid, number)),
                    Frame::StdoutClosed => output.close(0),
                    Frame::StderrClosed => output.close(1),
                    other => return Err(format!("the host sent {other:?}")),
                }
            }
        }
        input.feed(control);
        if ready.reaper {
            let _ = reaper.read_signal();
            if let Some(end) = reap(pid) {
                break end;
            }
        }
    };
    // As in a PID namespace whose init ended: everything that is left goes too, which also closes
    // the pipes' other ends.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while output.is_open() {
        output.forward(control)?;
    }
    machine::mark(Marker::Ended);
    control.send(&end);
    Ok(())
}

fn send_signal(pid: Pid, number: u8) -> nix::Result<()> {
    // Not by nix, which knows no real-time signals; systemd powers off by one.
    // SAFETY: kill(2) takes numbers only.
    Errno::result(unsafe { libc::kill(pid.as_raw(), i32::from(number)) }).map(drop)
}

#[derive(Default)]
struct Ready {
    control: bool,
    reaper: bool,
    output: bool,
}

fn wait_for_event(
    control: &Control,
    reaper: &SignalFd,
    output: &Output,
    input: &Input,
) -> Result<Ready, Failure> {
    let mut fds = vec![
        PollFd::new(control.as_fd(), PollFlags::POLLIN),
        PollFd::new(reaper.as_fd(), PollFlags::POLLIN),
    ];
    if let Some(pipe) = input.waiting_pipe() {
        fds.push(PollFd::new(pipe.as_fd(), PollFlags::POLLOUT));
    }
    let first_output = fds.len();
    for pipe in output.pipes.iter().flatten() {
        fds.push(PollFd::new(pipe.file.as_fd(), PollFlags::POLLIN));
    }
    match poll(&mut fds, PollTimeout::NONE) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(Ready::default()),
        Err(error) => return Err(format!("poll: {error}")),
    }
    let is_ready = |fd: &PollFd| fd.any().unwrap_or(true);
    Ok(Ready {
        control: is_ready(&fds[0]),
        reaper: is_ready(&fds[1]),
        output: fds[first_output..].iter().any(is_ready),
    })
}

/// Reaps every child that ended, orphans included, and tells how the workload ended if it did.
fn reap(workload: Pid) -> Option<Frame> {
    let mut end = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == workload => {
                end = Some(Frame::Exited(code as u8));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == workload => {
                end = Some(Frame::Killed(signal as u8));
            }
            Ok(WaitStatus::StillAlive) | Err(_) => return end,
            Ok(_) => {}
        }
    }
}

struct OutputPipe {
    file: std::fs::File,
    frame: fn(Vec<u8>) -> Frame,
}

/// The workload's standard output and error.
struct Output {
    pipes: [Option<OutputPipe>; 2],
}

impl Output {
    fn take(child: &mut Child) -> Self {
        let pipe = |fd: std::os::fd::OwnedFd, frame| OutputPipe { file: fd.into(), frame };
        let stdout = child.stdout.take().map(|s| pipe(s.into(), Frame::Stdout));
        let stderr = child.stderr.take().map(|s| pipe(s.into(), Frame::Stderr));
        Self { pipes: [stdout, stderr] }
    }

    /// Closes our end, so that who writes to the other gets SIGPIPE.
    fn close(&mut self, stream: usize) {
        self.pipes[stream] = None;
    }

    fn is_open(&self) -> bool {
        self.pipes.iter().any(Option::is_some)
    }

    /// Sends what is there; a pipe at its end is closed.
    fn forward(&mut self, control: &mut Control) -> Result<(), Failure> {
        for slot in &mut self.pipes {
            let Some(pipe) = slot else { continue };
            let mut ready = [PollFd::new(pipe.file.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::ZERO).unwrap_or(0) == 0 {
                continue;
            }
            let mut buffer = [0; MAX_PAYLOAD];
            match pipe.file.read(&mut buffer) {
                Ok(0) => *slot = None,
                Ok(count) => control.send(&(pipe.frame)(buffer[..count].to_vec())),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("read the workload's output: {error}")),
            }
        }
        Ok(())
    }
}

/// The workload's standard input: what the host sent and the workload has not yet taken, which
/// the host keeps below [`isolab_protocol::STDIN_WINDOW`].
struct Input {
    pipe: Option<ChildStdin>,
    pending: VecDeque<u8>,
    ended: bool,
}

impl Input {
    fn take(child: &mut Child) -> Result<Self, Failure> {
        let pipe = child.stdin.take();
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .map_err(|e| format!("make standard input non-blocking: {e}"))?;
        }
        Ok(Self { pipe, pending: VecDeque::new(), ended: false })
    }

    fn push(&mut self, data: &[u8]) {
        self.pending.extend(data);
        self.ended |= data.is_empty();
    }

    /// The pipe, when there is something to write into it.
    fn waiting_pipe(&self) -> Option<&ChildStdin> {
        self.pipe.as_ref().filter(|_| !self.pending.is_empty())
    }

    /// Writes what the workload takes without waiting, and tells the host.
    fn feed(&mut self, control: &mut Control) {
        let mut taken = 0;
        while !self.pending.is_empty() {
            let written = match &mut self.pipe {
                Some(pipe) => pipe.write(self.pending.as_slices().0),
                // Nobody reads it: taken and thrown away, so that the host goes on.
                None => Ok(self.pending.len()),
            };
            match written {
                Ok(count) => {
                    self.pending.drain(..count);
                    taken += count as u32;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.pipe = None,
            }
        }
        if taken > 0 {
            control.send(&Frame::StdinCredit(taken));
        }
        if self.ended && self.pending.is_empty() {
            self.pipe = None;
        }
    }
}
