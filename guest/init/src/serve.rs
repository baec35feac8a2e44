//! Carries input and output of every process that the host knows, and reaps, until the workload has ended.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;

use isolab_protocol::{
    Frame, FromGuest, FromHost, Marker, Mount, Process, ProcessId, Task, WORKLOAD,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};

use crate::Failure;
use crate::channel::Channel;
use crate::machine;
use crate::mounts;
use crate::process::RunningProcess;
use crate::spawn::{self, NotStarted};

/// Runs the workload to its end and reports that end over the control channel, last of all: what it wrote to `mounts` is
/// there by then, and if the scratch disk `lasts`, what it wrote to that.
pub fn run_workload(
    workload: Process,
    mounts: &[Mount],
    lasts: bool,
    channel: &mut Channel,
) -> Result<(), Failure> {
    let mut child_signals = SigSet::empty();
    child_signals.add(Signal::SIGCHLD);
    child_signals.thread_block().map_err(|e| format!("block SIGCHLD: {e}"))?;
    let reaper =
        SignalFd::with_flags(&child_signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(|e| format!("signalfd: {e}"))?;
    let mut supervisor = Supervisor {
        channel,
        mounts,
        processes: BTreeMap::new(),
        workload_end: None,
        writer: None,
    };
    spawn::make_working_directory(&workload);
    machine::mark(Marker::Workload);
    supervisor.start(WORKLOAD, &Task::Process(workload))?;
    while supervisor.processes.contains_key(&WORKLOAD) {
        supervisor.turn(&reaper)?;
    }
    machine::mark(Marker::Ended);
    supervisor.write_back(&reaper, lasts)?;
    if count_oom_kills() > 0 {
        supervisor.channel.send(WORKLOAD, FromGuest::OutOfMemory);
    }
    if let Some(end) = supervisor.workload_end {
        supervisor.channel.send(WORKLOAD, end);
    }
    Ok(())
}

struct Supervisor<'a> {
    channel: &'a mut Channel,
    mounts: &'a [Mount],
    processes: BTreeMap<ProcessId, RunningProcess>,
    /// To be told last of all.
    workload_end: Option<FromGuest>,
    /// Waits until what was written is on the disk.
    writer: Option<Pid>,
}

impl Supervisor<'_> {
    fn start(&mut self, id: ProcessId, task: &Task) -> Result<(), Failure> {
        match spawn::spawn(task) {
            Ok(child) => {
                let window = self.channel.stdin_window() as u32;
                self.channel.send(id, FromGuest::StdinCredit(window));
                let process = RunningProcess::new(id, child)
                    .map_err(|e| format!("duplicate a terminal's descriptor: {e}"))?;
                self.processes.insert(id, process);
            }
            Err(NotStarted { code, why }) => {
                self.channel.send(id, FromGuest::NotStarted(code, why));
            }
        }
        Ok(())
    }

    /// Waits for something to happen, and does what follows from it.
    fn turn(&mut self, reaper: &SignalFd) -> Result<(), Failure> {
        // First, for what was said before there was anything to wait for. The last words are the channel's
        // to flush.
        self.channel.flush()?;
        let ready = self.wait(reaper)?;
        if ready.channel {
            for frame in self.channel.receive()? {
                self.obey(frame)?;
            }
        }
        if ready.reaper {
            while matches!(reaper.read_signal(), Ok(Some(_))) {}
            self.reap();
        }
        let mut ended = Vec::new();
        for process in self.processes.values_mut() {
            process.feed_input(self.channel);
            process.forward_output(self.channel);
            if let Some(end) = process.take_end(false) {
                ended.push((process.id(), end));
            }
        }
        for (id, end) in ended {
            self.processes.remove(&id);
            if id == WORKLOAD {
                self.end_others();
                self.workload_end = Some(end);
            } else {
                self.channel.send(id, end);
            }
        }
        Ok(())
    }

    /// Waits until what was written to the volumes is on them, and if the root's disk `lasts`, all that was written on
    /// that. In a child: what the host says is heard meanwhile, and answered, however long it takes.
    fn write_back(&mut self, reaper: &SignalFd, lasts: bool) -> Result<(), Failure> {
        let volumes: Vec<&Mount> = mounts::lasting(self.mounts).collect();
        if volumes.is_empty() && !lasts {
            return Ok(());
        }
        let writer = spawn::in_child(|| {
            mounts::sync(&volumes);
            if lasts {
                sync();
            }
        });
        self.writer = Some(writer.map_err(|e| format!("fork: {e}"))?);
        while self.writer.is_some() {
            self.turn(reaper)?;
        }
        Ok(())
    }

    fn wait(&self, reaper: &SignalFd) -> Result<Ready, Failure> {
        let mut wanted = PollFlags::POLLIN;
        wanted.set(PollFlags::POLLOUT, self.channel.wants_room());
        let mut fds = vec![
            PollFd::new(self.channel.as_fd(), wanted),
            PollFd::new(reaper.as_fd(), PollFlags::POLLIN),
        ];
        for process in self.processes.values() {
            process.poll_fds(&mut fds, self.channel.has_room());
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Ready::default()),
            Err(error) => return Err(format!("poll: {error}")),
        }
        let room = PollFlags::POLLOUT;
        let channel = fds[0].revents().is_some_and(|events| !events.difference(room).is_empty());
        Ok(Ready { channel, reaper: fds[1].any().unwrap_or(true) })
    }

    fn obey(&mut self, Frame { process: id, message }: Frame<FromHost>) -> Result<(), Failure> {
        if let FromHost::Start(task) = message {
            if self.processes.contains_key(&id) {
                return Err(format!("the host started process {id} twice"));
            }
            return self.start(id, &task);
        }
        if message == FromHost::Ping {
            self.channel.send(id, FromGuest::Pong);
            return Ok(());
        }
        // It may have ended while the frame was on its way.
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        match message {
            FromHost::Stdin(data) => process.push_input(&data),
            FromHost::OutputCredit(stream, count) => process.add_credit(stream, count as usize),
            FromHost::OutputClosed(stream) => process.close_output(stream),
            FromHost::Signal(number) => process.signal(number),
            FromHost::Resize(size) => process.resize(size),
            FromHost::Start(_) | FromHost::Ping => {}
            FromHost::InMailbox(_) | FromHost::MailboxTaken => {
                return Err("the host speaks of a mailbox that there is none of".to_owned());
            }
        }
        Ok(())
    }

    /// Reaps every child that ended, orphans included.
    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, FromGuest::Exited(code as u8)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.ended(pid, FromGuest::Killed(signal as u8));
                }
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn ended(&mut self, pid: Pid, end: FromGuest) {
        self.writer.take_if(|writer| *writer == pid);
        let mut processes = self.processes.values_mut();
        let Some(process) = processes.find(|process| process.pid() == pid) else { return };
        process.ended(end);
        if process.id() == WORKLOAD {
            // As in a PID namespace whose init ended: everything that is left goes too, which also
            // closes the pipes' other ends.
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
        }
    }

    /// Tells how everything but the workload ended, which was killed with it.
    fn end_others(&mut self) {
        self.reap();
        for (id, process) in &mut self.processes {
            if *id != WORKLOAD
                && let Some(end) = process.take_end(true)
            {
                self.channel.send(*id, end);
            }
        }
    }
}

#[derive(Default)]
struct Ready {
    channel: bool,
    reaper: bool,
}

/// Processes that the kernel has killed for want of memory (`oom_kill`, Linux 4.13 and newer) since its start.
fn count_oom_kills() -> u64 {
    let counters = fs::read_to_string("/proc/vmstat").unwrap_or_default();
    let line = counters.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
