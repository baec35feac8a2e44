//! Points in time, as they are written down and told.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970, UTC. It is displayed as RFC 3339 has it, with all nine digits, as podman's
/// logs do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

/// What is no point in time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected a time such as 2026-11-28T09:30:00Z, seconds since 1970, or how long ago, such as 10m"
)]
pub struct NoTimestamp;

impl Timestamp {
    /// By the host's clock.
    pub fn now() -> Self {
        Self::from(SystemTime::now())
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// How long ago it is; nothing if it is to come.
    pub fn age(self) -> Duration {
        Duration::from_nanos(Self::now().0.saturating_sub(self.0))
    }

    /// Reads what podman's `--since` takes: a time, seconds since 1970, or how long ago (`90s`, `1h30m`).
    ///
    /// # Errors
    /// It is none of these.
    pub fn parse_relative(text: &str) -> Result<Self, NoTimestamp> {
        if let Ok(time) = text.parse() {
            return Ok(time);
        }
        if let Ok(seconds) = text.parse::<f64>() {
            let is_in_range = (0.0..1e10).contains(&seconds);
            return is_in_range.then_some(Self((seconds * 1e9) as u64)).ok_or(NoTimestamp);
        }
        let ago = parse_duration(text).map_err(|_| NoTimestamp)?;
        Ok(Self(Self::now().0.saturating_sub(ago.as_nanos() as u64)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(since.as_nanos() as u64)
    }
}

impl std::str::FromStr for Timestamp {
    type Err = NoTimestamp;

    /// RFC 3339.
    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| NoTimestamp)?;
        let nanoseconds = time.timestamp_nanos_opt().and_then(|time| u64::try_from(time).ok());
        nanoseconds.map(Self).ok_or(NoTimestamp)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 64 bits of nanoseconds end in 2554.
        let time = DateTime::<Utc>::from_timestamp_nanos(self.0 as i64);
        let (date, nanoseconds) = (time.date_naive(), self.0 % 1_000_000_000);
        write!(f, "{:04}-{:02}-{:02}T", date.year(), date.month(), date.day())?;
        write!(f, "{:02}:{:02}:{:02}.", time.hour(), time.minute(), time.second())?;
        write!(f, "{nanoseconds:09}Z")
    }
}

/// Reads `30s`, `1m30s`, `250ms`, `2h`; a number alone is seconds.
///
/// # Errors
/// What could have been written.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "expected a duration such as 30s, 1m30s or 250ms";
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or(WRONG)?;
        let number: u32 = rest[..digits].parse().map_err(|_| WRONG)?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit());
        let unit_end = unit_end.map_or(rest.len(), |length| digits + length);
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(WRONG),
        };
        let part = unit.checked_mul(number).ok_or(WRONG)?;
        total = total.checked_add(part).ok_or(WRONG)?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(WRONG) } else { Ok(total) }
}

/// Tells a length of time as podman's tables do: in the largest unit that fits.
pub fn about(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..=59 => (seconds, "second"),
        60..=3599 => (seconds / 60, "minute"),
        3600..=86_399 => (seconds / 3600, "hour"),
        86_400..=1_209_599 => (seconds / 86_400, "day"),
        1_209_600..=5_183_999 => (seconds / 604_800, "week"),
        5_184_000..=63_071_999 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_and_read_as_rfc_3339_has_them() {
        let time = Timestamp(1_795_823_444_000_000_123);
        assert_eq!(time.to_string(), "2026-11-27T23:50:44.000000123Z");
        assert_eq!(time.to_string().parse(), Ok(time));
        assert_eq!("2026-11-28T00:50:44.000000123+01:00".parse(), Ok(time));
        assert_eq!(Timestamp::default().to_string(), "1970-01-01T00:00:00.000000000Z");
        for bad in ["", "yesterday", "2026-13-01T00:00:00Z", "-5", "1e99", "10 m"] {
            assert_eq!(Timestamp::parse_relative(bad), Err(NoTimestamp), "{bad}");
        }
        assert_eq!(Timestamp::parse_relative("1.5"), Ok(Timestamp(1_500_000_000)));
        let ago = Timestamp::parse_relative("1h").unwrap().age();
        assert!(ago >= Duration::from_secs(3600) && ago < Duration::from_secs(3700), "{ago:?}");
    }

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in
            [("30", 30_000), ("30s", 30_000), ("1m30s", 90_000), ("250ms", 250), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for bad in ["", "s", "1x", "-1s", "1m30", "99999999999s", "1.5s", "ü"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        for (seconds, text) in [(1, "1 second"), (119, "1 minute"), (7200, "2 hours")] {
            assert_eq!(about(Duration::from_secs(seconds)), text);
        }
    }
}
