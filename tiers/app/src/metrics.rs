//! The server's counters.

use std::fmt;
use std::time::Duration;

use axum::http::StatusCode;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::admission::Admission;
use crate::cache::ProductCache;
use crate::database::Database;

/// What requests are told apart by. A route is the pattern and not the path, which clients choose.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    route: String,
    status: u16,
}

/// The counters that are counted as things happen; the rest is read when it is asked for.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    /// The sum of `requests`, which is not told: whoever reads those can add.
    answered: Counter,
    duration: Histogram,
    /// Orders that were placed.
    pub orders: Counter,
    cache_hits: Gauge,
    cache_misses: Gauge,
    cache_entries: Gauge,
    working: Gauge,
    waiting: Gauge,
    connections: Gauge,
    connection_waiting: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("shop");
        let metrics = Self {
            requests: Family::default(),
            answered: Counter::default(),
            // 100 µs to 13 s, each twice the one before.
            duration: Histogram::new(exponential_buckets(1e-4, 2.0, 18)),
            orders: Counter::default(),
            cache_hits: Gauge::default(),
            cache_misses: Gauge::default(),
            cache_entries: Gauge::default(),
            working: Gauge::default(),
            waiting: Gauge::default(),
            connections: Gauge::default(),
            connection_waiting: Gauge::default(),
            registry: Registry::default(),
        };
        let (requests, orders) = (metrics.requests.clone(), metrics.orders.clone());
        registry.register("requests", "Requests that were answered", requests);
        registry.register("orders", "Orders that were placed", orders);
        let duration = metrics.duration.clone();
        let help = "From the arrival of a request to its answer";
        registry.register_with_unit("request_duration", help, Unit::Seconds, duration);
        for (name, help, gauge) in [
            ("cache_hits", "Products that the cache had", &metrics.cache_hits),
            ("cache_misses", "Products that the cache had not", &metrics.cache_misses),
            ("cache_entries", "Products in the cache", &metrics.cache_entries),
            ("requests_working", "Requests that are worked on", &metrics.working),
            ("requests_waiting", "Requests that wait for their turn", &metrics.waiting),
            ("connections", "Connections to the database", &metrics.connections),
            ("connections_waiting", "Requests that wait for one", &metrics.connection_waiting),
        ] {
            registry.register(name, help, gauge.clone());
        }
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts an answer.
    pub fn count(&self, method: &'static str, route: &str, status: StatusCode, time: Duration) {
        let labels = Labels { method, route: route.to_owned(), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.answered.inc();
        self.duration.observe(time.as_secs_f64());
    }

    /// How many requests were answered.
    pub fn answered(&self) -> u64 {
        self.answered.get()
    }

    /// All of them, in OpenMetrics' text format.
    ///
    /// # Errors
    /// None that is known: a string takes everything.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Reads what others count.
    pub fn refresh(&self, admission: &Admission, cache: &ProductCache, database: &Database) {
        let status = database.status();
        for (gauge, value) in [
            (&self.cache_hits, cache.hits() as i64),
            (&self.cache_misses, cache.misses() as i64),
            (&self.cache_entries, cache.entries() as i64),
            (&self.working, admission.working().into()),
            (&self.waiting, admission.waiting().into()),
            (&self.connections, status.size as i64),
            (&self.connection_waiting, status.waiting as i64),
        ] {
            gauge.set(value);
        }
    }
}
