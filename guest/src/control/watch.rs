//! Whether a guest is still there: told by its silence.
//!
//! A guest that has spoken is asked, whenever it has said nothing for a tick, and answers as soon as its init
//! gets the CPU. Ticks are counted, not time: while we stand still ourselves, as with a host that is suspended, none
//! passes, and one that comes late is one. A guest that is only slow, be it a hundred times, has
//! all of them to answer once.

use std::time::{Duration, Instant};

/// Ticks of silence after which a guest that has spoken is given up, each behind a question.
const UNANSWERED: u32 = 9;
/// Ticks of silence after which one that has not is.
const WITHOUT_A_WORD: u32 = 30;

/// How long a guest may be silent before it is given up. None: for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Patience {
    /// From its start to its first word.
    pub start: Option<Duration>,
    /// Later, though it is asked.
    pub answer: Option<Duration>,
}

impl Default for Patience {
    /// 5 minutes, which emulated hosts need, and 90 seconds.
    fn default() -> Self {
        Self { start: Some(Duration::from_secs(300)), answer: Some(Duration::from_secs(90)) }
    }
}

/// In which way a guest is silent, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It has not come up.
    NeverUp(Duration),
    /// It has, and does not answer any more.
    Hung(Duration),
}

/// What follows from a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Ask it for a word.
    Ask,
    GiveUp(Silence),
}

/// Counts a guest's silent ticks.
#[derive(Debug)]
pub(super) struct Watch {
    patience: Patience,
    /// The guest has spoken.
    is_up: bool,
    /// It has, since the last tick.
    has_spoken: bool,
    silent: u32,
    /// When the next tick is due; None where nobody counts.
    due: Option<Instant>,
}

impl Watch {
    pub fn new(patience: Patience, now: Instant) -> Self {
        let mut watch = Self { patience, is_up: false, has_spoken: false, silent: 0, due: None };
        watch.due = watch.tick_length().map(|length| now + length);
        watch
    }

    fn tick_length(&self) -> Option<Duration> {
        match self.is_up {
            true => self.patience.answer.map(|time| time / UNANSWERED),
            false => self.patience.start.map(|time| time / WITHOUT_A_WORD),
        }
    }

    /// The guest has said something.
    pub fn heard(&mut self, now: Instant) {
        self.has_spoken = true;
        if !self.is_up {
            self.is_up = true;
            self.due = self.tick_length().map(|length| now + length);
        }
    }

    /// How long until the next tick; None for ever.
    pub fn left(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    /// Some time has passed, in which the guest may have been paused.
    pub fn look(&mut self, now: Instant, is_paused: bool) -> Verdict {
        if self.due.is_none_or(|due| now < due) {
            return Verdict::Fine;
        }
        self.due = self.tick_length().map(|length| now + length);
        if std::mem::take(&mut self.has_spoken) {
            self.silent = 0;
            return Verdict::Fine;
        }
        if is_paused {
            return Verdict::Fine;
        }
        self.silent += 1;
        match (self.is_up, self.patience) {
            (true, Patience { answer: Some(time), .. }) if self.silent > UNANSWERED => {
                Verdict::GiveUp(Silence::Hung(time))
            }
            (false, Patience { start: Some(time), .. }) if self.silent >= WITHOUT_A_WORD => {
                Verdict::GiveUp(Silence::NeverUp(time))
            }
            (true, _) => Verdict::Ask,
            (false, _) => Verdict::Fine,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(30);
    const ANSWER: Duration = Duration::from_secs(9);
    const TICK: Duration = Duration::from_secs(1);

    fn watch(now: Instant) -> Watch {
        Watch::new(Patience { start: Some(START), answer: Some(ANSWER) }, now)
    }

    #[test]
    fn a_guest_that_never_speaks_is_given_up_after_its_time_and_never_asked() {
        let mut now = Instant::now();
        let mut watch = watch(now);
        for _ in 1..WITHOUT_A_WORD {
            assert_eq!(watch.left(now), Some(TICK));
            now += TICK;
            assert_eq!(watch.look(now, false), Verdict::Fine);
            assert_eq!(watch.look(now, false), Verdict::Fine, "one tick is one");
        }
        assert_eq!(watch.look(now + TICK, false), Verdict::GiveUp(Silence::NeverUp(START)));
    }

    #[test]
    fn a_guest_that_hangs_is_asked_and_then_given_up() {
        let mut now = Instant::now();
        let mut watch = watch(now);
        watch.heard(now);
        // Which was in the first tick.
        now += TICK;
        assert_eq!(watch.look(now, false), Verdict::Fine);
        for _ in 0..UNANSWERED {
            now += TICK;
            assert_eq!(watch.look(now, false), Verdict::Ask);
        }
        assert_eq!(watch.look(now + TICK, false), Verdict::GiveUp(Silence::Hung(ANSWER)));
    }

    #[test]
    fn an_answer_however_late_a_pause_and_time_in_which_we_stood_still_are_no_hang() {
        let mut now = Instant::now();
        let mut watch = watch(now);
        watch.heard(now);
        let mut asked = 0;
        for tick in 0..1000 {
            now += TICK;
            // A guest that is slow answers once in nine ticks.
            if tick % 9 == 8 {
                watch.heard(now);
            }
            // We are not called for an hour, now and then.
            if tick % 10 == 0 {
                now += 3600 * TICK;
            }
            match watch.look(now, false) {
                Verdict::GiveUp(silence) => panic!("{silence:?} in tick {tick}"),
                verdict => asked += u32::from(verdict == Verdict::Ask),
            }
        }
        assert!(asked > 800, "{asked}");
        for _ in 0..1000 {
            now += TICK;
            assert_eq!(watch.look(now, true), Verdict::Fine);
        }
        assert_eq!(watch.look(now + TICK, false), Verdict::Ask);
    }

    #[test]
    fn without_limits_nobody_counts() {
        let now = Instant::now();
        let mut watch = Watch::new(Patience { start: None, answer: None }, now);
        assert_eq!((watch.left(now), watch.look(now + START, false)), (None, Verdict::Fine));
        watch.heard(now);
        assert_eq!((watch.left(now), watch.look(now + START, false)), (None, Verdict::Fine));
        // Each for itself.
        let mut watch = Watch::new(Patience { start: None, answer: Some(ANSWER) }, now);
        watch.heard(now);
        assert_eq!(watch.left(now), Some(TICK));
    }
}
