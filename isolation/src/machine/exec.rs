//! Further processes in a guest, and what its init does itself.

use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use isolab_container::WindowSize;
use isolab_guest::control::{ProcessEnd, Session, Streams};
use isolab_guest::{ProcessId, ProcessRecord, Service, Task};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::console_tail::ConsoleTail;
use super::ending;
use super::streams::{Carried, window};
use crate::controller::{ExecProcess, ProcessEntry};
use crate::error::IsolationError;
use crate::workload_status::WorkloadStatus;

/// How long a guest may take to tell of its processes, and how much it may say.
const ANSWER: Duration = Duration::from_secs(30);
const LONGEST_ANSWER: usize = 16 << 20;

/// A process's end, as soon as it is known.
#[derive(Clone, Default)]
struct EndSlot(Arc<(Mutex<Option<ProcessEnd>>, Condvar)>);

impl EndSlot {
    fn fill(&self, end: ProcessEnd) {
        let (slot, filled) = &*self.0;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(end);
        filled.notify_all();
    }

    fn known(&self) -> Option<ProcessEnd> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait(&self) -> Option<ProcessEnd> {
        let (slot, filled) = &*self.0;
        let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = filled.wait_while(slot, |end| end.is_none());
        slot.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A process of the guest that was started by exec.
pub(super) struct GuestProcess {
    session: Session,
    id: ProcessId,
    end: EndSlot,
    terminal: Option<OwnedFd>,
    has_terminal: bool,
    console: ConsoleTail,
}

impl GuestProcess {
    /// # Errors
    /// It cannot be started, or the guest has ended.
    pub fn start(
        session: &Session,
        console: &ConsoleTail,
        task: Task,
        carried: Carried,
    ) -> Result<Self, IsolationError> {
        let end = EndSlot::default();
        let slot = end.clone();
        let id = session.start_process(task, carried.streams, move |end| slot.fill(end))?;
        let process = Self {
            session: session.clone(),
            id,
            end,
            has_terminal: carried.size.is_some(),
            terminal: carried.terminal,
            console: console.clone(),
        };
        match process.end.known() {
            Some(ProcessEnd::NotStarted(code, why)) => {
                Err(IsolationError::NotStarted { code, why })
            }
            _ => Ok(process),
        }
    }
}

impl ExecProcess for GuestProcess {
    fn wait(&self) -> Result<WorkloadStatus, IsolationError> {
        match self.end.wait() {
            Some(end) if end != ProcessEnd::Lost => ending::of_process(end, &self.console),
            // It went with its machine, which is as good as SIGKILL.
            _ => Ok(WorkloadStatus::Killed(libc::SIGKILL as u8)),
        }
    }

    fn signal(&self, signal: i32) -> io::Result<()> {
        self.session.signal(self.id, u8::try_from(signal).map_err(io::Error::other)?)
    }

    fn resize(&self, size: WindowSize) -> Result<(), IsolationError> {
        resize(&self.session, self.id, self.has_terminal, size)
    }

    fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }
}

impl Drop for GuestProcess {
    fn drop(&mut self) {
        if self.end.known().is_none() {
            // One that ended meanwhile, or whose guest did, is beyond it.
            let _ = self.session.signal(self.id, libc::SIGKILL as u8);
        }
    }
}

/// Tells a process's terminal its size.
pub(super) fn resize(
    session: &Session,
    id: ProcessId,
    has_terminal: bool,
    size: WindowSize,
) -> Result<(), IsolationError> {
    let resized = match has_terminal {
        true => session.resize(id, window(size)),
        false => Err(io::Error::from_raw_os_error(libc::ENOTTY)),
    };
    resized.map_err(IsolationError::host("resize a terminal of the guest"))
}

/// Asks the guest's init for its processes.
///
/// # Errors
/// It does not answer within some time, or not what init would.
pub(super) fn processes(
    session: &Session,
    console: &ConsoleTail,
) -> Result<Vec<ProcessEntry>, IsolationError> {
    let host = || IsolationError::host("ask the guest for its processes");
    let (output, stdout) = io::pipe().map_err(host())?;
    let (errors, stderr) = io::pipe().map_err(host())?;
    let streams = Streams { stdin: None, stdout: stdout.into(), stderr: Some(stderr.into()) };
    let carried = Carried { streams, terminal: None, size: None, stdin: false };
    let task = Task::Service(Service::Processes);
    let process = GuestProcess::start(session, console, task, carried)?;
    let deadline = Instant::now() + ANSWER;
    let answer = read_all(output, deadline).map_err(host())?;
    let why = read_all(errors, deadline).map_err(host())?;
    let nonsense = |why: String| IsolationError::Init { why, console: console.text() };
    if process.wait()? != WorkloadStatus::Exited(0) {
        return Err(nonsense(String::from_utf8_lossy(&why).trim().to_owned()));
    }
    let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let records = lines.map(serde_json::from_slice).collect::<Result<Vec<_>, _>>();
    let records = records.map_err(|_| nonsense("its list of processes is none".to_owned()))?;
    Ok(records.into_iter().map(entry).collect())
}

fn entry(record: ProcessRecord) -> ProcessEntry {
    ProcessEntry {
        pid: record.pid,
        parent: record.parent,
        host_pid: None,
        uid: record.uid,
        state: record.state,
        cpu_time: Duration::from_millis(record.cpu_time),
        elapsed: Duration::from_millis(record.elapsed),
        resident: record.resident,
        command: record.command,
    }
}

/// Reads to the end.
fn read_all(mut source: PipeReader, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut piece = vec![0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        if poll(&mut fds, timeout)? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match source.read(&mut piece)? {
            0 => return Ok(all),
            count if all.len() + count > LONGEST_ANSWER => {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            count => all.extend_from_slice(&piece[..count]),
        }
    }
}
