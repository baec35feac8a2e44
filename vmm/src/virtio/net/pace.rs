//! When a pair's thread has its turn on a host with one CPU, on which its vCPU runs as well.
//!
//! A frame that is answered is best taken at once: its answer is there before the vCPU has found out that it has to wait. A
//! stream's frames are best taken in turn: each costs an exit, an interrupt and two changes of tasks otherwise. Which it is
//! shows only to who waits for the turn: it finds one frame, or several. So the thread tries, and goes back to turns after a
//! while, for longer each time that they found nothing to gather.
//!
//! On several CPUs it waits for turns throughout: with this, pings took 4.6 exits each there, without it 4.0.

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
    /// The choice of the calling thread.
    pub fn begin() -> Self {
        Self::on(cpus())
    }

    fn on(cpus: usize) -> Self {
        WakeUps::InTurn.choose();
        Self { tries: cpus == 1, wake_ups: WakeUps::InTurn, count: 0, stretch: FIRST_STRETCH }
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
        let mut pace = Pace::on(1);
        for stretch in [8, 16, 32, 64, 64] {
            assert_eq!(until_it_changes(&mut pace), 8);
            assert_eq!((pace.wake_ups, until_it_changes(&mut pace)), (WakeUps::Soon, stretch));
        }
    }

    #[test]
    fn several_frames_are_taken_in_turn_as_long_as_there_are_some() {
        let mut pace = Pace::on(1);
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
    fn where_there_are_several_cpus_all_frames_are_taken_in_turn() {
        let mut pace = Pace::on(2);
        (0..100).for_each(|_| pace.woke(1));
        assert_eq!(pace.wake_ups, WakeUps::InTurn);
    }
}
