//! What can be done to a machine's workload while it is waited for.

use std::io;
use std::sync::mpsc::Sender;
use std::time::Duration;

use isolab_container::WindowSize;
use isolab_guest::control;
use isolab_vmm::handle::MachineHandle;
use oci_spec::runtime::Process;

use super::occurrence::Occurrence;
use super::signals::Signals;
use crate::controller::{Controller, ExecProcess, ProcessEntry, Stats, Stdio, unsupported};
use crate::error::IsolationError;
use crate::level::Level;

/// How long a guest may take to end after SIGTERM, as with `podman stop`.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

type Forward = Box<dyn Fn(u8) -> io::Result<()> + Send + Sync>;
type End = Box<dyn Fn(u8) + Send + Sync>;

pub(super) struct MachineController {
    level: Level,
    machine: MachineHandle,
    signals: Signals<Forward, End>,
}

impl MachineController {
    pub fn new(
        level: Level,
        machine: MachineHandle,
        sender: control::Sender,
        occurrences: Sender<Occurrence>,
    ) -> Self {
        // A failed send means that nobody waits any more.
        let end: End = Box::new(move |signal| drop(occurrences.send(Occurrence::Forced(signal))));
        let forward: Forward = Box::new(move |signal| sender.signal(signal));
        Self { level, machine, signals: Signals::new(forward, end, STOP_TIMEOUT) }
    }
}

impl Controller for MachineController {
    fn signal(&self, signal: i32) -> io::Result<()> {
        self.signals.arrived(signal)
    }

    fn resize(&self, _: WindowSize) -> Result<(), IsolationError> {
        unsupported(self.level, "resize a terminal")
    }

    fn exec(&self, _: Process, _: Stdio) -> Result<Box<dyn ExecProcess>, IsolationError> {
        unsupported(self.level, "start a further process")
    }

    fn pause(&self) -> Result<(), IsolationError> {
        Ok(self.machine.pause()?)
    }

    fn unpause(&self) -> Result<(), IsolationError> {
        self.machine.resume();
        Ok(())
    }

    fn processes(&self) -> Result<Vec<ProcessEntry>, IsolationError> {
        unsupported(self.level, "list processes")
    }

    fn stats(&self) -> Result<Stats, IsolationError> {
        unsupported(self.level, "tell what it uses")
    }
}
