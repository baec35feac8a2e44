//! What a request can be answered besides what it asked for.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deadpool_postgres::PoolError;
use serde_json::json;
use tracing::error;

use crate::json::Json;

/// Why a request is not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    /// The request itself is at fault; the text says where.
    #[error("{0}")]
    Bad(String),
    /// There is nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// It would be answered at another time or in another state of the shop.
    #[error("{0}")]
    Conflict(String),
    /// The idempotency key names another order.
    #[error("the idempotency key belongs to another order")]
    KeyReused,
    /// As many requests wait as may.
    #[error("too many requests are waiting")]
    Busy,
    /// The request was under way for too long.
    #[error("the request took too long")]
    TimedOut,
    /// There is no connection to the database.
    #[error("the database cannot be reached")]
    Unreachable(#[from] PoolError),
    /// The database did not do what it was asked.
    #[error("the database failed")]
    Database(#[from] tokio_postgres::Error),
    /// Another request asked for the same, and this became of it.
    #[error(transparent)]
    Shared(Arc<ShopError>),
    /// Something of ours broke.
    #[error("the server failed")]
    Internal(#[from] tokio::task::JoinError),
}

/// How long a client that was turned away should wait, in seconds.
const RETRY_AFTER: &str = "1";

impl ShopError {
    /// The status that says it.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy | Self::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(error) if is_passing(error) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Shared(error) => error.status(),
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::Database(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Whether the database was lost, goes down or comes up, or undid a transaction for another's sake: the same
/// request may well be answered a moment later.
fn is_passing(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    // Class 57 is operator intervention, a statement's timeout among it; class 08 is the connection's.
    error.is_closed()
        || error.code().is_some_and(|code| {
            code.code().starts_with("57")
                || code.code().starts_with("08")
                || *code == SqlState::T_R_SERIALIZATION_FAILURE
                || *code == SqlState::T_R_DEADLOCK_DETECTED
        })
}

impl IntoResponse for ShopError {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            // Clients are not told of our inside; the log is.
            error!(error = &self as &dyn std::error::Error, "request failed");
        }
        let mut response = (status, Json(json!({ "error": self.to_string() }))).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            let seconds = HeaderValue::from_static(RETRY_AFTER);
            response.headers_mut().insert(header::RETRY_AFTER, seconds);
        }
        response
    }
}
