//! When a pair's thread has its turn on a host with one CPU, on which its vCPUs run as well.
//!
//! A frame that is answered is best taken at once: its answer is there before the vCPU has found out that it has to wait. A
//! stream's frames are best taken in turn: each costs an exit, an interrupt and two changes of tasks otherwise. Which it is
//! shows only to who waits for the turn: it finds one frame, or several. So the thread tries, and goes back to turns after a
//! while, for longer each time that they found nothing to gather.
//!
//! On several CPUs it waits for turns throughout: with this, pings took 4.6 exits each there, without it 4.0. And where
//! several vCPUs share the CPU: with four, a round trip took 4.5 to 5.2 ms when the thread took the CPU at once and 2.4 in
//! turn, with two 4.2 to 5.5 and 2.2 (ARCHITECTURE.md, "On one CPU and on two").

use crate::threads::{WakeUps, cpus};

/// Wake-ups in a row, each for one frame at most, after which turns do not pay.
const LONE_WAKE_UPS: u8 = 8;
/// Wake-ups that the thread then takes at once before it tries turns again.
const FIRST_STRETCH: u8 = 8;
const LONGEST_STRETCH: u8 = 64;

/// The choice of a thread, which begins with [`WakeUps::InTurn`].
#[derive(Debug)]
pub struct Pace {
    /// Whether it is ever another.
    tries: bool,
    wake_ups: WakeUps,
    /// In turn: lone wake-ups so far. At once: those that are left.
    count: u8,
    stretch: u8,
}

impl Pace {
    /// The choice of the calling thread, for a guest with so many vCPUs.
    pub fn begin(vcpus: u32) -> Self {
        Self::on(cpus(), vcpus)
    }

    fn on(cpus: usize, vcpus: u32) -> Self {
        WakeUps::InTurn.choose();
        Self {
            tries: cpus == 1 && vcpus == 1,
            wake_ups: WakeUps::InTurn,
            count: 0,
            stretch: FIRST_STRETCH,
        }
    }

    /// The calling thread woke up, and moved so many frames.
    pub fn woke(&mut self, frames: u64) {
        if !self.tries {
            return;
        }
        match self.wake_ups {
            WakeUps::InTurn if frames > 1 => (self.count, self.stretch) = (0, FIRST_STRETCH),
            WakeUps::InTurn if self.count + 1 < LONE_WAKE_UPS => self.count += 1,
            WakeUps::InTurn => {
                self.change(WakeUps::Soon, self.stretch);
                self.stretch = (self.stretch * 2).min(LONGEST_STRETCH);
            }
            WakeUps::Soon if frames > 1 || self.count <= 1 => self.change(WakeUps::InTurn, 0),
            WakeUps::Soon => self.count -= 1,
        }
    }

    fn change(&mut self, wake_ups: WakeUps, count: u8) {
        (self.wake_ups, self.count) = (wake_ups, count);
        wake_ups.choose();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wake-ups with one frame each, until the thread's choice changes.
    fn until_it_changes(pace: &mut Pace) -> u32 {
        let before = pace.wake_ups;
        (1..)
            .find(|_| {
                pace.woke(1);
                pace.wake_ups != before
            })
            .unwrap()
    }

    #[test]
    fn frames_that_come_alone_are_taken_at_once_for_longer_each_time() {
        let mut pace = Pace::on(1, 1);
        for stretch in [8, 16, 32, 64, 64] {
            assert_eq!(until_it_changes(&mut pace), 8);
            assert_eq!((pace.wake_ups, until_it_changes(&mut pace)), (WakeUps::Soon, stretch));
        }
    }

    #[test]
    fn several_frames_are_taken_in_turn_as_long_as_there_are_some() {
        let mut pace = Pace::on(1, 1);
        for _ in 0..100 {
            (0..7).for_each(|_| pace.woke(1));
            pace.woke(2);
            assert_eq!(pace.wake_ups, WakeUps::InTurn);
        }
        until_it_changes(&mut pace);
        pace.woke(3);
        assert_eq!(pace.wake_ups, WakeUps::InTurn);
        pace.woke(2);
        assert_eq!(
            (until_it_changes(&mut pace), until_it_changes(&mut pace)),
            (8, 8),
            "as at first"
        );
    }

    #[test]
    fn where_there_are_several_cpus_or_vcpus_all_frames_are_taken_in_turn() {
        for (cpus, vcpus) in [(2, 1), (2, 2), (1, 2), (1, 4)] {
            let mut pace = Pace::on(cpus, vcpus);
            (0..100).for_each(|_| pace.woke(1));
            assert_eq!(pace.wake_ups, WakeUps::InTurn, "{cpus} CPUs, {vcpus} vCPUs");
        }
    }
}
