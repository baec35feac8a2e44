//! When things happened, so that set-up, kernel and init can be told apart.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::bus::BusDevice;
use crate::poison::unpoisoned;

/// An event of a machine's start, in the order in which they happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// [`crate::machine::Machine::new`] was called.
    Start,
    /// KVM_CREATE_VM returned.
    VmCreated,
    /// Kernel, initrd and boot structures are in guest RAM.
    KernelLoaded,
    /// The first vCPU is about to enter the guest.
    FirstRun,
    /// The guest wrote this byte to port 0x80 for the first time.
    Marker(u8),
    /// The guest powered off, reset, was stopped or failed.
    End,
}

/// One line of a [`Timeline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub nanoseconds: u64,
    /// Which event it is the time of.
    pub event: Event,
}

/// Events in the order in which they happened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Timeline {
    /// The events so far, in the order in which they were told.
    pub moments: Vec<Moment>,
}

impl Timeline {
    /// When `event` happened, in nanoseconds of CLOCK_MONOTONIC.
    pub fn at(&self, event: Event) -> Option<u64> {
        self.moments.iter().find(|m| m.event == event).map(|m| m.nanoseconds)
    }
}

/// A timeline that several threads write to. Each event is recorded the first time only.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Timeline>>);

impl Recorder {
    /// Records `event` now, unless it is there already.
    pub fn record(&self, event: Event) {
        let nanoseconds = monotonic_nanoseconds();
        let mut timeline = unpoisoned(self.0.lock());
        if timeline.at(event).is_none() {
            timeline.moments.push(Moment { nanoseconds, event });
        }
    }

    /// What has been recorded so far.
    pub fn timeline(&self) -> Timeline {
        unpoisoned(self.0.lock()).clone()
    }
}

/// The time by CLOCK_MONOTONIC, in nanoseconds.
pub fn monotonic_nanoseconds() -> u64 {
    // Never fails: this clock always exists.
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    now.as_nanos() as u64
}

/// Port 0x80, where firmware shows its progress on a real PC: each byte the guest writes becomes
/// an [`Event::Marker`]. (Linux also writes here to pass time, unless given `io_delay=none`.)
pub struct MarkerPort(pub Recorder);

impl BusDevice for MarkerPort {
    fn read(&mut self, _offset: u64, _data: &mut [u8]) {}

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let Some(&marker) = data.first() {
            self.0.record(Event::Marker(marker));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_recorded_once_and_in_order() {
        let recorder = Recorder::default();
        recorder.record(Event::Start);
        let mut port = MarkerPort(recorder.clone());
        port.write(0, &[3]);
        port.write(0, &[1]);
        port.write(0, &[3]);
        recorder.record(Event::End);
        let timeline = recorder.timeline();
        let events: Vec<_> = timeline.moments.iter().map(|m| m.event).collect();
        assert_eq!(events, [Event::Start, Event::Marker(3), Event::Marker(1), Event::End]);
        assert!(timeline.at(Event::Start) <= timeline.at(Event::Marker(3)));
        assert!(timeline.moments.is_sorted_by_key(|m| m.nanoseconds));
    }
}
