//! Whether a machine's vCPUs may run, and how it comes to its end: the first reason counts,
//! whoever gives it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::poison::unpoisoned;
use crate::vcpu::VcpuError;

/// Why a machine ended in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// [`crate::handle::MachineHandle::stop`] was called.
    Stopped,
}

/// How a machine ended: in good order, or by a vCPU that could not go on.
pub type MachineEnd = Result<EndReason, VcpuError>;

/// What a vCPU does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Enter the guest.
    Run,
    /// Enter the guest, which has been standing still.
    RunAfterPause,
    /// Leave the loop: the machine has ended.
    End,
}

/// How long the host may take what the guest printed before, once somebody wants the machine gone.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    end: Option<MachineEnd>,
    /// Somebody wants the machine gone: from then on nobody is waited for.
    hurry_from: Option<Instant>,
    /// Nothing of the machine runs any more.
    gone: bool,
    paused: bool,
    /// vCPUs that wait for the end of the pause.
    parked: usize,
}

#[derive(Default)]
struct Inner {
    /// Whether `state` holds a vCPU back: a pause or the end. All that is read after each exit.
    held: AtomicBool,
    ended: AtomicBool,
    state: Mutex<State>,
    changed: Condvar,
}

/// Ends and pauses a machine, and waits for its end. Devices that can power off or reset hold a
/// clone.
#[derive(Clone, Default)]
pub struct Control(Arc<Inner>);

impl Control {
    /// Ends the machine, unless it has ended already.
    pub fn end(&self, end: MachineEnd) {
        let mut state = self.state();
        if !self.0.ended.swap(true, Ordering::SeqCst) {
            state.end = Some(end);
            self.0.held.store(true, Ordering::SeqCst);
            self.0.changed.notify_all();
        }
    }

    /// Ends the machine, unless it has ended already, and hurries what is left to be done.
    pub fn stop(&self) {
        self.end(Ok(EndReason::Stopped));
        self.hurry();
    }

    /// Somebody wants the machine gone: output that the host does not take is given up soon.
    pub fn hurry(&self) {
        let mut state = self.state();
        state.hurry_from.get_or_insert_with(|| Instant::now() + LAST_OUTPUT);
    }

    /// Whether the time for last output is over. Never so for a guest that ended by itself and
    /// whom nobody hurries: its output waits for its reader as any program's does.
    pub fn output_is_given_up(&self) -> bool {
        self.state().hurry_from.is_some_and(|from| from <= Instant::now())
    }

    /// Nothing of the machine runs any more.
    pub fn gone(&self) {
        self.state().gone = true;
        self.0.changed.notify_all();
    }

    /// Waits for the end, and until nothing of the machine runs.
    pub fn wait_gone(&self) -> MachineEnd {
        let end = self.wait();
        let running = |state: &mut State| !state.gone;
        drop(self.0.changed.wait_while(self.state(), running));
        end
    }

    /// Whether the machine has ended.
    pub fn has_ended(&self) -> bool {
        self.0.ended.load(Ordering::SeqCst)
    }

    /// Waits for the end.
    pub fn wait(&self) -> MachineEnd {
        let mut state = self.state();
        loop {
            if let Some(end) = &state.end {
                return end.clone();
            }
            state = unpoisoned(self.0.changed.wait(state));
        }
    }

    /// Waits for the end, but no longer than `timeout`.
    pub fn wait_for(&self, timeout: Duration) -> Option<MachineEnd> {
        self.wait_until(timeout, |state| state.end.is_some()).end.clone()
    }

    /// Holds every vCPU back from its next entry. Those inside the guest have to be kicked out.
    pub fn pause(&self) {
        let mut state = self.state();
        state.paused = true;
        self.0.held.store(true, Ordering::SeqCst);
    }

    /// Lets the vCPUs go on.
    pub fn resume(&self) {
        let mut state = self.state();
        state.paused = false;
        self.0.held.store(self.has_ended(), Ordering::SeqCst);
        self.0.changed.notify_all();
    }

