//! `GET /api/stats`: what an operator wants to see of the shop at a glance.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use serde::Serialize;

use crate::error::ShopError;
use crate::json::Json;
use crate::server_timing::{Part, ServerTiming};
use crate::shop::Shop;

/// All of it.
#[derive(Debug, Serialize)]
pub struct Stats {
    /// Since the server's start.
    uptime_seconds: u64,
    requests: Requests,
    cache: Cache,
    connections: Connections,
    database: Tables,
}

#[derive(Debug, Serialize)]
struct Requests {
    /// Since the server's start, this one not counted.
    answered: u64,
    working: u32,
    waiting: u32,
}

#[derive(Debug, Serialize)]
struct Cache {
    hits: u64,
    misses: u64,
    entries: u64,
}

#[derive(Debug, Serialize)]
struct Connections {
    open: usize,
    most: usize,
    waiting: usize,
}

#[derive(Debug, Serialize)]
struct Tables {
    /// Of the database that was asked; none where it is reached without a network.
    address: Option<String>,
    products: i64,
    orders: i64,
    /// Blocks that were in PostgreSQL's buffers, and blocks that were read, since its statistics began.
    buffer_hits: i64,
    buffer_reads: i64,
    /// Transactions that were committed, likewise.
    transactions: i64,
}

/// Answers them.
pub async fn stats(
    State(shop): State<Arc<Shop>>,
    Extension(timing): Extension<ServerTiming>,
) -> Result<Json<Stats>, ShopError> {
    let connection = shop.database.connection(&timing).await?;
    let ask = async {
        let text = "SELECT (SELECT count(*) FROM product), (SELECT count(*) FROM shop_order), \
                    blks_hit, blks_read, xact_commit, host(inet_server_addr()) FROM pg_stat_database WHERE datname = current_database()";
        let statement = connection.prepare_cached(text).await?;
        connection.query_one(&statement, &[]).await
    };
    let row = timing.measure(Part::Database, ask).await?;
    let status = shop.database.status();
    Ok(Json(Stats {
        uptime_seconds: shop.started.elapsed().as_secs(),
        requests: Requests {
            answered: shop.metrics.answered(),
            working: shop.admission.working(),
            waiting: shop.admission.waiting(),
        },
        cache: Cache {
            hits: shop.cache.hits(),
            misses: shop.cache.misses(),
            entries: shop.cache.entries(),
        },
        connections: Connections {
            open: status.size,
            most: status.max_size,
            waiting: status.waiting,
        },
        database: Tables {
            address: row.try_get(5)?,
            products: row.try_get(0)?,
            orders: row.try_get(1)?,
            buffer_hits: row.try_get(2)?,
            buffer_reads: row.try_get(3)?,
            transactions: row.try_get(4)?,
        },
    }))
}
