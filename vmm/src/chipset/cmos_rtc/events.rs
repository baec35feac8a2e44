//! What the clock interrupts for: a periodic tick, the end of each update of the time, and the
//! alarm (MC146818A data sheet, "Interrupts").
//!
//! An event is noted in register C whether or not it interrupts. Nothing has to run for that:
//! what happened since the last look follows from the time.

use super::registers::{REGISTER_A, REGISTER_B, Registers, SECOND, event};

const ENABLES: u8 = event::PERIODIC | event::ALARM | event::UPDATE;
/// Register A, bits 6:4: the divider runs from 32768 Hz.
const DIVIDER_RUNS: u8 = 2;

impl Registers {
    /// Notes what happened since the last time.
    pub(super) fn update(&mut self) {
        let (before, now) = (self.events.noted, self.now());
        self.events.noted = now;
        if now <= before {
            return; // The host's clock was set back.
        }
        if let Some(rate) = self.rate()
            && ticks(before, rate) != ticks(now, rate)
        {
            self.events.happened |= event::PERIODIC;
        }
        let (last, second) = (self.guest_second(before), self.guest_second(now));
        if self.is_set() || last == second {
            return;
        }
        self.events.happened |= event::UPDATE;
        if self.next_alarm(last).is_some_and(|alarm| alarm <= second) {
            self.events.happened |= event::ALARM;
        }
    }

    /// Register C: reading it acknowledges the interrupt.
    pub(super) fn take_events(&mut self) -> u8 {
        self.update();
        let interrupt = if self.interrupts() { event::INTERRUPT } else { 0 };
        let happened = std::mem::take(&mut self.events.happened);
        self.drive_line();
        happened | interrupt
    }

    /// Brings the interrupt line up to date. To be called at [`Registers::deadline`].
    pub fn tick(&mut self) {
        self.update();
        self.drive_line();
    }

    pub(super) fn drive_line(&mut self) {
        self.assert(self.interrupts());
    }

    fn enabled(&self) -> u8 {
        self.ram[usize::from(REGISTER_B)] & ENABLES
    }

    fn interrupts(&self) -> bool {
        self.events.happened & self.enabled() != 0
    }

    /// When the interrupt line rises next, in the host's nanoseconds; `None` while it is up or
    /// nothing is enabled.
    pub fn deadline(&self) -> Option<i64> {
        let enabled = self.enabled();
        if enabled == 0 || self.interrupts() {
            return None;
        }
        let is = |event: u8| enabled & event != 0;
        let now = self.events.noted;
        let tick = self.rate().filter(|_| is(event::PERIODIC)).map(|rate| next_tick(now, rate));
        let second = self.guest_second(now);
        let running = !self.is_set();
        let update = (running && is(event::UPDATE)).then(|| self.host_time(second + 1));
        let alarm = (running && is(event::ALARM)).then(|| self.next_alarm(second)).flatten();
        let alarm = alarm.map(|second| self.host_time(second));
        [tick, update, alarm].into_iter().flatten().min()
    }

    /// Periodic ticks a second, a power of two; `None` while they are off.
    fn rate(&self) -> Option<i64> {
        let control = self.ram[usize::from(REGISTER_A)];
        if control >> 4 & 7 != DIVIDER_RUNS {
            return None;
        }
        match control & 0xf {
            0 => None,
            // The first two repeat 256 and 128 Hz.
            select @ (1 | 2) => Some(256 >> (select - 1)),
            select => Some(32768 >> (select - 1)),
        }
    }

    /// The first of the guest's seconds after `after` at which the alarm goes off.
    fn next_alarm(&self, after: i64) -> Option<i64> {
        const DAY: i64 = 86_400;
        let [hour, minute, second] = self.alarm()?;
        let differs = |field: Option<u8>, value: i64| field.is_some_and(|f| i64::from(f) != value);
        let start = after.saturating_add(1);
        let start_of_day = start.rem_euclid(DAY);
        let mut at = start_of_day;
        while at < start_of_day + DAY {
            if differs(hour, at / 3600 % 24) {
                at = (at / 3600 + 1) * 3600;
            } else if differs(minute, at / 60 % 60) {
                at = (at / 60 + 1) * 60;
            } else if differs(second, at % 60) {
                at += 1;
            } else {
                return Some(start.saturating_add(at - start_of_day));
            }
        }
        None
    }
}

/// Whole ticks until `time`, in nanoseconds.
fn ticks(time: i64, rate: i64) -> i128 {
    (i128::from(time) * i128::from(rate)).div_euclid(i128::from(SECOND))
}

