//! What the server is told, by options or by its environment.

use std::net::SocketAddr;
use std::time::Duration;

/// The application server of isolab's shop.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    version,
    after_help = "Example:\n  \
    isolab-shop --database 'host=db user=shop password=shop dbname=shop' --listen 0.0.0.0:8000"
)]
pub struct Config {
    /// Where to listen.
    #[arg(long, env = "SHOP_LISTEN", value_name = "ADDRESS:PORT", default_value = "0.0.0.0:8000")]
    pub listen: SocketAddr,
    /// Ask the server that listens there whether it is ready, and exit with 0 if it is.
    #[arg(long)]
    pub check: bool,
    /// How PostgreSQL is reached, as libpq has it. With several hosts and target_session_attrs=read-write the one
    /// that takes writes is found again after a fail-over.
    #[arg(long, env = "SHOP_DATABASE", value_name = "PARAMETERS", hide_env_values = true)]
    #[arg(default_value = "host=localhost user=shop dbname=shop")]
    pub database: String,
    /// Connections to PostgreSQL at most.
    #[arg(long, env = "SHOP_CONNECTIONS", value_name = "N", default_value_t = 16)]
    pub connections: usize,
    /// How long a request waits for one of them, in milliseconds; then it is answered 503.
    #[arg(long, env = "SHOP_CONNECTION_TIMEOUT", value_name = "MS", default_value = "2000")]
    #[arg(value_parser = milliseconds)]
    pub connection_timeout: Duration,
    /// How long a statement may take, in milliseconds.
    #[arg(long, env = "SHOP_STATEMENT_TIMEOUT", value_name = "MS", default_value = "5000")]
    #[arg(value_parser = milliseconds)]
    pub statement_timeout: Duration,
    /// How many requests are worked on at a time.
    #[arg(long, env = "SHOP_CONCURRENCY", value_name = "N", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub concurrency: u32,
    /// How many more wait for their turn; the next is answered 503 at once.
    #[arg(long, env = "SHOP_QUEUE", value_name = "N", default_value_t = 256)]
    pub queue: u32,
    /// How long a request may take from its turn to its answer, in milliseconds; then it is answered 504.
    #[arg(long, env = "SHOP_REQUEST_TIMEOUT", value_name = "MS", default_value = "10000")]
    #[arg(value_parser = milliseconds)]
    pub request_timeout: Duration,
    /// How many products the cache holds. 0 is no cache.
    #[arg(long, env = "SHOP_CACHE_SIZE", value_name = "N", default_value_t = 10_000)]
    pub cache_size: u64,
    /// How long a product stays in the cache, in milliseconds.
    #[arg(long, env = "SHOP_CACHE_TTL", value_name = "MS", default_value = "30000")]
    #[arg(value_parser = milliseconds)]
    pub cache_ttl: Duration,
    /// How long requests that are under way may take when the server is told to end, in milliseconds.
    #[arg(long, env = "SHOP_STOP_TIMEOUT", value_name = "MS", default_value = "8000")]
    #[arg(value_parser = milliseconds)]
    pub stop_timeout: Duration,
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected milliseconds, 1 or more".to_owned()),
        Ok(count) => Ok(Duration::from_millis(count)),
    }
}
