//! Real-time clock and CMOS RAM at ports 0x70 and 0x71, after the Motorola MC146818A data sheet.
//! The time is the host's, in UTC, plus what the guest set. Alarm and periodic interrupts are
//! never raised.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::bus::BusDevice;

/// Index register; data follows.
pub const PORT: u16 = 0x70;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

const A_UPDATE_IN_PROGRESS: u8 = 0x80;
const B_SET: u8 = 0x80;
const B_BINARY: u8 = 0x04;
const B_24_HOURS: u8 = 0x02;
const D_VALID: u8 = 0x80;

/// How long before the second changes UIP is set, with a 32768 Hz time base.
const UPDATE_NANOSECONDS: u32 = 244_000;

/// See the module.
pub struct CmosRtc {
    index: u8,
    ram: [u8; 128],
    /// Seconds to add to the host's clock.
    offset: i64,
    now: fn() -> (i64, u32),
}

impl Default for CmosRtc {
    fn default() -> Self {
        let mut ram = [0; 128];
        ram[usize::from(REGISTER_A)] = 0x26; // 32768 Hz time base, 1024 Hz periodic rate.
        ram[usize::from(REGISTER_B)] = B_24_HOURS;
        Self { index: 0, ram, offset: 0, now: host_clock }
    }
}

/// Seconds since 1970 and nanoseconds into the second.
fn host_clock() -> (i64, u32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (now.as_secs() as i64, now.subsec_nanos())
}

impl CmosRtc {
    fn register(&self, index: u8) -> u8 {
        let stored = self.ram[usize::from(index)];
        match index {
            REGISTER_A => {
                let late = (self.now)().1 >= 1_000_000_000 - UPDATE_NANOSECONDS;
                let counting = self.ram[usize::from(REGISTER_B)] & B_SET == 0;
                stored | if late && counting { A_UPDATE_IN_PROGRESS } else { 0 }
            }
            REGISTER_C => 0,
            REGISTER_D => D_VALID,
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY => self.time(index),
            _ => stored,
        }
    }

    /// A register of the running clock; while the guest sets the time, what it wrote.
    fn time(&self, index: u8) -> u8 {
        if self.ram[usize::from(REGISTER_B)] & B_SET != 0 {
            return self.ram[usize::from(index)];
        }
        // The guest sets at most a year 16599, so that nothing here can overflow.
        let now = (self.now)().0.saturating_add(self.offset);
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
        if self.is_binary() { value } else { (value >> 4) * 10 + (value & 0x0f) }
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
    fn write_b(&mut self, value: u8) {
        let was_set = self.ram[usize::from(REGISTER_B)] & B_SET != 0;
        if !was_set && value & B_SET != 0 {
            for index in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
                self.ram[usize::from(index)] = self.time(index);
            }
        }
        self.ram[usize::from(REGISTER_B)] = value;
        if was_set && value & B_SET == 0 {
            self.offset = self.written_time().saturating_sub((self.now)().0);
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

// The proleptic Gregorian calendar, counted in 400-year eras of years that begin in March, so
// that the leap day comes last. The C library's functions would read /etc/localtime.

const DAYS_PER_ERA: i64 = 146_097;
/// Days from 0000-03-01 to 1970-01-01.
const EPOCH: i64 = 719_468;

/// Days since 1970. A month or day out of range gives a day in its neighbourhood.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let month = month.clamp(1, 12);
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - EPOCH
}

/// Year, month and day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let leaps = day_of_era / 1460 - day_of_era / 36_524 + day_of_era / 146_096;
    let year_of_era = (day_of_era - leaps) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months_since_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months_since_march + 2) / 5 + 1;
    let month = (months_since_march + 2) % 12 + 1;
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

impl BusDevice for CmosRtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // The index register is write-only and reads as all ones.
        if let (1, Some(first)) = (offset, data.first_mut()) {
            *first = self.register(self.index);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            // Bit 7 masks NMIs, which no device here raises.
            (0, &[index]) => self.index = index & 0x7f,
            (0, &[index, value]) => {
                self.index = index & 0x7f;
                self.write_register(self.index, value);
            }
            (1, &[value]) => self.write_register(self.index, value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2024-02-29 23:59:58 UTC, a Thursday.
    const LEAP_DAY: i64 = 1_709_251_198;

    fn at(now: fn() -> (i64, u32)) -> CmosRtc {
        CmosRtc { now, ..CmosRtc::default() }
    }

    fn get(rtc: &mut CmosRtc, index: u8) -> u8 {
        let mut value = [0];
        rtc.write(0, &[index]);
        rtc.read(1, &mut value);
        value[0]
    }

    fn set(rtc: &mut CmosRtc, index: u8, value: u8) {
        rtc.write(0, &[index]);
        rtc.write(1, &[value]);
    }

    #[test]
    fn the_time_is_told_in_bcd_and_in_binary() {
        let mut rtc = at(|| (LEAP_DAY, 0));
        let all = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];
        assert_eq!(all.map(|i| get(&mut rtc, i)), [0x58, 0x59, 0x23, 5, 0x29, 0x02, 0x24, 0x20]);
        set(&mut rtc, REGISTER_B, B_BINARY);
        assert_eq!(get(&mut rtc, SECONDS), 58);
        assert_eq!(get(&mut rtc, HOURS), 11 | 0x80);
    }

    #[test]
    fn update_in_progress_is_set_just_before_the_second_changes() {
        assert_eq!(get(&mut at(|| (LEAP_DAY, 999_755_999)), REGISTER_A), 0x26);
        assert_eq!(get(&mut at(|| (LEAP_DAY, 999_756_000)), REGISTER_A), 0xa6);
        assert_eq!(get(&mut at(|| (LEAP_DAY, 0)), REGISTER_D), D_VALID);
    }

    #[test]
    fn the_guest_can_set_the_time() {
        let mut rtc = at(|| (LEAP_DAY, 0));
        set(&mut rtc, REGISTER_B, B_SET | B_24_HOURS);
        for (index, value) in
            [(SECONDS, 0x01), (MINUTES, 0), (HOURS, 0x12), (DAY, 0x01), (MONTH, 0x01), (YEAR, 0x30)]
        {
            set(&mut rtc, index, value);
        }
        assert_eq!(get(&mut rtc, SECONDS), 0x01);
        set(&mut rtc, REGISTER_B, B_24_HOURS);
        assert_eq!(get(&mut rtc, HOURS), 0x12);
        assert_eq!(get(&mut rtc, YEAR), 0x30);
        assert_eq!(get(&mut rtc, CENTURY), 0x20);
    }

    #[test]
    fn calendar_and_day_count_agree() {
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(days_from_civil(2000, 3, 1) - days_from_civil(2000, 2, 28), 2);
        assert_eq!(days_from_civil(2100, 3, 1) - days_from_civil(2100, 2, 28), 1);
        for days in (-200_000..200_000).step_by(7) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn nonsense_written_as_time_does_no_harm() {
        let mut rtc = at(|| (LEAP_DAY, 0));
        set(&mut rtc, REGISTER_B, B_SET | B_BINARY);
        for index in [SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR, CENTURY] {
            set(&mut rtc, index, 0xff);
        }
        set(&mut rtc, REGISTER_B, B_24_HOURS);
        for index in 0..=0x7f {
            get(&mut rtc, index);
        }
    }
}
