//! What can be done to a plain process or a container while it runs.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use error_reporter::Report;
use isolab_container::processes::ProcessInfo;
use isolab_container::{Executed, ExitStatus, Handle, WindowSize, resize};
use isolab_guest::FileRequest;
use oci_spec::runtime::{BoxBuilder, Process};

use crate::controller::{Controller, ExecProcess, ProcessEntry, Stats, Stdio};
use crate::error::IsolationError;
use crate::level::Level;
use crate::stdio::{self, Copies};
use crate::workload_status::WorkloadStatus;

pub(super) struct NativeController {
    pub level: Level,
    /// Which of the host's users is root there.
    pub first_user: u32,
    pub handle: Handle,
    /// The master of the workload's terminal.
    pub terminal: Option<OwnedFd>,
}

impl Controller for NativeController {
    fn signal(&self, signal: i32) -> io::Result<()> {
        Ok(self.handle.signal(signal)?)
    }

    fn resize(&self, size: WindowSize) -> Result<(), IsolationError> {
        resize_terminal(self.terminal.as_ref(), size)
    }

    fn exec(
        &self,
        mut process: Process,
        stdio: Stdio,
    ) -> Result<Box<dyn ExecProcess>, IsolationError> {
        let owner = self.first_user.saturating_add(process.user().uid());
        let (streams, mut copies) = streams(self.level, owner, &mut process, stdio)?;
        copies.start()?;
        let mut executed = self.handle.exec(&process, streams)?;
        let terminal = executed.terminal();
        let ours = terminal.as_ref().map(OwnedFd::try_clone).transpose();
        let ours = ours.map_err(IsolationError::host("duplicate a terminal's descriptor"))?;
        Ok(Box::new(NativeExec { executed, copies: Mutex::new(copies), terminal, ours }))
    }

    fn files(&self, _: FileRequest, _: Stdio) -> Result<Box<dyn ExecProcess>, IsolationError> {
        let what = "be asked for its files: they are the host's";
        Err(IsolationError::Unsupported { level: self.level, what })
    }

    fn pause(&self) -> Result<(), IsolationError> {
        Ok(self.handle.pause()?)
    }

    fn unpause(&self) -> Result<(), IsolationError> {
        Ok(self.handle.resume()?)
    }

    fn processes(&self) -> Result<Vec<ProcessEntry>, IsolationError> {
        let found = self.handle.processes()?;
        let parent = |process: &ProcessInfo| {
            let inside = found.iter().find(|other| other.host_pid == process.host_parent);
            match (inside, self.level) {
                (Some(parent), _) => parent.pid,
                (None, Level::Process) => process.host_parent,
                (None, _) => 0,
            }
        };
        let entry = |process: &ProcessInfo| ProcessEntry {
            pid: process.pid.unsigned_abs(),
            parent: parent(process).unsigned_abs(),
            host_pid: Some(process.host_pid.unsigned_abs()),
            uid: process.uid,
            state: process.state,
            cpu_time: process.cpu_time,
            elapsed: process.elapsed,
            resident: process.resident,
            command: match process.arguments.is_empty() {
                true => vec![format!("[{}]", process.name)],
                false => process.arguments.clone(),
            },
        };
        Ok(found.iter().map(entry).collect())
    }

    fn stats(&self) -> Result<Stats, IsolationError> {
        let used = self.handle.stats();
        let network = self.handle.network_bytes();
        Ok(Stats {
            cpu_time: used.cpu_usage_microseconds.map(Duration::from_micros),
            memory: used.memory_current_bytes,
            memory_limit: used.memory_limit_bytes,
            guest_memory: None,
            pids: used.pids_current,
            guest_pids: None,
            block_read: used.block_read_bytes,
            block_written: used.block_written_bytes,
            network_received: network.map(|(received, _)| received),
            network_sent: network.map(|(_, sent)| sent),
            exits: None,
            exits_by_device: None,
        })
    }
}

struct NativeExec {
    executed: Executed,
    copies: Mutex<Copies>,
    /// The master of its terminal, until it is asked for; and ours.
    terminal: Option<OwnedFd>,
    ours: Option<OwnedFd>,
}

impl ExecProcess for NativeExec {
    fn wait(&self) -> Result<WorkloadStatus, IsolationError> {
        let ended = self.executed.wait().map_err(|error| {
            let source = io::Error::other(Report::new(error).to_string());
            IsolationError::Host { action: "wait for a further process", source }
        })?;
        // Nobody panics while holding it.
        self.copies.lock().unwrap_or_else(PoisonError::into_inner).finish();
        Ok(ended.into())
    }

    fn signal(&self, signal: i32) -> io::Result<()> {
        Ok(self.executed.signal(signal)?)
    }

    fn resize(&self, size: WindowSize) -> Result<(), IsolationError> {
        resize_terminal(self.ours.as_ref(), size)
    }

    fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }
}

/// The streams in the container runtime's words, and the copying they need; `uid` is the process's user on the host. Says
/// in `process` whether it has a terminal.
pub(super) fn streams(
    level: Level,
    uid: u32,
    process: &mut Process,
    stdio: Stdio,
) -> Result<(isolab_container::Stdio, Copies), IsolationError> {
    process.set_terminal(Some(matches!(stdio, Stdio::Terminal(_))));
    process.set_console_size(None);
    Ok(match stdio {
        Stdio::Inherit { stdin } if level == Level::Process => {
            (stdio::own(uid, stdin), Copies::default())
        }
        Stdio::Inherit { stdin } => stdio::for_user(uid, stdin)?,
        Stdio::Streams { stdin, stdout, stderr } => {
            (stdio::given(uid, stdin, stdout, stderr), Copies::default())
        }
        Stdio::Terminal(size) => {
            let console = BoxBuilder::default().height(size.rows).width(size.columns).build();
            let console = console.map_err(io::Error::other);
            let console = console.map_err(IsolationError::host("describe a terminal"))?;
            process.set_console_size(Some(console));
            (isolab_container::Stdio::null(), Copies::default())
        }
    })
}

fn resize_terminal(terminal: Option<&OwnedFd>, size: WindowSize) -> Result<(), IsolationError> {
    let Some(terminal) = terminal else {
        let why = "the process has none".to_owned();
        return Err(IsolationError::Setting { field: "terminal", why });
    };
    let resized = resize(terminal, size).map_err(io::Error::from);
    resized.map_err(IsolationError::host("change a terminal's size"))
}

impl From<ExitStatus> for WorkloadStatus {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Exited(code) => WorkloadStatus::Exited(code as u8),
            ExitStatus::Signaled { signal, .. } => WorkloadStatus::Killed(signal as u8),
        }
    }
}
