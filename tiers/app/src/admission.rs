//! How many requests are worked on, and how many wait for that: the rest is turned away at once, while an answer is
//! still of use to somebody.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::ShopError;

/// A bounded number of turns and a bounded queue before them.
#[derive(Debug)]
pub struct Admission {
    turns: Semaphore,
    concurrency: u32,
    queue: u32,
    waiting: AtomicU32,
}

/// One that waits; it is counted until it is dropped, which is also when its client goes away.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// So many at a time, and so many behind them.
    pub fn new(concurrency: u32, queue: u32) -> Self {
        let turns = Semaphore::new(concurrency as usize);
        Self { turns, concurrency, queue, waiting: AtomicU32::new(0) }
    }

    /// Waits for a turn, which lasts until the permit is dropped. Turns come in the order in which they are asked for.
    ///
    /// # Errors
    /// The queue is full.
    pub async fn enter(&self) -> Result<SemaphorePermit<'_>, ShopError> {
        if let Ok(permit) = self.turns.try_acquire() {
            return Ok(permit);
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.queue {
            return Err(ShopError::Busy);
        }
        // The semaphore is never closed.
        self.turns.acquire().await.map_err(|_| ShopError::Busy)
    }

    /// How many are worked on.
    pub fn working(&self) -> u32 {
        self.concurrency.saturating_sub(self.turns.available_permits() as u32)
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_the_queue_full_is_turned_away() {
        let admission = Admission::new(1, 1);
        let first = admission.enter().await.unwrap();
        let second = admission.enter();
        tokio::pin!(second);
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!((admission.working(), admission.waiting()), (1, 1));
        assert!(matches!(admission.enter().await, Err(ShopError::Busy)));
        assert_eq!(admission.waiting(), 1);
        drop(first);
        drop(second.await.unwrap());
        assert_eq!((admission.working(), admission.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn one_that_gives_up_makes_room() {
        let admission = Admission::new(1, 1);
        let _first = admission.enter().await.unwrap();
        {
            let second = admission.enter();
            tokio::pin!(second);
            assert!(futures_util::poll!(&mut second).is_pending());
        }
        assert_eq!(admission.waiting(), 0);
    }
}
