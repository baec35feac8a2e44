//! An HTTP client that tells when what happened: one connection, one request at a time.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer of the shop is nearly as long.
const LARGEST_ANSWER: usize = 16 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody takes connections there.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It took longer than it may.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The other side closed the connection, or spoke no HTTP.
    #[error("the connection ended before the answer")]
    Broken(#[source] hyper::Error),
    /// The body ended early, or was longer than it may be.
    #[error("the answer's body is not whole")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// GET or POST.
    pub method: Method,
    /// Path and query, as they go over the wire.
    pub path: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// JSON, or nothing.
    pub body: String,
}

impl Ask {
    /// Whether it may be asked twice (RFC 9110, 9.2.2). An order may as well, by its key, but no client that does not
    /// know that would.
    pub fn is_idempotent(&self) -> bool {
        self.method.is_idempotent()
    }

    /// GET of this path.
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: String::new() }
    }
}

/// An answer, and when its parts came.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When the request began to be written.
    pub sent: Instant,
    /// When the head was there.
    pub first: Instant,
    /// When the last byte was.
    pub last: Instant,
}

impl Answer {
    /// A header as text; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A connection that is kept.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
    limit: Duration,
}

impl Connection {
    /// Connects; `limit` is that of the connection, and of each request then.
    ///
    /// # Errors
    /// Nobody is there.
    pub async fn open(address: SocketAddr, limit: Duration) -> Result<Self, HttpError> {
        let stream = timeout(limit, TcpStream::connect(address)).await;
        let stream = stream.map_err(|_| HttpError::TimedOut(limit))?;
        let connect = |source| HttpError::Connect { address, source };
        let stream = stream.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(HttpError::Broken)?;
        // Its failures are the requests' too.
        tokio::spawn(connection);
        let host = HeaderValue::try_from(address.to_string());
        let host = host.unwrap_or(HeaderValue::from_static("shop"));
        Ok(Self { sender, host, limit })
    }

    /// Whether the other side still takes requests: what it closed meanwhile is opened again, and no failure.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Asks, and waits for the whole answer.
    ///
    /// # Errors
    /// There is none.
    pub async fn ask(&mut self, ask: &Ask) -> Result<Answer, HttpError> {
        let limit = self.limit;
        let answer = timeout(limit, self.exchange(ask)).await;
        answer.map_err(|_| HttpError::TimedOut(limit))?
    }

    async fn exchange(&mut self, ask: &Ask) -> Result<Answer, HttpError> {
        let request = request(ask, &self.host);
        let sent = Instant::now();
        let response = self.sender.send_request(request).await.map_err(HttpError::Broken)?;
        let first = Instant::now();
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LARGEST_ANSWER).collect().await.map_err(HttpError::Body)?;
        let (body, last) = (body.to_bytes(), Instant::now());
        Ok(Answer { status: head.status, headers: head.headers, body, sent, first, last })
    }
}

fn request(ask: &Ask, host: &HeaderValue) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(Bytes::from(ask.body.clone())));
    *request.method_mut() = ask.method.clone();
    // `check_path` was asked before.
    *request.uri_mut() = ask.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(HOST, host.clone());
    if !ask.body.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in &ask.headers {
        headers.extend(
            HeaderValue::from_str(value)
                .ok()
                .map(|value| (hyper::header::HeaderName::from_static(name), value)),
        );
    }
    request
}

/// Reads a path with its query from the command line.
///
/// # Errors
/// What is wrong with it.
pub fn check_path(text: &str) -> Result<String, String> {
    let uri: hyper::Uri = text.parse().map_err(|error| format!("{error}"))?;
    match uri.path_and_query() {
        Some(_) if text.starts_with('/') && uri.authority().is_none() => Ok(text.to_owned()),
        _ => Err("expected a path such as /api/products/7".to_owned()),
    }
}

/// Asks on a connection of its own, and reads the answer as JSON.
///
/// # Errors
/// There is no answer, or it is no success.
pub async fn get_json(
    address: SocketAddr,
    path: &str,
    limit: Duration,
) -> anyhow::Result<serde_json::Value> {
    let answer = Connection::open(address, limit).await?.ask(&Ask::get(path)).await?;
    anyhow::ensure!(answer.status.is_success(), "{address} answers {}", answer.status);
    Ok(serde_json::from_slice(&answer.body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_path() {
        for good in ["/", "/api/products?q=oak+lamp", "/api/products/7"] {
            assert_eq!(check_path(good).unwrap(), good);
        }
        for bad in ["", "api", "http://host/", "//host/x y", "/a b", "*"] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
