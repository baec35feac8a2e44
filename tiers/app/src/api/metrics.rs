//! `GET /metrics`: the server's counters in OpenMetrics' text format, which Prometheus reads.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use tracing::error;

use crate::shop::Shop;

/// Answers them.
pub async fn metrics(State(shop): State<Arc<Shop>>) -> Response {
    shop.metrics.refresh(&shop.admission, &shop.cache, &shop.database);
    let body = match shop.metrics.text() {
        Ok(body) => body,
        Err(why) => {
            error!(error = &why as &dyn std::error::Error, "cannot write metrics");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}
