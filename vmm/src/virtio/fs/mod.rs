//! virtio-fs (virtio 1.2, 5.11): a folder of the host as a file system of the guest, by FUSE requests in
//! virtqueues.
//!
//! From the outside in: [`worker`] has the queues, [`request`] takes a request out of a chain,
//! [`dispatch`] has it served, and [`operations`] know what each says, of a [`session`]. What happens on the host is
//! [`share`](crate::backend::share)'s.

mod dispatch;
#[cfg(test)]
mod lock_tests;
mod operations;
mod protocol;
mod request;
mod session;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::Arc;

use self::session::Session;
use self::worker::FsWorker;
use super::queue::DeviceQueue;
use super::stats::QueueCounters;
use super::worker::Worker;
use super::{ActivateError, Activation, BASE_FEATURES, VirtioDevice, read_config_bytes};
use crate::backend::share::{Budget, MAX_TAG_LENGTH, Share, ShareError, ShareOptions};

const NAME: &str = "virtio-fs";
/// `VIRTIO_ID_FS` (virtio 1.2, 5).
const DEVICE_TYPE: u32 = 26;
/// For what the guest forgets, and for requests. Before Linux 6.11 a guest uses one of these.
const QUEUES: usize = 2;
const REQUEST_QUEUES: u32 = 1;
/// Entries of each: enough for a request of 256 pages with its headers.
const QUEUE_SIZE: u16 = 512;

/// A shared folder as a virtio device.
pub struct VirtioFs {
    session: Arc<Session>,
    configuration: [u8; MAX_TAG_LENGTH + 4],
    worker: Option<Worker<FsWorker>>,
    counters: [Arc<QueueCounters>; QUEUES],
}

impl VirtioFs {
    /// Opens the folder, whose files are held within `budget`.
    ///
    /// # Errors
    /// [`ShareError`].
    pub fn open(options: &ShareOptions, budget: Budget) -> Result<Self, ShareError> {
        let share = Share::open(options, budget)?;
        let mut configuration = [0; MAX_TAG_LENGTH + 4];
        // Not longer, as `Share::open` has seen.
        configuration[..options.tag.len()].copy_from_slice(options.tag.as_bytes());
        configuration[MAX_TAG_LENGTH..].copy_from_slice(&REQUEST_QUEUES.to_le_bytes());
        let session = Arc::new(Session::new(share, options.cache));
        Ok(Self { session, configuration, worker: None, counters: Default::default() })
    }

    /// What each queue did, by number.
    pub fn counters(&self) -> Vec<Arc<QueueCounters>> {
        self.counters.to_vec()
    }
}

impl VirtioDevice for VirtioFs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        DEVICE_TYPE
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; QUEUES]
    }

    fn device_features(&self) -> u64 {
        BASE_FEATURES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        read_config_bytes(&self.configuration, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let queues = DeviceQueue::from_activation(activation, &self.counters);
        for number in 0..QUEUES as u16 {
            if !queues.iter().any(|queue| queue.index() == number) {
                return Err(ActivateError::MissingQueue { device: NAME, queue: number });
            }
        }
        let worker = FsWorker::new(queues, &self.session);
        let worker = worker.and_then(|worker| Worker::spawn(NAME, worker));
        self.worker = Some(worker.map_err(|source| ActivateError::Host {
            device: NAME,
            action: "start its thread",
            source,
        })?);
        Ok(())
    }

    fn reset(&mut self) {
        self.worker = None;
        self.session.share().clear();
    }
}
