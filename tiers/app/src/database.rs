//! PostgreSQL: a pool of connections, and one more that hears of changes.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Status};
use tokio::time::sleep;
use tokio_postgres::{AsyncMessage, Connection, NoTls, Socket, tls::NoTlsStream};
use tracing::{info, warn};

use crate::cache::ProductCache;
use crate::config::Config;
use crate::error::ShopError;
use crate::server_timing::{Part, ServerTiming};

/// Where orders announce the products that they changed (NOTIFY).
pub const CHANGES: &str = "product";

/// Until a host that vanished without a word is given up.
const USER_TIMEOUT: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Between two attempts to hear of changes again.
const LISTEN_AGAIN: Duration = Duration::from_millis(500);

/// The database.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Pool,
    parameters: tokio_postgres::Config,
}

impl Database {
    /// Reads how it is reached; nothing is connected yet, so that it may come up after us.
    ///
    /// # Errors
    /// The parameters cannot be understood.
    pub fn new(config: &Config) -> Result<Self> {
        let parameters = config.database.parse::<tokio_postgres::Config>();
        let mut parameters = parameters.context("--database")?;
        let limit = config.statement_timeout.as_millis();
        // One host that hangs is not to take the time of the next one, which may be the one that writes now.
        let hosts = u32::try_from(parameters.get_hosts().len()).unwrap_or(u32::MAX).max(1);
        let connect_timeout = config.connection_timeout / hosts;
        // TCP's own retransmission would hold a request for minutes.
        parameters
            .application_name("isolab-shop")
            .options(format!("-c statement_timeout={limit}"))
            .connect_timeout(connect_timeout)
            .tcp_user_timeout(USER_TIMEOUT)
            .keepalives_idle(KEEPALIVE);
        // A connection that the database closed is seen as closed; whether the others live need not be asked each time.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(parameters.clone(), NoTls, recycling);
        let pool = Pool::builder(manager)
            .max_size(config.connections)
            .wait_timeout(Some(config.connection_timeout))
            .create_timeout(Some(config.connection_timeout + connect_timeout / 2))
            .runtime(Runtime::Tokio1);
        Ok(Self { pool: pool.build().context("the pool of connections")?, parameters })
    }

    /// A connection, given back when it is dropped.
    ///
    /// # Errors
    /// None was free in time, or the database cannot be reached.
    pub async fn connection(&self, timing: &ServerTiming) -> Result<Object, ShopError> {
        Ok(timing.measure(Part::Pool, self.pool.get()).await?)
    }

    /// How many connections there are, and who waits for one.
    pub fn status(&self) -> Status {
        self.pool.status()
    }

    /// Hears of changes and drops what is old from the cache; for ever.
    pub async fn invalidate(self, cache: Arc<ProductCache>) {
        loop {
            if let Err(error) = self.hear_changes(&cache).await {
                let why: &dyn std::error::Error = &error;
                warn!(error = why, "cannot hear of changed products; the cache ages by itself");
            }
            sleep(LISTEN_AGAIN).await;
        }
    }

    async fn hear_changes(&self, cache: &ProductCache) -> Result<(), tokio_postgres::Error> {
        let (client, mut connection) = self.parameters.connect(NoTls).await?;
        let listen = format!("LISTEN {CHANGES}");
        let listen = client.batch_execute(&listen);
        tokio::pin!(listen);
        let mut is_listening = false;
        loop {
            tokio::select! {
                heard = &mut listen, if !is_listening => {
                    heard?;
                    is_listening = true;
                    // What was announced before is lost.
                    cache.invalidate_all();
                    info!("hearing of changed products");
                }
                message = next(&mut connection) => match message {
                    Some(Ok(AsyncMessage::Notification(changed))) => {
                        for id in changed.payload().split(',').filter_map(|id| id.parse().ok()) {
                            cache.invalidate(id).await;
                        }
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                    None => return Ok(()),
                },
            }
        }
    }
}

async fn next(
    connection: &mut Connection<Socket, NoTlsStream>,
) -> Option<Result<AsyncMessage, tokio_postgres::Error>> {
    poll_fn(|context| connection.poll_message(context)).await
}
