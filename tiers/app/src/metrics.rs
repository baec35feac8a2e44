//! `GET /metrics`: the server's counters in OpenMetrics' text format, which Prometheus reads.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tracing::error;

use crate::server::Shop;

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
        self.duration.observe(time.as_secs_f64());
    }

    fn refresh(&self, shop: &Shop) {
        let status = shop.database.status();
        for (gauge, value) in [
            (&self.cache_hits, shop.cache.hits() as i64),
            (&self.cache_misses, shop.cache.misses() as i64),
            (&self.cache_entries, shop.cache.entries() as i64),
            (&self.working, shop.admission.working().into()),
            (&self.waiting, shop.admission.waiting().into()),
            (&self.connections, status.size as i64),
            (&self.connection_waiting, status.waiting as i64),
        ] {
            gauge.set(value);
        }
    }
}

/// Answers them.
pub async fn metrics(State(shop): State<Arc<Shop>>) -> Response {
    shop.metrics.refresh(&shop);
    let mut body = String::new();
    if let Err(why) = text::encode(&mut body, &shop.metrics.registry) {
        error!(error = &why as &dyn std::error::Error, "cannot write metrics");
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}
