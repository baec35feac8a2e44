//! A workload in a virtual machine of its own.

use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use isolab_guest::Marker;
use isolab_guest::control::{Patience, ProcessEnd, Session};
use isolab_images::Image;
use isolab_vmm::machine::{Machine, MachineHandle};
use isolab_vmm::timeline::Event;
use isolab_volumes::Lease;

use super::console_tail::ConsoleTail;
use super::controller::MachineController;
use super::ending;
use super::occurrence::Occurrence;
use crate::controller::Controller;
use crate::error::IsolationError;
use crate::instance::Instance;
use crate::instances::InstanceFolder;
use crate::timeline::{Milestone, Milestones};
use crate::workload_status::WorkloadStatus;

/// How often to look whether a machine is still there whose guest does not speak.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

pub(super) struct MachineInstance {
    pub(super) machine: State,
    pub(super) handle: MachineHandle,
    pub(super) session: Session,
    /// Our end of the workload's terminal, until it is asked for.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) has_terminal: bool,
    /// The host's ends of the guest's networks.
    pub(super) links: Vec<String>,
    pub(super) occurrences: Sender<Occurrence>,
    pub(super) received: Receiver<Occurrence>,
    /// What was received before anybody waited for the end.
    pub(super) early: Option<Occurrence>,
    pub(super) console: ConsoleTail,
    pub(super) created: u64,
    pub(super) patience: Patience,
    // Holds the image's lease: the collector leaves the disk alone.
    pub(super) _image: Image,
    // Likewise the volumes'.
    pub(super) _volumes: Vec<Lease>,
    /// Until it is removed.
    pub(super) folder: Option<InstanceFolder>,
}

/// Where the machine is.
pub(super) enum State {
    Created(Box<Machine>),
    /// On a thread of its own, which gives it back at its end.
    Running(JoinHandle<Machine>),
    Gone,
}

impl MachineInstance {
    /// Ends the machine, and everything of ours that would wait for it.
    fn stop(&mut self) -> State {
        self.handle.stop();
        self.session.close();
        mem::replace(&mut self.machine, State::Gone)
    }

    /// Has the kernel take the machine apart, which takes tens of milliseconds.
    fn take_apart(&mut self) {
        if let State::Running(thread) = self.stop() {
            // A panic there was told when it happened, and unwound through the machine.
            drop(thread.join());
        }
    }

    fn remove_folder(&mut self) -> Result<(), IsolationError> {
        self.folder.take().map_or(Ok(()), InstanceFolder::remove)
    }
}

impl Instance for MachineInstance {
    fn start(&mut self) -> Result<(), IsolationError> {
        let mut machine = match mem::replace(&mut self.machine, State::Gone) {
            State::Created(machine) => machine,
            other => {
                self.machine = other;
                return Ok(());
            }
        };
        let occurrences = self.occurrences.clone();
        let run = move || {
            let end = machine.run().map_err(Box::new);
            // A failed send means that nobody waits any more.
            let _ = occurrences.send(Occurrence::Stopped(end));
            *machine
        };
        let thread = thread::Builder::new().name("machine".to_owned()).spawn(run);
        self.machine = State::Running(thread.map_err(IsolationError::host("start a thread"))?);
        self.session
            .start(self.patience)
            .map_err(IsolationError::host("begin the conversation with a guest"))
    }

    fn wait_started(&mut self) -> Result<(), IsolationError> {
        let occurrence = loop {
            match self.session.has_started(LOOK_AGAIN) {
                Some(true) => return Ok(()),
                // It has ended, and this is being told.
                Some(false) => break self.received.recv().ok(),
                None => {}
            }
            // The machine may be gone before its guest has said a word.
            if let Ok(occurrence) = self.received.try_recv() {
                break Some(occurrence);
            }
        };
        let has_run = matches!(
            occurrence,
            Some(Occurrence::Reported(ProcessEnd::Exited(_) | ProcessEnd::Killed(_)))
        );
        self.early = occurrence;
        if has_run { Ok(()) } else { self.wait().map(drop) }
    }

    fn wait(&mut self) -> Result<WorkloadStatus, IsolationError> {
        // The channel cannot close: we hold a sender.
        let occurrence = self.early.take().map_or_else(|| self.received.recv(), Ok);
        let occurrence = occurrence
            .map_err(|error| IsolationError::host("wait for the guest")(io::Error::other(error)))?;
        self.handle.stop();
        // Further processes have ended with the workload.
        self.session.close();
        match occurrence {
            Occurrence::Reported(end) => ending::of_process(end, &self.console),
            Occurrence::Forced(signal) => Ok(WorkloadStatus::Killed(signal)),
            Occurrence::Stopped(end) => Err(ending::of_machine(end, &self.console)),
        }
    }

    fn has_run_out_of_memory(&self) -> bool {
        self.session.has_run_out_of_memory()
    }

    fn controller(&self) -> Result<Box<dyn Controller>, IsolationError> {
        Ok(Box::new(MachineController::new(
            self.handle.clone(),
            self.session.clone(),
            self.occurrences.clone(),
            self.console.clone(),
            self.has_terminal,
            self.links.clone(),
        )))
    }

    fn terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    fn milestones(&self) -> Milestones {
        let timeline = self.handle.timeline();
        let mut milestones = Milestones::default();
        milestones.reach(Milestone::Created, self.created);
        for (milestone, event) in [
            (Milestone::GuestEntered, Event::FirstRun),
            (Milestone::GuestInit, Event::Marker(Marker::Init as u8)),
            (Milestone::WorkloadStarted, Event::Marker(Marker::Workload as u8)),
            (Milestone::WorkloadEnded, Event::Marker(Marker::Ended as u8)),
        ] {
            if let Some(time) = timeline.at(event) {
                milestones.reach(milestone, time);
            }
        }
        milestones
    }

    fn remove(mut self: Box<Self>) -> Result<(), IsolationError> {
        self.take_apart();
        self.remove_folder()
    }

    fn remove_at_exit(mut self: Box<Self>) -> Result<(), IsolationError> {
        // Neither waited for nor dropped, which would do here what the kernel does behind us.
        mem::forget(self.stop());
        self.remove_folder()
    }
}

impl Drop for MachineInstance {
    fn drop(&mut self) {
        self.take_apart();
    }
}
