//! Asking a registry again.
//!
//! A registry that is overloaded (429) or ill (5xx), and a connection that breaks, are a matter of
//! time; other refusals are an answer. oci-client does not show an answer's Retry-After, so that the
//! waits, doubled and more each time, are ours.

use std::time::Duration;

use oci_client::errors::{OciDistributionError, OciErrorCode};

use crate::RegistryError;
use crate::connection::Connection;

/// Attempts at one request: the waits between them sum up to 12 seconds.
pub(crate) const ATTEMPTS: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(300);

impl Connection {
    /// Makes a request until it succeeds, is refused, or has failed too often.
    pub(crate) async fn ask<T, F>(&self, mut request: impl FnMut() -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, OciDistributionError>>,
    {
        let mut attempt = 1;
        loop {
            match request().await {
                Err(error) if attempt < ATTEMPTS && is_passing(&error) => wait(attempt).await,
                other => return other.map_err(|error| self.failed(error)),
            }
            attempt += 1;
        }
    }
}

/// Waits after the attempt of that number.
pub(crate) async fn wait(attempt: u32) {
    tokio::time::sleep(FIRST_WAIT * 3u32.pow(attempt - 1)).await;
}

/// Whether trying again may help.
pub(crate) fn is_passing(error: &OciDistributionError) -> bool {
    match error {
        OciDistributionError::ServerError { code, .. } => is_passing_status(*code),
        OciDistributionError::RegistryError { envelope, .. } => {
            envelope.errors.iter().any(|error| error.code == OciErrorCode::Toomanyrequests)
        }
        OciDistributionError::RequestError(error) => match error.status() {
            Some(status) => is_passing_status(status.as_u16()),
            // One that does not listen, or shows the wrong certificate, will not in a second either.
            None => error.is_timeout() || !(error.is_connect() || error.is_builder()),
        },
        // A blob's stream breaks so.
        OciDistributionError::IoError(_) => true,
        // All that is known of the token server's answer is its text.
        OciDistributionError::AuthenticationFailure(text) => is_passing_text(text),
        _ => false,
    }
}

fn is_passing_status(code: u16) -> bool {
    matches!(code, 408 | 429 | 500 | 502 | 503 | 504)
}

/// Whether an error's page or document names one of these conditions.
fn is_passing_text(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    [
        "toomanyrequests",
        "too many requests",
        "internal server error",
        "bad gateway",
        "service unavailable",
        "service temporarily unavailable",
        "gateway timeout",
        "gateway time-out",
    ]
    .iter()
    .any(|condition| text.contains(condition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_passes_is_tried_again() {
        let status = |code| OciDistributionError::ServerError {
            code,
            url: String::new(),
            message: String::new(),
        };
        for code in [429, 500, 502, 503, 504] {
            assert!(is_passing(&status(code)), "{code}");
        }
        for code in [400, 401, 403, 404, 501] {
            assert!(!is_passing(&status(code)), "{code}");
        }
        let envelope = |code: &str| {
            let text = format!(r#"{{"errors": [{{"code": "{code}", "message": "m"}}]}}"#);
            let envelope = serde_json::from_str(&text).unwrap();
            OciDistributionError::RegistryError { envelope, url: String::new() }
        };
        assert!(is_passing(&envelope("TOOMANYREQUESTS")));
        assert!(!is_passing(&envelope("MANIFEST_UNKNOWN")));
        let token = |text: &str| OciDistributionError::AuthenticationFailure(text.to_owned());
        assert!(is_passing(&token("<h1>503 Service Temporarily Unavailable</h1>")));
        assert!(is_passing(&token(r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#)));
        assert!(!is_passing(&token(r#"{"details":"incorrect username or password"}"#)));
        assert!(!is_passing(&token("")));
    }
}
