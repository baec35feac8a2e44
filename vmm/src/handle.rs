//! Reaching a machine from other threads: its operator's buttons, and what it tells of itself.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::backend::disk::{DiskCounters, DiskTraffic};
use crate::chipset::acpi_pm::PowerButton;
use crate::control::protocol::{
    BalloonState, DEFAULT_GRACE, DeviceSet, EndReply, Info, MAX_GRACE, Request, RunState,
};
use crate::control::{Control, EndReason, MachineEnd};
use crate::stats::{SharedCounters, Stats};
use crate::timeline::{Event, Recorder, Timeline, monotonic_nanoseconds};
use crate::vcpu::kick::Kicker;
use crate::virtio::balloon::BalloonHandle;
use crate::virtio::console::ConsoleHandle;
use crate::virtio::stats::DeviceCounters;

/// How long a vCPU may take to leave the guest. It is a matter of microseconds, unless it is held
/// up by a device that it resets and whose disk does not answer.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two kicks of a vCPU that is to stand still.
const KICK_INTERVAL: Duration = Duration::from_millis(1);
/// How long the guest's balloon driver may take to answer.
const BALLOON_TIMEOUT: Duration = Duration::from_secs(1);

/// A request that cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// There is nothing left to ask.
    #[error("the machine has ended")]
    Ended,
    /// It failed; the VMM's standard error has more.
    #[error("the machine failed: {0}")]
    Failed(String),
    /// It goes on running.
    #[error(
        "a vCPU did not stand still within {} s and the machine goes on: does it wait for a disk of \
         the host?",
        PAUSE_TIMEOUT.as_secs()
    )]
    NotPaused,
    /// Nothing to ask for memory.
    #[error("the machine has no balloon; it has to be started with one, of size 0 perhaps")]
    NoBalloon,
    /// More than there is.
    #[error("target: {target} bytes is more than the machine's RAM, {memory}")]
    Target {
        /// Asked for, in bytes.
        target: u64,
        /// RAM, in bytes.
        memory: u64,
    },
    /// A grace beyond [`MAX_GRACE`], surely a typing mistake.
    #[error("grace: {} ms is out of range; use at most {}", .0.as_millis(), MAX_GRACE.as_millis())]
    Grace(Duration),
}

/// Reaches a machine from other threads.
#[derive(Clone)]
pub struct MachineHandle {
    pub(crate) control: Control,
    pub(crate) recorder: Recorder,
    pub(crate) power_button: PowerButton,
    /// See [`MachineHandle::end_was_asked`].
    pub(crate) end_asked: Arc<AtomicBool>,
    pub(crate) vcpus: Arc<[(Kicker, SharedCounters)]>,
    pub(crate) device_counters: DeviceCounters,
    pub(crate) disks: Arc<[Arc<DiskCounters>]>,
    pub(crate) balloon: Option<BalloonHandle>,
    pub(crate) console: Option<ConsoleHandle>,
    pub(crate) memory: u64,
    pub(crate) devices: DeviceSet,
}

impl MachineHandle {
    /// Ends the machine as if its plug were pulled. Of one that has ended already, gives up what
    /// the host does not take of its output.
    pub fn stop(&self) {
        self.end_asked.store(true, Ordering::Relaxed);
        self.control.stop();
    }

    /// Tells the guest that its virtio console has this size now; nothing where it has none.
    pub fn resize_console(&self, columns: u16, rows: u16) {
        if let Some(console) = &self.console {
            console.resize(columns, rows);
        }
    }

    /// Presses the ACPI power button. The guest may shut down, or ignore it.
    pub fn press_power_button(&self) {
        self.power_button.press();
    }

    /// Presses the power button, and pulls the plug after `grace`. Waits for the end. A machine
    /// that is paused is resumed, as it could not hear otherwise.
    pub fn shut_down(&self, grace: Duration) -> MachineEnd {
        self.end_asked.store(true, Ordering::Relaxed);
        self.press_power_button();
        self.resume();
        let end = self.control.wait_for(grace).unwrap_or_else(|| {
            self.stop();
            self.control.wait()
        });
        self.control.hurry();
        end
    }

    /// Whether somebody wants the machine to end, be it that the guest answers with a reset.
    pub fn end_was_asked(&self) -> bool {
        self.end_asked.load(Ordering::Relaxed)
    }

