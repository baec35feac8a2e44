//! The clock's registers: time of day, control, and CMOS RAM.

use super::calendar::{civil_from_days, days_from_civil};
use crate::irq::IrqLine;

const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
pub const REGISTER_A: u8 = 0x0a;
pub const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

const A_UPDATE_IN_PROGRESS: u8 = 0x80;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const D_VALID: u8 = 0x80;

/// Alarm fields with both bits set match every value.
const ANY: u8 = 0xc0;

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;
/// How long before the second changes UIP is set, with a 32768 Hz time base, in nanoseconds.
const UPDATE: i64 = 244_000;

/// The host's clock: nanoseconds since 1970.
pub type HostClock = Box<dyn Fn() -> i64 + Send>;

/// Bits of register C, and of register B to enable each.
pub mod event {
    /// A tick of the rate in register A.
    pub const PERIODIC: u8 = 0x40;
    /// The time of day became the alarm's.
    pub const ALARM: u8 = 0x20;
    /// UF: the second changed (MC146818A data sheet, register C).
    pub const UPDATE: u8 = 0x10;
    /// One of them is enabled, and the interrupt line is up.
    pub const INTERRUPT: u8 = 0x80;
}

/// Events that the guest has not read.
#[derive(Debug)]
pub struct Events {
    pub(super) happened: u8,
    /// Up to when all is noted, in the host's nanoseconds.
    pub(super) noted: i64,
}

impl Events {
    /// No event so far; all up to `now`, in the host's nanoseconds, is noted.
    pub fn since(now: i64) -> Self {
        Self { happened: 0, noted: now }
    }
}

/// The registers, their alarm and their interrupt.
pub struct Registers {
    pub(super) ram: [u8; 128],
    /// Seconds to add to the host's clock.
    offset: i64,
    clock: HostClock,
    pub(super) events: Events,
    line: IrqLine,
    asserted: bool,
}

impl Registers {
    /// The registers with a battery that never ran out.
    pub fn new(line: IrqLine, clock: HostClock) -> Self {
        let mut ram = [0; 128];
        ram[usize::from(REGISTER_A)] = 0x26; // 32768 Hz time base, 1024 Hz periodic rate.
        ram[usize::from(REGISTER_B)] = B_24_HOURS;
        let events = Events::since(clock());
        Self { ram, offset: 0, clock, events, line, asserted: false }
    }

    /// Drives the interrupt line.
    pub(super) fn assert(&mut self, asserted: bool) {
        if asserted != self.asserted {
            self.asserted = asserted;
            self.line.set(asserted);
        }
    }

    /// The host's time in nanoseconds since 1970.
    pub fn now(&self) -> i64 {
        (self.clock)()
    }

    /// The guest's time at the host's `now`, in seconds since 1970.
    pub(super) fn guest_second(&self, now: i64) -> i64 {
        now.div_euclid(SECOND).saturating_add(self.offset)
    }

    /// The host's time, in nanoseconds, when the guest's `second` begins.
    pub(super) fn host_time(&self, second: i64) -> i64 {
        second.saturating_sub(self.offset).saturating_mul(SECOND)
    }

    /// The guest holds the clock to set it.
    pub(super) fn is_set(&self) -> bool {
        self.ram[usize::from(REGISTER_B)] & B_SET != 0
    }

    /// The time of day at which the alarm goes off: hour, minute and second, each `None` where any
    /// will do. `None` for one that never comes.
    pub(super) fn alarm(&self) -> Option<[Option<u8>; 3]> {
        let field = |index: u8, limit: u8, decode: &dyn Fn(u8) -> u8| {
            let value = self.ram[usize::from(index)];
            if value & ANY == ANY {
                return Some(None);
            }
            Some(decode(value)).filter(|value| *value < limit).map(Some)
        };
        Some([
            field(HOURS_ALARM, 24, &|value| self.decode_hour(value))?,
            field(MINUTES_ALARM, 60, &|value| self.decode(value))?,
            field(SECONDS_ALARM, 60, &|value| self.decode(value))?,
        ])
    }

    /// The guest reads the register at `index`, below 128.
    pub fn read(&mut self, index: u8) -> u8 {
        if index == REGISTER_C { self.take_events() } else { self.register(index) }
    }

    /// The guest writes the register at `index`, below 128.
    pub fn write(&mut self, index: u8, value: u8) {
        // What happened until now happened under the old settings.
        self.update();
        self.write_register(index, value);
        self.drive_line();
    }

    fn register(&self, index: u8) -> u8 {
        let stored = self.ram[usize::from(index)];
        match index {
            REGISTER_A => {
                let late = self.now() % SECOND >= SECOND - UPDATE;
                let counting = !self.is_set();
                stored | if late && counting { A_UPDATE_IN_PROGRESS } else { 0 }
            }
            REGISTER_D => D_VALID,
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => self.time(index),
            _ => stored,
        }
    }

