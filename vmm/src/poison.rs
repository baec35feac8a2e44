//! Locks that a panic elsewhere does not close.

use std::sync::{LockResult, PoisonError};

/// What a lock or a wait on one gives, also after a thread has panicked with it.
///
/// The values under our locks are plain and never left half changed across anything that could
/// panic, and a device that is lost must not take the machine's others with it.
pub fn unpoisoned<T>(result: LockResult<T>) -> T {
    result.unwrap_or_else(PoisonError::into_inner)
}
