//! What became of the requests.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use hyper::StatusCode;

use super::mix::Kind;
use crate::http::HttpError;

/// Times are kept to a part in a thousand, in nanoseconds; what takes longer than this counts as this.
const LONGEST: u64 = 600_000_000_000;
const DIGITS: u8 = 3;

/// How a request failed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// There was no connection.
    Connect,
    /// No answer in time.
    TimedOut,
    /// The connection ended before the answer did.
    Broken,
    /// Another answer than a success.
    Status(u16),
    /// The end came before it could be sent: the servers were too slow for the rate.
    NotSent,
}

impl Failure {
    /// Its name in reports.
    pub fn name(&self) -> String {
        match self {
            Self::Connect => "connect".to_owned(),
            Self::TimedOut => "timeout".to_owned(),
            Self::Broken => "broken".to_owned(),
            Self::Status(status) => format!("status {status}"),
            Self::NotSent => "not sent".to_owned(),
        }
    }
}

impl From<&HttpError> for Failure {
    fn from(error: &HttpError) -> Self {
        match error {
            HttpError::Connect { .. } => Self::Connect,
            HttpError::TimedOut(_) => Self::TimedOut,
            HttpError::Broken(_) | HttpError::Body(_) => Self::Broken,
        }
    }
}

/// Of one kind of request.
#[derive(Clone, Debug)]
pub struct Counts {
    /// The times of what was answered with a success, in nanoseconds.
    pub times: Histogram<u64>,
    /// The rest.
    pub failures: BTreeMap<Failure, u64>,
    /// Bytes of bodies.
    pub bytes: u64,
    /// How often the other side closed a connection just as it was used again, and the request went over a new one.
    pub asked_again: u64,
}

impl Counts {
    fn new() -> Self {
        // These bounds are in order, and so many digits are allowed: it cannot fail.
        let times =
            Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are constants");
        Self { times, failures: BTreeMap::new(), bytes: 0, asked_again: 0 }
    }

    /// How many failed.
    pub fn errors(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// Of all.
#[derive(Clone, Debug)]
pub struct Tally {
    /// By kind; those that are in the mix.
    pub kinds: BTreeMap<Kind, Counts>,
    /// From the first request to the last answer.
    pub took: Duration,
}

impl Tally {
    /// Nothing yet, of these kinds.
    pub fn new(kinds: impl Iterator<Item = Kind>) -> Self {
        Self { kinds: kinds.map(|kind| (kind, Counts::new())).collect(), took: Duration::ZERO }
    }

    /// Counts an answer.
    pub fn answered(&mut self, kind: Kind, status: StatusCode, bytes: usize, time: Duration) {
        if !status.is_success() {
            return self.failed(kind, Failure::Status(status.as_u16()));
        }
        let counts = self.of(kind);
        counts.bytes += bytes as u64;
        let time = u64::try_from(time.as_nanos()).unwrap_or(LONGEST);
        counts.times.saturating_record(time.max(1));
    }

    /// Counts that a request went over a new connection.
    pub fn asked_again(&mut self, kind: Kind) {
        self.of(kind).asked_again += 1;
    }

    /// Counts what was not answered.
    pub fn failed(&mut self, kind: Kind, failure: Failure) {
        *self.of(kind).failures.entry(failure).or_insert(0) += 1;
    }

    fn of(&mut self, kind: Kind) -> &mut Counts {
        self.kinds.entry(kind).or_insert_with(Counts::new)
    }

    /// All kinds as one.
    pub fn whole(&self) -> Counts {
        let mut whole = Counts::new();
        for counts in self.kinds.values() {
            // Both have the same bounds.
            whole.times.add(&counts.times).expect("the bounds are the same");
            whole.bytes += counts.bytes;
            whole.asked_again += counts.asked_again;
            for (failure, count) in &counts.failures {
                *whole.failures.entry(failure.clone()).or_insert(0) += count;
            }
        }
        whole
    }

    /// How many failed.
    pub fn errors(&self) -> u64 {
        self.kinds.values().map(Counts::errors).sum()
    }
}
