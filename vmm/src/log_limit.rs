//! Messages that a guest can cause, without letting it fill the host's disk with them.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::poison::unpoisoned;

/// Messages in one [`INTERVAL`]; more are counted instead.
pub const MESSAGES: u32 = 10;
/// Longer than it takes to look at ten messages.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// What one device, or one disk, may say.
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Window>);

#[derive(Debug, Default)]
struct Window {
    begun: Option<Instant>,
    admitted: u32,
    left_out: u64,
}

impl LogLimit {
    /// Whether to log a message now: then the number of those left out since the last one that
    /// was logged.
    pub fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut window = unpoisoned(self.0.lock());
        let over = |begun| now.saturating_duration_since(begun) >= INTERVAL;
        if window.begun.is_none_or(over) {
            (window.begun, window.admitted) = (Some(now), 0);
        }
        if window.admitted == MESSAGES {
            window.left_out += 1;
            return None;
        }
        window.admitted += 1;
        Some(std::mem::take(&mut window.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_few_messages_and_a_count() {
        let limit = LogLimit::default();
        let start = Instant::now();
        let admitted = |at: Duration, count: u32| -> Vec<u64> {
            (0..count).filter_map(|_| limit.admit_at(start + at)).collect()
        };
        assert_eq!(admitted(Duration::ZERO, 1000), [0; MESSAGES as usize]);
        assert!(admitted(INTERVAL - Duration::from_millis(1), 5).is_empty());
        // The next interval begins with what was left out, and is as short.
        let mut next = [0; MESSAGES as usize];
        next[0] = 1000 - u64::from(MESSAGES) + 5;
        assert_eq!(admitted(INTERVAL, 1000), next);
        assert_eq!(admitted(INTERVAL * 10, 1), [1000 - u64::from(MESSAGES)]);
    }
}

/// What is logged, for tests.
#[cfg(test)]
pub mod testing {
    use std::fmt::{Debug, Write};
    use std::sync::{Arc, Mutex};

    use tracing::field::{Field, Visit};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    #[derive(Clone, Default)]
    struct Collector(Arc<Mutex<Vec<String>>>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {}={value:?}", field.name()).unwrap();
        }
    }

    impl Subscriber for Collector {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    /// The messages that `work` logs on this thread, each with its level and fields.
    pub fn messages(work: impl FnOnce()) -> Vec<String> {
        let collector = Collector::default();
        tracing::subscriber::with_default(collector.clone(), work);
        let lines = collector.0.lock().unwrap();
        lines.clone()
    }
}
