//! What nginx says of the request: its line of the access log (`tiers/web/nginx.conf`).

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, Result};
use isolab_instances::log::{self, LogQuery};
use isolab_instances::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::PATIENCE;
use crate::site::Member;

/// A line. Of several servers that were tried for a request, lists have a value each, commas between.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct WebLine {
    /// The request's id, which the answer has as well.
    pub id: String,
    /// Bytes of the request.
    pub received: u64,
    /// Bytes of the answer.
    pub sent: u64,
    /// From the first byte read to the last one written; to a millisecond.
    pub seconds: f64,
    /// Which application servers were asked; empty if none was.
    pub upstream: String,
    /// How long connections to them took, in seconds; 0 where one was kept.
    pub connect: String,
    /// Until their answers' heads were there, in seconds.
    pub header: String,
    /// Bytes sent to them.
    pub upstream_sent: String,
    /// Bytes received from them.
    pub upstream_received: String,
}

impl WebLine {
    /// The application server that answered: the last that was asked.
    pub fn upstream_address(&self) -> Option<SocketAddr> {
        self.last(&self.upstream)?.parse().ok()
    }

    /// Bytes to and from it.
    pub fn upstream_bytes(&self) -> Option<(u64, u64)> {
        let number = |list| self.last(list)?.parse().ok();
        number(&self.upstream_sent).zip(number(&self.upstream_received))
    }

    /// How many servers were tried.
    pub fn tries(&self) -> usize {
        self.upstream.split(", ").filter(|it| !it.is_empty()).count()
    }

    fn last<'a>(&self, list: &'a str) -> Option<&'a str> {
        list.rsplit([',', ' ']).next().filter(|it| !it.is_empty())
    }
}

/// The line of the request with this id, which is written when the answer has gone.
///
/// # Errors
/// It does not come.
pub fn find(web: &Member, since: Timestamp, id: &str) -> Result<WebLine> {
    let deadline = Instant::now() + PATIENCE;
    let query = LogQuery { since: Some(since), follow: true, ..LogQuery::default() };
    let mut found = None;
    let take = |entry: &log::LogEntry| {
        let line = serde_json::from_slice::<WebLine>(&entry.text).ok();
        found = line.filter(|line| line.id == id);
        found.is_none()
    };
    log::read(&web.instance.entry.path, &query, take, || Instant::now() > deadline)?;
    found.with_context(|| format!("nginx has logged no request `{id}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_that_answered_is_the_last_that_was_asked() {
        let line = r#"{"id":"33","time":"2026-11-28T07:27:09+00:00","client":"10.210.0.1",
            "request":"GET /api/products/7 HTTP/1.1","status":200,"received":92,"sent":604,"seconds":0.002,
            "upstream":"10.210.0.2:8000, 10.210.0.3:8000","connect":"-, 0.001","header":"-, 0.002",
            "response":"0.000, 0.002","upstream_sent":"0, 164","upstream_received":"0, 491"}"#;
        let line: WebLine = serde_json::from_str(line).unwrap();
        assert_eq!(line.upstream_address(), "10.210.0.3:8000".parse().ok());
        assert_eq!((line.upstream_bytes(), line.tries()), (Some((164, 491)), 2));
        let none = WebLine::default();
        assert_eq!((none.upstream_address(), none.upstream_bytes(), none.tries()), (None, None, 0));
    }
}
