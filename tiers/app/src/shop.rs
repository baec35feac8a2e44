//! What all requests share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::admission::Admission;
use crate::cache::ProductCache;
use crate::config::Config;
use crate::database::Database;
use crate::metrics::Metrics;

/// The state of the server.
#[derive(Debug)]
pub struct Shop {
    /// When the server started.
    pub started: Instant,
    /// Whether it was told to end.
    pub is_stopping: AtomicBool,
    /// Who may be worked on.
    pub admission: Admission,
    /// What need not be asked again.
    pub cache: Arc<ProductCache>,
    /// What has to be asked.
    pub database: Database,
    /// What happened.
    pub metrics: Metrics,
    /// How long a request may take from its turn to its answer.
    pub request_timeout: Duration,
}

impl Shop {
    /// One that has served nobody yet.
    ///
    /// # Errors
    /// The options cannot be understood.
    pub fn new(config: &Config) -> Result<Self> {
        Ok(Self {
            started: Instant::now(),
            is_stopping: AtomicBool::new(false),
            admission: Admission::new(config.concurrency, config.queue),
            cache: Arc::new(ProductCache::new(config)),
            database: Database::new(config)?,
            metrics: Metrics::default(),
            request_timeout: config.request_timeout,
        })
    }
}
