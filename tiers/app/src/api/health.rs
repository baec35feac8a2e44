//! Whether the server lives, and whether it should be sent requests.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::extract::State;
use axum::http::StatusCode;
use tokio::time::timeout;

use crate::server_timing::ServerTiming;
use crate::shop::Shop;

/// A database that takes longer cannot serve requests either.
const PATIENCE: Duration = Duration::from_secs(1);

/// `GET /health`: it lives.
pub async fn live() -> &'static str {
    "alive\n"
}

/// `GET /ready`: it has a database, and is not about to end.
pub async fn ready(State(shop): State<Arc<Shop>>) -> (StatusCode, &'static str) {
    if shop.is_stopping.load(Ordering::Acquire) {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    let ask = async {
        let connection = shop.database.connection(&ServerTiming::new()).await.ok()?;
        connection.simple_query("SELECT 1").await.ok()
    };
    match timeout(PATIENCE, ask).await {
        Ok(Some(_)) => (StatusCode::OK, "ready\n"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "no database\n"),
    }
}

/// Asks the server that listens at `address` whether it is ready.
///
/// # Errors
/// It is not, or there is none.
pub fn check(mut address: SocketAddr) -> Result<()> {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    let reach = || format!("ask {address}");
    let mut server = TcpStream::connect_timeout(&address, PATIENCE).with_context(reach)?;
    // The server's own limit comes first, so that its answer does.
    server.set_read_timeout(Some(PATIENCE * 2)).with_context(reach)?;
    server.write_all(b"GET /ready HTTP/1.0\r\n\r\n").with_context(reach)?;
    let mut status = [0; 12];
    server.read_exact(&mut status).with_context(reach)?;
    ensure!(status.ends_with(b" 200"), "{address} is not ready");
    Ok(())
}
