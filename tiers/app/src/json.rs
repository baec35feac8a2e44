//! Bodies in JSON. `axum::Json` would do, but for its feature, which has serde_json carry raw values, in every executable
//! that is built along with this one.

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::error;

use crate::error::ShopError;

const TYPE: &str = "application/json";

/// An answer.
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(body) => ([(header::CONTENT_TYPE, TYPE)], body).into_response(),
            Err(why) => {
                error!(error = &why as &dyn std::error::Error, "an answer is no JSON");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

/// What a request says in its body.
///
/// # Errors
/// It is not JSON, does not say so (RFC 9110, 8.3), or something else than expected.
pub fn read<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, ShopError> {
    let told = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let told = told.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !told.trim().eq_ignore_ascii_case(TYPE) {
        return Err(ShopError::Bad(format!("Content-Type: expected {TYPE}")));
    }
    serde_json::from_slice(body).map_err(|error| ShopError::Bad(error.to_string()))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_body_has_to_be_what_it_says_and_what_is_expected() {
        let read = |kind: &'static str, body: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            read::<Vec<u8>>(&headers, body.as_bytes()).map_err(|error| error.to_string())
        };
        assert_eq!(read("application/json", "[1, 2]"), Ok(vec![1, 2]));
        assert_eq!(read("Application/JSON; charset=utf-8", "[]"), Ok(vec![]));
        assert!(read("text/plain", "[]").unwrap_err().contains("expected application/json"));
        assert!(read("application/json", "{}").unwrap_err().contains("expected a sequence"));
        assert!(super::read::<u8>(&HeaderMap::new(), b"1").is_err());
    }
}
