//! Interrupt causes, their mask, and the timers that hold interrupts back
//! (manual 3.2.7, 3.4.3 and 13.4.17 to 13.4.21).

use std::time::{Duration, Instant};

use super::registers::cause;
use crate::irq::IrqLine;

/// Unit of ITR.
const THROTTLE_UNIT: Duration = Duration::from_nanos(256);
/// Unit of RDTR, RADV, TIDV and TADV.
const DELAY_UNIT: Duration = Duration::from_nanos(1024);
/// Delays below this are taken as none: waking a host thread takes as long.
const SHORTEST_DELAY: Duration = Duration::from_micros(16);

/// A cause that waits for more of its kind before it interrupts.
#[derive(Clone, Copy, Debug, Default)]
struct Delayed {
    /// When the first event's absolute delay is over.
    absolute: Option<Instant>,
    /// When the cause is set.
    due: Option<Instant>,
}

impl Delayed {
    fn expired(&mut self, now: Instant) -> bool {
        let expired = self.due.is_some_and(|due| due <= now);
        if expired {
            *self = Self::default();
        }
        expired
    }
}

/// The interrupt unit: causes, mask, and the timer that throttles (13.4.17 to 13.4.21).
pub struct Interrupts {
    line: IrqLine,
    asserted: bool,
    causes: u32,
    mask: u32,
    /// The least time between two interrupts, as ITR says; zero is no limit.
    interval: Duration,
    /// The line may not rise before this.
    not_before: Option<Instant>,
    receive: Delayed,
    transmit: Delayed,
}

impl Interrupts {
    /// No cause, everything masked.
    pub fn new(line: IrqLine) -> Self {
        Self {
            line,
            asserted: false,
            causes: 0,
            mask: 0,
            interval: Duration::ZERO,
            not_before: None,
            receive: Delayed::default(),
            transmit: Delayed::default(),
        }
    }

    /// As after power-on.
    pub fn reset(&mut self) {
        self.causes = 0;
        self.mask = 0;
        self.interval = Duration::ZERO;
        self.not_before = None;
        self.receive = Delayed::default();
        self.transmit = Delayed::default();
        self.drive(false);
    }

    /// Causes happened (or were written to ICS).
    pub fn set(&mut self, causes: u32, now: Instant) {
        self.causes |= causes & cause::ALL;
        self.update(now);
    }

    /// A received packet was stored; `packet` and `absolute` are RDTR and RADV.
    pub fn received(&mut self, packet: u32, absolute: u32, now: Instant) {
        // RADV has no meaning while RDTR is 0 (13.4.30).
        if delay(&mut self.receive, packet, absolute, now) {
            self.set(cause::RXT0, now);
        } else {
            self.update(now);
        }
    }

    /// A descriptor that wants a delayed interrupt was written back; TIDV and TADV.
    pub fn transmitted(&mut self, packet: u32, absolute: u32, now: Instant) {
        if delay(&mut self.transmit, packet, absolute, now) {
            self.set(cause::TXDW, now);
        } else {
            self.update(now);
        }
    }

    /// ICR is read: all causes are acknowledged.
    pub fn take_causes(&mut self, now: Instant) -> u32 {
        let causes = std::mem::take(&mut self.causes);
        self.update(now);
        causes
    }

    /// ICR is written: ones acknowledge.
    pub fn clear_causes(&mut self, causes: u32, now: Instant) {
        self.causes &= !causes;
        self.update(now);
    }

    /// IMS as it reads.
    pub fn mask(&self) -> u32 {
        self.mask
    }

    /// IMS is written.
    pub fn unmask(&mut self, causes: u32, now: Instant) {
        self.mask |= causes & cause::ALL;
        self.update(now);
    }

    /// IMC is written.
    pub fn mask_off(&mut self, causes: u32, now: Instant) {
        self.mask &= !causes;
        self.update(now);
    }

    /// ITR is written.
    pub fn set_interval(&mut self, units: u32) {
        self.interval = THROTTLE_UNIT * (units & 0xffff);
    }

