//! Further processes in a guest.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use isolab_container::WindowSize;
use isolab_guest::control::{ProcessEnd, Session};
use isolab_guest::{ProcessId, Task};

use super::console_tail::ConsoleTail;
use super::ending;
use super::streams::{Carried, window};
use crate::controller::ExecProcess;
use crate::error::IsolationError;
use crate::workload_status::WorkloadStatus;

/// How long a guest that is up may take to start a process.
pub(super) const START: Duration = Duration::from_secs(30);

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
    /// A guest that is up has `time` to start it.
    ///
    /// # Errors
    /// It cannot be started, or the guest has ended.
    pub fn start(
        session: &Session,
        console: &ConsoleTail,
        task: Task,
        carried: Carried,
        time: Duration,
    ) -> Result<Self, IsolationError> {
        let end = EndSlot::default();
        let slot = end.clone();
        let id = session.start_process(task, carried.streams, time, move |end| slot.fill(end))?;
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