fn next_tick(time: i64, rate: i64) -> i64 {
    let nanoseconds = (ticks(time, rate) + 1) * i128::from(SECOND);
    let rounded_up = -(-nanoseconds).div_euclid(i128::from(rate));
    i64::try_from(rounded_up).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;
    use crate::emulated::testing::Wire;

    const B_24_HOURS: u8 = 2;
    const C: u8 = 0x0c;

    /// 2024-02-29 23:59:58 UTC.
    const EVENING: i64 = 1_709_251_198 * SECOND;

    struct Bench {
        rtc: Registers,
        wire: Arc<Wire>,
        time: Arc<AtomicI64>,
    }

    impl Bench {
        fn new() -> Self {
            let (wire, time) = (Wire::new(), Arc::new(AtomicI64::new(EVENING)));
            let clock = Arc::clone(&time);
            let clock = Box::new(move || clock.load(Ordering::Relaxed));
            Self { rtc: Registers::new(wire.clone(), clock), wire, time }
        }

        /// Lets the interrupt's time come; how long that took, in nanoseconds.
        fn wait(&mut self) -> i64 {
            let due = self.rtc.deadline().expect("something is enabled");
            let before = self.time.swap(due - 1, Ordering::Relaxed);
            self.rtc.tick();
            assert!(!self.wire.is_high(), "not before its time");
            self.time.store(due, Ordering::Relaxed);
            self.rtc.tick();
            assert!(self.wire.is_high());
            assert_eq!(self.rtc.deadline(), None);
            due - before
        }
    }

    #[test]
    fn periodic_interrupts_come_at_their_rate_and_need_register_c_read() {
        let mut bench = Bench::new();
        bench.rtc.write(REGISTER_B, B_24_HOURS | event::PERIODIC);
        for (select, rate) in [(6, 1024), (3, 8192), (15, 2), (1, 256), (2, 128)] {
            bench.rtc.write(REGISTER_A, 0x20 | select);
            bench.wait();
            let taken = bench.rtc.read(C);
            assert_eq!(taken & 0xc0, event::INTERRUPT | event::PERIODIC);
            assert!(!bench.wire.is_high());
            assert_eq!(bench.rtc.read(C), 0);
            let spacing = bench.wait();
            assert!((spacing - SECOND / rate).abs() <= 2, "{rate} Hz: {spacing}");
            bench.rtc.read(C);
        }
        bench.rtc.write(REGISTER_A, 0x20);
        assert_eq!(bench.rtc.deadline(), None, "rate 0 is off");
    }

    #[test]
    fn an_update_ends_every_second_unless_the_clock_is_held() {
        let mut bench = Bench::new();
        bench.rtc.write(REGISTER_B, B_24_HOURS | event::UPDATE);
        assert_eq!(bench.wait(), SECOND);
        assert_eq!(bench.rtc.read(C) & 0x90, event::INTERRUPT | event::UPDATE);
        bench.rtc.write(REGISTER_B, B_24_HOURS | event::UPDATE | 0x80);
        assert_eq!(bench.rtc.deadline(), None);
        assert_eq!(bench.rtc.read(REGISTER_B), B_24_HOURS | 0x80, "SET clears it");
    }

    #[test]
    fn the_alarm_goes_off_at_its_time_of_day_or_each_time_its_fields_match() {
        let mut bench = Bench::new();
        bench.rtc.write(REGISTER_B, B_24_HOURS | event::ALARM);
        // 00:00:00 BCD, two seconds away.
        assert_eq!(bench.wait(), 2 * SECOND);
        assert_eq!(bench.rtc.read(C) & 0xa0, event::INTERRUPT | event::ALARM);
        for (hours, minutes, seconds, distance) in [
            (0x12, 0x34, 0x56, 12 * 3600 + 34 * 60 + 56),
            (0xff, 0xff, 0x10, 14),
            (0xff, 0xc0, 0xff, 1),
            (0x11, 0xff, 0x00, 22 * 3600 + 24 * 60 + 49),
        ] {
            for (index, value) in [(5, hours), (3, minutes), (1, seconds)] {
                bench.rtc.write(index, value);
            }
            assert_eq!(bench.wait(), distance * SECOND, "{hours:x}:{minutes:x}:{seconds:x}");
            bench.rtc.read(C);
        }
        bench.rtc.write(3, 0x60);
        assert_eq!(bench.rtc.deadline(), None, "there is no minute 60");
    }

    #[test]
    fn events_are_noted_without_being_enabled_and_a_clock_set_back_does_no_harm() {
        let mut bench = Bench::new();
        bench.time.fetch_add(SECOND, Ordering::Relaxed);
        assert_eq!(bench.rtc.read(C), event::PERIODIC | event::UPDATE);
        bench.time.fetch_sub(3600 * SECOND, Ordering::Relaxed);
        assert_eq!(bench.rtc.read(C), 0);
        // Enabling what has happened interrupts at once.
        bench.time.fetch_add(SECOND, Ordering::Relaxed);
        bench.rtc.write(REGISTER_B, B_24_HOURS | event::UPDATE);
        assert!(bench.wire.is_high());
    }
}