    /// A register of the running clock; while the guest sets the time, what it wrote.
    fn time(&self, index: u8) -> u8 {
        if self.is_set() {
            return self.ram[usize::from(index)];
        }
        // The guest sets at most a year 16599, so that nothing here can overflow.
        let now = self.guest_second(self.now());
        let (days, second) = (now.div_euclid(86_400), now.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let value = match index {
            SECONDS => second % 60,
            MINUTES => second / 60 % 60,
            HOURS => return self.encode_hour((second / 3600) as u8),
            WEEKDAY => (days + 4).rem_euclid(7) + 1, // 1970 began on a Thursday.
            DAY => day,
            MONTH => month,
            YEAR => year.rem_euclid(100),
            _ => year.div_euclid(100).rem_euclid(100),
        };
        self.encode(value as u8)
    }

    fn is_binary(&self) -> bool {
        self.ram[usize::from(REGISTER_B)] & B_BINARY != 0
    }

    fn encode(&self, value: u8) -> u8 {
        if self.is_binary() { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.is_binary() { value } else { (value >> 4).saturating_mul(10) + (value & 0x0f) }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.ram[usize::from(REGISTER_B)] & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { 0x80 } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    fn decode_hour(&self, value: u8) -> u8 {
        if self.ram[usize::from(REGISTER_B)] & B_24_HOURS != 0 {
            return self.decode(value);
        }
        let hour = self.decode(value & 0x7f) % 12;
        if value & 0x80 != 0 { hour + 12 } else { hour }
    }

    fn write_register(&mut self, index: u8, value: u8) {
        match index {
            REGISTER_A => self.ram[usize::from(index)] = value & !A_UPDATE_IN_PROGRESS,
            REGISTER_B => self.write_b(value),
            REGISTER_C | REGISTER_D => {}
            _ => self.ram[usize::from(index)] = value,
        }
    }

    /// SET stops the clock for the guest to write the time; clearing it starts it from there.
    fn write_b(&mut self, mut value: u8) {
        let was_set = self.ram[usize::from(REGISTER_B)] & B_SET != 0;
        if value & B_SET != 0 {
            value &= !event::UPDATE; // no updates, so no end of them
        }
        if !was_set && value & B_SET != 0 {
            for index in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
                self.ram[usize::from(index)] = self.time(index);
            }
        }
        self.ram[usize::from(REGISTER_B)] = value;
        if was_set && value & B_SET == 0 {
            self.offset = self.written_time().saturating_sub(self.now() / SECOND);
        }
    }

    fn written_time(&self) -> i64 {
        let value = |index: u8| i64::from(self.decode(self.ram[usize::from(index)]));
        let year = value(CENTURY) * 100 + value(YEAR);
        let days = days_from_civil(year, value(MONTH), value(DAY));
        let hour = i64::from(self.decode_hour(self.ram[usize::from(HOURS)]));
        ((days * 24 + hour) * 60 + value(MINUTES)) * 60 + value(SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulated::testing::Wire;

    /// 2024-02-29 23:59:58 UTC, a Thursday.
    const LEAP_DAY: i64 = 1_709_251_198;

    fn at(now: i64, nanoseconds: i64) -> Registers {
        Registers::new(Wire::new(), Box::new(move || now * SECOND + nanoseconds))
    }

    #[test]
    fn the_time_is_told_in_bcd_and_in_binary() {
        let mut rtc = at(LEAP_DAY, 0);
        let all = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];
        assert_eq!(all.map(|i| rtc.read(i)), [0x58, 0x59, 0x23, 5, 0x29, 0x02, 0x24, 0x20]);
        rtc.write(REGISTER_B, B_BINARY);
        assert_eq!(rtc.read(SECONDS), 58);
        assert_eq!(rtc.read(HOURS), 11 | 0x80);
    }

    #[test]
    fn update_in_progress_is_set_just_before_the_second_changes() {
        assert_eq!(at(LEAP_DAY, 999_755_999).read(REGISTER_A), 0x26);
        assert_eq!(at(LEAP_DAY, 999_756_000).read(REGISTER_A), 0xa6);
        assert_eq!(at(LEAP_DAY, 0).read(REGISTER_D), D_VALID);
    }

    #[test]
    fn the_guest_can_set_the_time() {
        let mut rtc = at(LEAP_DAY, 0);
        rtc.write(REGISTER_B, B_SET | B_24_HOURS);
        for (index, value) in
            [(SECONDS, 0x01), (MINUTES, 0), (HOURS, 0x12), (DAY, 0x01), (MONTH, 0x01), (YEAR, 0x30)]
        {
            rtc.write(index, value);
        }
        assert_eq!(rtc.read(SECONDS), 0x01);
        rtc.write(REGISTER_B, B_24_HOURS);
        assert_eq!(rtc.read(HOURS), 0x12);
        assert_eq!(rtc.read(YEAR), 0x30);
        assert_eq!(rtc.read(CENTURY), 0x20);
    }

    #[test]
    fn nonsense_written_as_time_does_no_harm() {
        let mut rtc = at(LEAP_DAY, 0);
        rtc.write(REGISTER_B, B_SET | B_BINARY);
        for index in [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY] {
            rtc.write(index, 0xff);
        }
        rtc.write(REGISTER_B, B_24_HOURS);
        for index in 0..=0x7f {
            rtc.read(index);
        }
    }
}