    /// Whether a pause has been asked for.
    pub fn is_paused(&self) -> bool {
        self.state().paused
    }

    /// Waits until `vcpus` are held back, but no longer than `timeout`; tells whether they are.
    pub fn wait_parked(&self, vcpus: usize, timeout: Duration) -> bool {
        let is_still = |state: &State| state.paused && state.parked == vcpus;
        is_still(&self.wait_until(timeout, is_still))
    }

    /// What every vCPU asks before it enters the guest; during a pause it waits here.
    pub fn before_entry(&self) -> Entry {
        if !self.0.held.load(Ordering::SeqCst) {
            return Entry::Run;
        }
        let mut state = self.state();
        let mut entry = Entry::Run;
        if state.paused && state.end.is_none() {
            entry = Entry::RunAfterPause;
            state.parked += 1;
            self.0.changed.notify_all();
            while state.paused && state.end.is_none() {
                state = unpoisoned(self.0.changed.wait(state));
            }
            state.parked -= 1;
        }
        if state.end.is_some() { Entry::End } else { entry }
    }

    fn wait_until(
        &self,
        timeout: Duration,
        condition: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let waited = self.0.changed.wait_timeout_while(self.state(), timeout, |s| !condition(s));
        unpoisoned(waited).0
    }

    fn state(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.0.state.lock())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Long enough to never matter; the tests wait for conditions.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn the_first_reason_counts() {
        let control = Control::default();
        assert!(!control.has_ended());
        assert_eq!(control.before_entry(), Entry::Run);
        let waiter = thread::spawn({
            let control = control.clone();
            move || control.wait()
        });
        control.end(Ok(EndReason::PowerOff));
        control.end(Ok(EndReason::Reset));
        assert!(control.has_ended());
        assert_eq!(control.before_entry(), Entry::End);
        assert_eq!(waiter.join().unwrap().unwrap(), EndReason::PowerOff);
        assert_eq!(control.wait_for(Duration::ZERO).unwrap().unwrap(), EndReason::PowerOff);
    }

    #[test]
    fn a_pause_holds_all_vcpus_until_it_ends() {
        let control = Control::default();
        assert!(!control.wait_parked(0, Duration::ZERO), "nobody asked for a pause");
        control.pause();
        let vcpus = [0, 1].map(|_| {
            let control = control.clone();
            thread::spawn(move || control.before_entry())
        });
        assert!(control.wait_parked(2, LONG));
        assert!(control.is_paused());
        control.resume();
        for vcpu in vcpus {
            assert_eq!(vcpu.join().unwrap(), Entry::RunAfterPause);
        }
        assert_eq!(control.before_entry(), Entry::Run);
        assert!(!control.wait_parked(2, Duration::ZERO));
    }

    #[test]
    fn the_end_releases_paused_vcpus() {
        let control = Control::default();
        control.pause();
        let vcpu = thread::spawn({
            let control = control.clone();
            move || control.before_entry()
        });
        assert!(control.wait_parked(1, LONG));
        assert!(control.wait_for(Duration::ZERO).is_none());
        control.end(Ok(EndReason::Stopped));
        assert_eq!(vcpu.join().unwrap(), Entry::End);
        control.resume();
        assert_eq!(control.before_entry(), Entry::End, "a resume revives nothing");
    }

    #[test]
    fn output_is_waited_for_until_somebody_hurries_and_gone_is_later_than_ended() {
        let control = Control::default();
        control.end(Ok(EndReason::PowerOff));
        assert!(!control.output_is_given_up());
        let waiter = thread::spawn({
            let control = control.clone();
            move || control.wait_gone()
        });
        control.stop();
        while !control.output_is_given_up() {
            thread::yield_now();
        }
        assert!(!waiter.is_finished());
        control.gone();
        assert_eq!(waiter.join().unwrap().unwrap(), EndReason::PowerOff);
    }
}
