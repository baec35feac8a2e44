//! virtio-vsock: streams between programs of the guest and of the host (virtio 1.2, 5.10).
//!
//! On the host, a program connects to the device's Unix socket, writes `CONNECT 52\n` and, once
//! the guest's listener on port 52 has accepted, reads `OK 1073741824\n`, the port of its own
//! end; the stream follows. A connection of the guest to port 52 of the host (context id 2) is
//! passed to whoever listens on the Unix socket of that path with `_52` behind.
//!
//! Packets are taken apart here rather than with the crate virtio-vsock, which works on its own
//! queue type and would see chains before they are judged.

mod connection;
mod host;
mod packet;
mod switch;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use self::host::Listener;
use self::switch::Switch;
use super::queue::DeviceQueue;
use super::stats::QueueCounters;
use super::worker::Worker;
use super::{ActivateError, Activation, VirtioDevice};
use crate::backend::unix_socket::SocketError;

/// In statistics and messages.
const NAME: &str = "virtio-vsock";
/// Entries of each of the three queues.
const QUEUE_SIZE: u16 = 256;
/// 0 to 2 are reserved (5.10.4).
const MIN_CID: u32 = 3;

/// One `--vsock`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockOptions {
    /// The guest's context id, 3 to 2^32 - 2.
    pub cid: u32,
    /// The Unix socket on the host.
    pub path: PathBuf,
}

/// A device that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// One of the context ids that are reserved (virtio 1.2, 5.10.4).
    #[error("vsock: {cid} cannot be a guest's context id; use {MIN_CID} to {}", u32::MAX - 1)]
    Cid {
        /// What was asked for.
        cid: u32,
    },
    /// The socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
}

/// A socket device between one guest and the programs of the host.
pub struct VirtioVsock {
    cid: u32,
    listener: Option<Listener>,
    worker: Option<Worker<Switch>>,
    counters: [Arc<QueueCounters>; 3],
}

impl VirtioVsock {
    /// Makes the socket. It is removed when the device goes.
    ///
    /// # Errors
    /// [`VsockError`].
    pub fn open(options: &VsockOptions) -> Result<Self, VsockError> {
        let cid = options.cid;
        if !(MIN_CID..u32::MAX).contains(&cid) {
            return Err(VsockError::Cid { cid });
        }
        let listener = Listener::bind(&options.path)?;
        Ok(Self { cid, listener: Some(listener), worker: None, counters: Default::default() })
    }

    /// What counts each queue's work, by queue number.
    pub fn counters(&self) -> Vec<Arc<QueueCounters>> {
        self.counters.to_vec()
    }
}

impl VirtioDevice for VirtioVsock {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        19
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 3]
    }

    fn device_features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let config = u64::from(self.cid).to_le_bytes();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(config.iter().skip(start)) {
            *to = *from;
        }
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {
        // The context id is read-only.
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let host = |action, source| ActivateError::Host { device: NAME, action, source };
        let mut queues = DeviceQueue::from_activation(activation, &self.counters).into_iter();
        let mut queue = |number| {
            let found = queues.next().filter(|queue| queue.index() == number);
            found.ok_or(ActivateError::MissingQueue { device: NAME, queue: number })
        };
        let (receive, transmit, events) = (queue(0)?, queue(1)?, queue(2)?);
        let listener = self.listener.take().ok_or_else(|| {
            host("go on after its thread panicked", io::ErrorKind::NotConnected.into())
        })?;
        let switch = Switch::new(self.cid.into(), listener, receive, transmit, events);
        let worker = Worker::spawn(NAME, switch).map_err(|e| host("start its thread", e))?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        // Connections end with the thread; the socket stays.
        if let Some(switch) = self.worker.take().and_then(Worker::stop) {
            self.listener = Some(switch.listener);
        }
    }
}
