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
#[derive(Clone, Debug, Default)]
pub struct ServerTiming(Arc<Mutex<Spent>>);

#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    parts: [Option<Duration>; Part::ALL.len()],
    is_hit: Option<bool>,
}

impl ServerTiming {
    /// Adds to a part.
    pub fn add(&self, part: Part, time: Duration) {
        self.change(|spent| *spent.parts[part as usize].get_or_insert_default() += time);
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
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The header's value: each part that there was, and the whole, in milliseconds.
    pub fn header(&self, whole: Duration) -> HeaderValue {
        let spent = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for part in Part::ALL {
            let Some(time) = spent.parts[part as usize] else { continue };
            let hit = match (part, spent.is_hit) {
                (Part::Cache, Some(true)) => ";desc=hit",
                (Part::Cache, Some(false)) => ";desc=miss",
                _ => "",
            };
            // Writing to a string cannot fail.
            let _ = write!(text, "{}{hit};dur={:.3}, ", part.name(), milliseconds(time));
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
        let timing = ServerTiming::default();
        timing.add(Part::Database, Duration::from_micros(1500));
        timing.add(Part::Database, Duration::from_micros(500));
        timing.add(Part::Cache, Duration::from_micros(7));
        timing.set_hit(false);
        let header = timing.header(Duration::from_millis(3));
        assert_eq!(header, "cache;desc=miss;dur=0.007, db;dur=2.000, app;dur=3.000");
    }
}
