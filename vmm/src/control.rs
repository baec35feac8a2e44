//! How a machine comes to its end: the first reason counts, whoever gives it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use serde::Serialize;

use crate::vcpu::VcpuError;

/// Why a machine ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// [`crate::machine::MachineHandle::stop`] was called.
    Stopped,
}

/// The end of a machine.
pub type Outcome = Result<EndReason, VcpuError>;

#[derive(Default)]
struct Inner {
    ended: AtomicBool,
    outcome: Mutex<Option<Outcome>>,
    changed: Condvar,
}

/// Ends a machine, and waits for its end. Devices that can power off or reset hold a clone.
#[derive(Clone, Default)]
pub struct Control(Arc<Inner>);

impl Control {
    /// Ends the machine, unless it has ended already.
    pub fn end(&self, outcome: Outcome) {
        let mut slot = self.0.outcome.lock().unwrap_or_else(|e| e.into_inner());
        if !self.0.ended.swap(true, Ordering::SeqCst) {
            *slot = Some(outcome);
            self.0.changed.notify_all();
        }
    }

    /// Whether the machine has ended. Every vCPU asks after every exit.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// Waits for the end and takes the outcome. Meant for one caller: a second one would find
    /// the outcome gone and is told [`EndReason::Stopped`].
    pub fn wait(&self) -> Outcome {
        let mut slot = self.0.outcome.lock().unwrap_or_else(|e| e.into_inner());
        while !self.has_ended() {
            slot = self.0.changed.wait(slot).unwrap_or_else(|e| e.into_inner());
        }
        slot.take().unwrap_or(Ok(EndReason::Stopped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reason_counts() {
        let control = Control::default();
        assert!(!control.has_ended());
        let waiter = std::thread::spawn({
            let control = control.clone();
            move || control.wait()
        });
        control.end(Ok(EndReason::PowerOff));
        control.end(Ok(EndReason::Reset));
        assert!(control.has_ended());
        assert_eq!(waiter.join().unwrap().unwrap(), EndReason::PowerOff);
    }
}