    /// Makes all vCPUs stand still, and waits until they do. Devices go on serving what they were
    /// asked for before.
    ///
    /// # Errors
    /// The machine has ended, or cannot stand still and therefore goes on.
    pub fn pause(&self) -> Result<(), HandleError> {
        self.control.pause();
        let started = Instant::now();
        loop {
            for (kicker, _) in self.vcpus.iter() {
                kicker.kick();
            }
            if self.control.has_ended() {
                return Err(HandleError::Ended);
            }
            if self.control.wait_parked(self.vcpus.len(), KICK_INTERVAL) {
                return Ok(());
            }
            if started.elapsed() > PAUSE_TIMEOUT {
                self.control.resume();
                return Err(HandleError::NotPaused);
            }
        }
    }

    /// Lets the vCPUs go on after [`MachineHandle::pause`]; nothing if they already do.
    pub fn resume(&self) {
        self.control.resume();
    }

    /// What has happened so far.
    pub fn timeline(&self) -> Timeline {
        self.recorder.timeline()
    }

    /// How often the guest has left for user space, and what the devices have done.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::collect(self.vcpus.iter().map(|(_, counters)| counters.snapshot()));
        stats.devices = self.device_counters.snapshot();
        stats
    }

    /// What has gone to and from all of its disks.
    pub fn disk_traffic(&self) -> DiskTraffic {
        self.disks.iter().map(|disk| disk.traffic()).sum()
    }

    /// What the machine is and does.
    pub fn info(&self) -> Info {
        let running_since = self.recorder.timeline().at(Event::FirstRun);
        let uptime = running_since.map_or(0, |since| monotonic_nanoseconds().saturating_sub(since));
        Info {
            state: match (self.control.has_ended(), self.control.is_paused()) {
                (true, _) => RunState::Ended,
                (false, true) => RunState::Paused,
                (false, false) => RunState::Running,
            },
            pid: process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: uptime / 1_000_000,
            cpus: self.vcpus.len() as u32, // At most `config::MAX_CPUS`.
            memory: self.memory,
            devices: self.devices,
            balloon: self.balloon.is_some(),
        }
    }

    /// The balloon, after asking the guest for `target` bytes where that is given.
    ///
    /// # Errors
    /// There is none, or the target is more than there is.
    pub fn balloon(&self, target: Option<u64>) -> Result<BalloonState, HandleError> {
        let balloon = self.balloon.as_ref().ok_or(HandleError::NoBalloon)?;
        if let Some(target) = target {
            if target > self.memory {
                return Err(HandleError::Target { target, memory: self.memory });
            }
            balloon.set_target(target);
        }
        // A guest that stands still answers nothing.
        let guest = match self.info().state {
            RunState::Running => balloon.stats(BALLOON_TIMEOUT),
            _ => None,
        };
        Ok(BalloonState { target: balloon.target(), actual: balloon.actual(), guest })
    }

    /// Does what came over the control socket, and gives its answer as JSON.
    ///
    /// # Errors
    /// [`HandleError`].
    pub fn execute(&self, request: Request) -> Result<Value, HandleError> {
        match request {
            Request::Info {} => json(self.info()),
            Request::Pause {} => self.pause().and_then(|()| json(self.info())),
            Request::Resume {} => {
                self.resume();
                json(self.info())
            }
            Request::Stop { grace_ms } => {
                let grace = grace_ms.map_or(DEFAULT_GRACE, Duration::from_millis);
                if grace > MAX_GRACE {
                    return Err(HandleError::Grace(grace));
                }
                drop(self.shut_down(grace));
                ended(self.control.wait_gone())
            }
            Request::Kill {} => {
                self.stop();
                ended(self.control.wait_gone())
            }
            Request::Stats {} => json(self.stats()),
            Request::Balloon { target } => json(self.balloon(target)?),
        }
    }
}

fn ended(end: MachineEnd) -> Result<Value, HandleError> {
    let reason = match end {
        Ok(reason) => reason,
        Err(error) if error.is_reset() => EndReason::Reset,
        Err(error) => return Err(HandleError::Failed(error.to_string())),
    };
    json(EndReply { state: RunState::Ended, reason })
}

fn json(answer: impl Serialize) -> Result<Value, HandleError> {
    // Structs with named fields of plain values, which always are JSON.
    Ok(serde_json::to_value(answer).unwrap_or(Value::Null))
}
