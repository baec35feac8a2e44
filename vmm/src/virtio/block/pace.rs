//! When a queue's thread has its turn on a CPU that its vCPU runs on as well.
//!
//! A lone request is best taken at once: it is with the disk while the vCPU still finds out that it has to wait. Of several,
//! each then costs an exit, an interrupt and two changes of tasks, where a moment later there is a batch of them.

use crate::threads::WakeUps;

/// So many sleeps in a row with one request at most end the batches: between them, all that was asked for may be done for once.
const LONE_SLEEPS: u8 = 8;

/// The choice of a thread, which begins with [`WakeUps::Soon`].
#[derive(Debug, Default)]
pub struct Pace {
    wake_ups: WakeUps,
    lone_sleeps: u8,
}

impl Pace {
    /// The calling thread is going to sleep with so many requests in flight.
    pub fn sleeps(&mut self, in_flight: usize) {
        self.lone_sleeps = if in_flight > 1 { 0 } else { self.lone_sleeps.saturating_add(1) };
        let batch =
            in_flight > 1 || self.wake_ups == WakeUps::InTurn && self.lone_sleeps < LONE_SLEEPS;
        let wake_ups = if batch { WakeUps::InTurn } else { WakeUps::Soon };
        if wake_ups != self.wake_ups {
            self.wake_ups = wake_ups;
            wake_ups.choose();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_requests_are_taken_in_turn_and_lone_ones_at_once() {
        let mut pace = Pace::default();
        let mut after = |in_flight| {
            pace.sleeps(in_flight);
            pace.wake_ups
        };
        assert_eq!([1, 0, 1].map(&mut after), [WakeUps::Soon; 3]);
        assert_eq!(after(2), WakeUps::InTurn);
        for _ in 1..LONE_SLEEPS {
            assert_eq!(after(1), WakeUps::InTurn, "a pause for once");
        }
        assert_eq!(after(16), WakeUps::InTurn);
        for _ in 1..LONE_SLEEPS {
            assert_eq!(after(0), WakeUps::InTurn);
        }
        assert_eq!([1, 0, 1].map(after), [WakeUps::Soon; 3]);
    }
}
