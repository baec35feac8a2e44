//! `GET /clock`: what time it is here. A guest's clock is not its host's: who follows a request through both asks
//! several times, and takes the difference as NTP does (RFC 5905, 8).

use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderName;

/// When a request arrived, by our clock; on each answer below /api.
pub const ARRIVED: HeaderName = HeaderName::from_static("shop-arrived");

/// Nanoseconds since 1970. Before that, and from the year 2554 on, it is 0.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or_default()
}

/// Answers it, in nanoseconds since 1970.
pub async fn clock() -> String {
    now().to_string()
}
