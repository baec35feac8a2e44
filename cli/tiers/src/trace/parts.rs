//! What the application server says of its time: `Server-Timing` (W3C Server Timing), with a parameter of its own.

use std::time::Duration;

use serde::Serialize;

/// A part of the application's time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// queue, cache, compute, pool, db, or app, which is the whole.
    pub name: String,
    /// hit or miss, of the cache.
    pub description: Option<String>,
    /// How long.
    pub time: Duration,
    /// When it first began, after the request's arrival.
    pub at: Duration,
}

/// Reads the header. What cannot be understood is left out.
pub fn parse(header: &str) -> Vec<Part> {
    header.split(',').filter_map(part).collect()
}

fn part(text: &str) -> Option<Part> {
    let mut words = text.split(';').map(str::trim);
    let name = words.next().filter(|name| !name.is_empty())?;
    let mut part =
        Part { name: name.to_owned(), description: None, time: Duration::ZERO, at: Duration::ZERO };
    for (name, value) in words.filter_map(|word| word.split_once('=')) {
        match name {
            "desc" => part.description = Some(value.trim_matches('"').to_owned()),
            "dur" => part.time = milliseconds(value)?,
            "at" => part.at = milliseconds(value)?,
            _ => {}
        }
    }
    Some(part)
}

fn milliseconds(text: &str) -> Option<Duration> {
    let milliseconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(milliseconds / 1e3).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_and_nonsense_is_left_out() {
        let header =
            "cache;desc=miss;dur=0.007;at=0.009, db;dur=2, app;dur=3.5;other=1, ;dur=1, x;dur=-1";
        let parts = parse(header);
        let names: Vec<_> = parts.iter().map(|part| &part.name[..]).collect();
        assert_eq!(names, ["cache", "db", "app"]);
        assert_eq!(parts[0].description.as_deref(), Some("miss"));
        assert_eq!(
            (parts[0].time, parts[0].at),
            (Duration::from_micros(7), Duration::from_micros(9))
        );
        assert_eq!(parts[2].time, Duration::from_micros(3500));
    }
}
