//! Products that were asked for of late. What an order changes is announced by the database to each application
//! server, so that none shows an old stock for longer than the announcement takes; if the announcements
//! fail, for no longer than the time to live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::future::Cache;

use crate::config::Config;
use crate::error::ShopError;
use crate::product::Product;
use crate::server_timing::{Part, ServerTiming};

/// None is a product that does not exist, which is remembered as well.
type Entry = Option<Arc<Product>>;

/// The cache, and what became of the questions to it.
#[derive(Debug)]
pub struct ProductCache {
    entries: Cache<i64, Entry>,
    hits: AtomicU64,
    misses: AtomicU64,
    /// How often entries were invalidated. An answer of the database that may be older than an invalidation is not kept.
    invalidations: AtomicU64,
}

impl ProductCache {
    /// An empty one.
    pub fn new(config: &Config) -> Self {
        let entries = Cache::builder().max_capacity(config.cache_size);
        Self {
            entries: entries.time_to_live(config.cache_ttl).build(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            invalidations: AtomicU64::new(0),
        }
    }

    /// The product, from the cache or by `load`; of several requests for one that is missing, one loads it and the
    /// others wait.
    ///
    /// # Errors
    /// `load`'s.
    pub async fn get(
        &self,
        id: i64,
        timing: &ServerTiming,
        load: impl Future<Output = Result<Option<Product>, ShopError>>,
    ) -> Result<Entry, ShopError> {
        if let Some(entry) = timing.measure(Part::Cache, self.entries.get(&id)).await {
            self.hits.fetch_add(1, Ordering::Relaxed);
            timing.set_hit(true);
            return Ok(entry);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        timing.set_hit(false);
        let before = self.invalidations.load(Ordering::Acquire);
        let load = async { Ok::<_, ShopError>(load.await?.map(Arc::new)) };
        let entry = self.entries.try_get_with(id, load).await;
        if self.invalidations.load(Ordering::Acquire) != before {
            self.entries.invalidate(&id).await;
        }
        entry.map_err(ShopError::Shared)
    }

    /// Forgets a product.
    pub async fn invalidate(&self, id: i64) {
        self.invalidations.fetch_add(1, Ordering::Release);
        self.entries.invalidate(&id).await;
    }

    /// Forgets all.
    pub fn invalidate_all(&self) {
        self.invalidations.fetch_add(1, Ordering::Release);
        self.entries.invalidate_all();
    }

    /// Questions that it answered.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Questions that went to the database.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// How many products it has, more or less.
    pub fn entries(&self) -> u64 {
        self.entries.entry_count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn cache() -> ProductCache {
        ProductCache::new(&Config::parse_from(["isolab-shop", "--database", ""]))
    }

    fn product(stock: i64) -> Product {
        Product { id: 1, stock, ..Product::default() }
    }

    #[tokio::test]
    async fn the_second_question_does_not_load() {
        let (cache, timing) = (cache(), ServerTiming::new());
        let first = cache.get(1, &timing, async { Ok(Some(product(3))) }).await.unwrap();
        let again = cache.get(1, &timing, async { panic!("loaded again") }).await.unwrap();
        assert_eq!(first.unwrap().stock, again.unwrap().stock);
        assert_eq!((cache.hits(), cache.misses()), (1, 1));
        let none = cache.get(2, &timing, async { Ok(None) }).await.unwrap();
        assert!(none.is_none());
    }

    #[tokio::test]
    async fn an_answer_older_than_an_invalidation_is_not_kept() {
        let (cache, timing) = (cache(), ServerTiming::new());
        let load = async {
            let read = product(3);
            // An order is committed and announced before the answer has come back.
            cache.invalidate(1).await;
            Ok(Some(read))
        };
        cache.get(1, &timing, load).await.unwrap();
        let now = cache.get(1, &timing, async { Ok(Some(product(2))) }).await.unwrap();
        assert_eq!(now.unwrap().stock, 2);
    }

    #[tokio::test]
    async fn a_failure_is_not_remembered() {
        let (cache, timing) = (cache(), ServerTiming::new());
        let failed = cache.get(1, &timing, async { Err(ShopError::TimedOut) }).await;
        assert_eq!(failed.unwrap_err().status(), ShopError::TimedOut.status());
        assert!(cache.get(1, &timing, async { Ok(Some(product(1))) }).await.unwrap().is_some());
    }
}
