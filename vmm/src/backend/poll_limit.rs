//! `poll=MICROSECONDS` of a disk or network.

use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// For how long at most a device's thread looks for work before it sleeps, where that pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PollLimit {
    micros: u16,
}

/// Longer ones would keep a CPU busy for a guest that waits for its disk.
const LONGEST: u16 = 10_000;

impl PollLimit {
    /// What [`FromStr`] takes, for messages.
    pub const EXPECTED: &str = "microseconds, 0 (never) to 10000";

    /// At most 10 ms.
    pub const fn from_micros(micros: u16) -> Self {
        Self { micros: if micros > LONGEST { LONGEST } else { micros } }
    }
}

impl Default for PollLimit {
    /// 200 µs: what KVM looks for on behalf of a vCPU that halts (halt_poll_ns).
    fn default() -> Self {
        Self::from_micros(200)
    }
}

impl From<PollLimit> for Duration {
    fn from(limit: PollLimit) -> Self {
        Self::from_micros(limit.micros.into())
    }
}

/// Not a number in the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", PollLimit::EXPECTED)]
pub struct BadPollLimit;

impl FromStr for PollLimit {
    type Err = BadPollLimit;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(micros) if micros <= LONGEST => Ok(Self { micros }),
            _ => Err(BadPollLimit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_number_of_microseconds_in_a_range() {
        let limit = "200".parse::<PollLimit>().unwrap();
        assert_eq!(
            (limit, Duration::from(limit)),
            (PollLimit::default(), Duration::from_micros(200))
        );
        assert_eq!(
            Duration::from("10000".parse::<PollLimit>().unwrap()),
            Duration::from_millis(10)
        );
        for text in ["", "-1", "10001", "1ms", "70000"] {
            assert_eq!(text.parse::<PollLimit>(), Err(BadPollLimit), "{text}");
        }
    }
}
