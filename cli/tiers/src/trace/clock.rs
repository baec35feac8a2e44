//! How far an application server's clock is from ours.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::PATIENCE;
use crate::http::{Ask, Connection};

/// How often it is asked. The quickest answer says most.
const ROUNDS: u32 = 32;

/// What to add to our clock to have theirs, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Offset {
    /// The estimate.
    pub nanoseconds: i64,
    /// How far off it is at most: half of what the question's way there and back took.
    pub error: u64,
}

impl Offset {
    /// By one question, sent and answered at `sent` and `received` of our clock, in the middle of which theirs, if the
    /// way there takes as long as the way back, was `theirs` (RFC 5905, 8).
    fn of(sent: u64, theirs: u64, received: u64) -> Self {
        let round = received.saturating_sub(sent);
        let middle = sent + round / 2;
        Self { nanoseconds: theirs.wrapping_sub(middle) as i64, error: round.div_ceil(2) }
    }
}

/// Asks the application server there, some times.
///
/// # Errors
/// It does not answer, or not with a time.
pub async fn compare(address: SocketAddr) -> Result<Offset> {
    let mut connection = Connection::open(address, PATIENCE).await?;
    let mut best: Option<Offset> = None;
    for _ in 0..ROUNDS {
        let sent = now();
        let answer = connection.ask(&Ask::get("/clock")).await?;
        let received = now();
        ensure!(answer.status.is_success(), "{address}/clock answers {}", answer.status);
        let theirs =
            std::str::from_utf8(&answer.body).ok().and_then(|text| text.trim().parse().ok());
        let theirs = theirs.with_context(|| format!("{address}/clock answers no time"))?;
        let offset = Offset::of(sent, theirs, received);
        best = Some(best.filter(|best| best.error <= offset.error).unwrap_or(offset));
    }
    best.context("the clock was not asked")
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_truth_is_within_the_error() {
        // Theirs is 1000 ahead; the ways take 30 and 10.
        let offset = Offset::of(5000, 5000 + 30 + 1000, 5040);
        assert_eq!(offset, Offset { nanoseconds: 1010, error: 20 });
        // And behind.
        let offset = Offset::of(5000, 5000 + 20 - 3000, 5041);
        assert_eq!(offset, Offset { nanoseconds: -3000, error: 21 });
    }
}