    /// When [`Interrupts::update`] wants to be called again.
    pub fn deadline(&self) -> Option<Instant> {
        let throttled =
            (self.causes & self.mask != 0 && !self.asserted).then_some(self.not_before).flatten();
        [throttled, self.receive.due, self.transmit.due].into_iter().flatten().min()
    }

    /// Time has passed, or something changed.
    pub fn update(&mut self, now: Instant) {
        if self.receive.expired(now) {
            self.causes |= cause::RXT0;
        }
        if self.transmit.expired(now) {
            self.causes |= cause::TXDW;
        }
        let wanted = self.causes & self.mask != 0;
        if wanted && !self.asserted {
            if self.not_before.is_some_and(|earliest| now < earliest) {
                return;
            }
            self.not_before = (!self.interval.is_zero()).then(|| now + self.interval);
        }
        self.drive(wanted);
    }

    fn drive(&mut self, asserted: bool) {
        if asserted != self.asserted {
            self.asserted = asserted;
            self.line.set(asserted);
        }
    }
}

/// Restarts the packet timer within the absolute one; `true` when there is nothing to wait for.
fn delay(delayed: &mut Delayed, packet: u32, absolute: u32, now: Instant) -> bool {
    let packet = DELAY_UNIT * (packet & 0xffff);
    if packet < SHORTEST_DELAY {
        *delayed = Delayed::default();
        return true;
    }
    let end = match absolute & 0xffff {
        0 => None,
        units => Some(*delayed.absolute.get_or_insert(now + DELAY_UNIT * units)),
    };
    let due = end.map_or(now + packet, |end| end.min(now + packet));
    delayed.due = Some(due);
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulated::testing::Wire;

    #[test]
    fn the_line_is_high_while_an_unmasked_cause_is_pending() {
        let wire = Wire::new();
        let mut interrupts = Interrupts::new(wire.clone());
        let now = Instant::now();
        interrupts.set(cause::LSC, now);
        assert!(!wire.is_high());
        interrupts.unmask(cause::LSC | cause::RXT0, now);
        assert!(wire.is_high());
        interrupts.mask_off(!0, now);
        assert!(!wire.is_high());
        interrupts.unmask(cause::LSC, now);
        assert_eq!(interrupts.take_causes(now), cause::LSC);
        assert!(!wire.is_high());
        assert_eq!(interrupts.take_causes(now), 0);
        assert_eq!(wire.rises(), 2);
    }

    #[test]
    fn throttling_spaces_interrupts_and_loses_none() {
        let wire = Wire::new();
        let mut interrupts = Interrupts::new(wire.clone());
        let start = Instant::now();
        interrupts.unmask(cause::RXT0, start);
        interrupts.set_interval(195); // 50 µs
        interrupts.received(0, 0, start);
        assert!(wire.is_high());
        interrupts.take_causes(start);
        let soon = start + Duration::from_micros(10);
        interrupts.received(0, 0, soon);
        assert!(!wire.is_high());
        let due = interrupts.deadline().unwrap();
        assert_eq!(due, start + Duration::from_nanos(195 * 256));
        interrupts.update(due);
        assert!(wire.is_high());
        assert_eq!(interrupts.deadline(), None);
    }

    #[test]
    fn delays_restart_with_each_packet_up_to_the_absolute_one() {
        let wire = Wire::new();
        let mut interrupts = Interrupts::new(wire.clone());
        let start = Instant::now();
        interrupts.unmask(cause::TXDW, start);
        interrupts.transmitted(100, 150, start);
        assert_eq!(interrupts.deadline(), Some(start + DELAY_UNIT * 100));
        let later = start + DELAY_UNIT * 90;
        interrupts.transmitted(100, 150, later);
        assert_eq!(interrupts.deadline(), Some(start + DELAY_UNIT * 150));
        assert!(!wire.is_high());
        interrupts.update(start + DELAY_UNIT * 150);
        assert!(wire.is_high());
        interrupts.reset();
        assert!(!wire.is_high() && interrupts.deadline().is_none());
    }
}
