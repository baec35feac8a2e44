//! What can be done to a machine's workload while it is waited for.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use isolab_container::WindowSize;
use isolab_guest::control::Session;
use isolab_guest::{FileRequest, Service, Task, WORKLOAD};
use isolab_vmm::control::protocol::RunState;
use isolab_vmm::handle::MachineHandle;
use oci_spec::runtime::Process;

use super::console_tail::ConsoleTail;
use super::exec::{self, GuestProcess};
use super::occurrence::Occurrence;
use super::signals::Signals;
use super::streams::Carried;
use super::{ask, guest_process, stats};
use crate::controller::{Controller, ExecProcess, ProcessEntry, Stats, Stdio};
use crate::error::IsolationError;

/// How long a guest may take to end after SIGTERM, as with `podman stop`.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

type Forward = Box<dyn Fn(u8) -> io::Result<()> + Send + Sync>;
type End = Box<dyn Fn(u8) + Send + Sync>;

pub(super) struct MachineController {
    machine: MachineHandle,
    session: Session,
    signals: Signals<Forward, End>,
    console: ConsoleTail,
    has_terminal: bool,
    links: Vec<String>,
}

impl MachineController {
    /// `links` are the host's ends of the guest's networks.
    pub fn new(
        machine: MachineHandle,
        session: Session,
        occurrences: Sender<Occurrence>,
        console: ConsoleTail,
        has_terminal: bool,
        links: Vec<String>,
    ) -> Self {
        // A failed send means that nobody waits any more.
        let end: End = Box::new(move |signal| drop(occurrences.send(Occurrence::Forced(signal))));
        let workload = session.clone();
        let forward: Forward = Box::new(move |signal| workload.signal(WORKLOAD, signal));
        let signals = Signals::new(forward, end, STOP_TIMEOUT);
        Self { machine, session, signals, console, has_terminal, links }
    }
}

impl Controller for MachineController {
    fn signal(&self, signal: i32) -> io::Result<()> {
        self.signals.arrived(signal)
    }

    fn resize(&self, size: WindowSize) -> Result<(), IsolationError> {
        exec::resize(&self.session, WORKLOAD, self.has_terminal, size)
    }

    fn exec(&self, process: Process, stdio: Stdio) -> Result<Box<dyn ExecProcess>, IsolationError> {
        let carried = Carried::new(stdio);
        let carried = carried.map_err(IsolationError::host("make the streams of a process"))?;
        let task = Task::Process(guest_process(&process, &carried));
        Ok(Box::new(GuestProcess::start(&self.session, &self.console, task, carried, exec::START)?))
    }

    fn files(
        &self,
        request: FileRequest,
        stdio: Stdio,
    ) -> Result<Box<dyn ExecProcess>, IsolationError> {
        let carried = Carried::new(stdio);
        let carried = carried.map_err(IsolationError::host("make the streams of a process"))?;
        let task = Task::Service(Service::Files(request));
        Ok(Box::new(GuestProcess::start(&self.session, &self.console, task, carried, exec::START)?))
    }

    fn pause(&self) -> Result<(), IsolationError> {
        // First: from the moment on that it stands still it answers nothing.
        self.session.set_paused(true);
        let paused = self.machine.pause();
        self.session.set_paused(paused.is_ok());
        Ok(paused?)
    }

    fn unpause(&self) -> Result<(), IsolationError> {
        self.machine.resume();
        self.session.set_paused(false);
        Ok(())
    }

    fn processes(&self) -> Result<Vec<ProcessEntry>, IsolationError> {
        ask::processes(&self.session, &self.console)
    }

    fn stats(&self) -> Result<Stats, IsolationError> {
        // One that stands still does not answer.
        let usage = match self.machine.info().state {
            RunState::Running => ask::usage(&self.session, &self.console),
            RunState::Paused | RunState::Ended => None,
        };
        Ok(stats::collect(&self.machine, &self.links, usage))
    }
}
