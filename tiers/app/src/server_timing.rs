//! What a request spent its time on, told in its answer's `Server-Timing` (W3C Server Timing).

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue};

/// The header.
pub const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The parts of a request's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Waiting for its turn.
    Queue,
    /// Looking into the cache, or waiting for another request that fills it.
    Cache,
    /// Computing.
    Compute,
    /// Waiting for a connection.
    Pool,
    /// Waiting for the database's answer.
    Database,
}

impl Part {
    const ALL: [Self; 5] = [Self::Queue, Self::Cache, Self::Compute, Self::Pool, Self::Database];

    fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Cache => "cache",
            Self::Compute => "compute",
            Self::Pool => "pool",
            Self::Database => "db",
        }
    }
}

/// The time of one request, which its handler and all below it add to.
#[derive(Clone, Debug)]
pub struct ServerTiming {
    began: Instant,
    spent: Arc<Mutex<Spent>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    parts: [Option<Interval>; Part::ALL.len()],
    is_hit: Option<bool>,
}

/// What a part took, and when it first began, after the request's arrival.
#[derive(Clone, Copy, Debug, Default)]
struct Interval {
    at: Duration,
    time: Duration,
}

impl ServerTiming {
    /// Of a request that has just arrived.
    pub fn new() -> Self {
        Self { began: Instant::now(), spent: Arc::default() }
    }

    /// Adds what ends now to a part.
    pub fn add(&self, part: Part, time: Duration) {
        let at = self.began.elapsed().saturating_sub(time);
        self.add_at(part, at, time);
    }

    fn add_at(&self, part: Part, at: Duration, time: Duration) {
        self.change(|spent| {
            let part = &mut spent.parts[part as usize];
            part.get_or_insert(Interval { at, time: Duration::ZERO }).time += time;
        });
    }

    /// Adds what a future takes to a part.
    pub async fn measure<T>(&self, part: Part, work: impl Future<Output = T>) -> T {
        let began = Instant::now();
        let result = work.await;
        self.add(part, began.elapsed());
        result
    }

    /// Says whether the cache had it.
    pub fn set_hit(&self, is_hit: bool) {
        self.change(|spent| spent.is_hit = Some(is_hit));
    }

    fn change(&self, change: impl FnOnce(&mut Spent)) {
        // Nobody panics while holding it.
        change(&mut self.spent.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The header's value: each part that there was, and the whole, in milliseconds. `at` is ours: when the part first
    /// began. Browsers ignore what they do not know (W3C Server Timing, 3.4).
    pub fn header(&self, whole: Duration) -> HeaderValue {
        let spent = *self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for part in Part::ALL {
            let Some(Interval { at, time }) = spent.parts[part as usize] else { continue };
            let hit = match (part, spent.is_hit) {
                (Part::Cache, Some(true)) => ";desc=hit",
                (Part::Cache, Some(false)) => ";desc=miss",
                _ => "",
            };
            // Writing to a string cannot fail.
            let (at, time) = (milliseconds(at), milliseconds(time));
            let _ = write!(text, "{}{hit};dur={time:.3};at={at:.3}, ", part.name());
        }
        let _ = write!(text, "app;dur={:.3}", milliseconds(whole));
        HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_each_part_that_there_was() {
        let timing = ServerTiming::new();
        let micros = Duration::from_micros;
        timing.add_at(Part::Database, micros(40), micros(1500));
        timing.add_at(Part::Database, micros(2000), micros(500));
        timing.add_at(Part::Cache, micros(9), micros(7));
        timing.set_hit(false);
        let header = timing.header(Duration::from_millis(3));
        let expected = "cache;desc=miss;dur=0.007;at=0.009, db;dur=2.000;at=0.040, app;dur=3.000";
        assert_eq!(header, expected);
    }
}
