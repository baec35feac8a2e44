//! What a queue did: counted by the device's thread, read by anyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// Counters of one queue. Relaxed: each is exact, together they are not a snapshot of one moment.
#[derive(Debug, Default)]
pub struct QueueCounters {
    requests: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    notifications: AtomicU64,
    interrupts: AtomicU64,
}

/// The values of [`QueueCounters`] at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Descriptor chains completed.
    pub requests: u64,
    /// Bytes of payload moved in either direction.
    pub bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Times the driver's notification woke the device.
    pub notifications: u64,
    /// Interrupts sent to the driver.
    pub interrupts: u64,
}

/// What the queues of a device did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStats {
    /// Where it is on the bus, and its name.
    pub device: String,
    /// Each queue, by its number.
    pub queues: Vec<QueueStats>,
}

impl QueueCounters {
    /// One chain completed that carried `bytes` of payload.
    pub fn request(&self, bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a request that failed.
    pub fn error(&self) {
        self.errors.fetch_add(1, Ordering::Relaxed);
    }

    /// The driver notified the device.
    pub fn notification(&self) {
        self.notifications.fetch_add(1, Ordering::Relaxed);
    }

    /// The device interrupted the driver.
    pub fn interrupt(&self) {
        self.interrupts.fetch_add(1, Ordering::Relaxed);
    }

    /// The values now.
    pub fn snapshot(&self) -> QueueStats {
        QueueStats {
            requests: self.requests.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            notifications: self.notifications.load(Ordering::Relaxed),
            interrupts: self.interrupts.load(Ordering::Relaxed),
        }
    }
}

/// The counters of all devices of a machine, by name.
#[derive(Clone, Debug, Default)]
pub struct DeviceCounters(Arc<[(String, Vec<Arc<QueueCounters>>)]>);

impl DeviceCounters {
    /// The values now.
    pub fn snapshot(&self) -> Vec<DeviceStats> {
        let stats = self.0.iter().map(|(device, queues)| DeviceStats {
            device: device.clone(),
            queues: queues.iter().map(|queue| queue.snapshot()).collect(),
        });
        stats.collect()
    }
}

impl From<Vec<(String, Vec<Arc<QueueCounters>>)>> for DeviceCounters {
    fn from(counters: Vec<(String, Vec<Arc<QueueCounters>>)>) -> Self {
        Self(counters.into())
    }
}
