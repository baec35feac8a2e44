//! virtio-vsock: streams between programs of the guest and of the host (virtio 1.2, 5.10).
//!
//! On the host, a program connects to the device's Unix socket, writes `CONNECT 52\n` and, once
//! the guest's listener on port 52 has accepted, reads `OK 1073741824\n`, the port of its own
//! end; the stream follows. A connection of the guest to port 52 of the host (context id 2) is
//! passed to whoever listens on the Unix socket of that path with `_52` behind. Who runs the machine
//! can serve a port itself ([`Peer`]), without a socket that others see.
//!
//! Packets are taken apart here rather than with the crate virtio-vsock, which works on its own
//! queue type and would see chains before they are judged.

mod ahead;
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

pub use self::host::Peer;
use self::host::{Host, Listener};
use self::switch::Switch;
use super::queue::DeviceQueue;
use super::stats::QueueCounters;
use super::worker::Worker;
use super::{ActivateError, Activation, VirtioDevice};
use crate::backend::unix_socket::SocketError;

/// In statistics and messages.
const NAME: &str = "virtio-vsock";
/// Entries of the queues for what the guest receives, what it sends, and events (5.10.2). Of the first
/// Linux fills each with a page as it comes up: so many hold the window of a connection. It takes 8 of the
/// last.
const QUEUE_SIZES: [u16; 3] = [64, 256, 8];
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
    /// The host refused a setting of the peer's stream.
    #[error("vsock: cannot use the stream of port {port}")]
    Peer {
        /// The port that it serves.
        port: u32,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// A socket device between one guest and the programs of the host.
pub struct VirtioVsock {
    cid: u32,
    host: Option<Host>,
    worker: Option<Worker<Switch>>,
    counters: [Arc<QueueCounters>; 3],
}

impl VirtioVsock {
    /// Makes the socket, if `options` ask for one; it is removed when the device goes. `peer` serves its
    /// port for the guest's first connection to it.
    ///
    /// # Errors
    /// [`VsockError`].
    pub fn open(options: Option<&VsockOptions>, peer: Option<Peer>) -> Result<Self, VsockError> {
        let cid = options.map_or(MIN_CID, |options| options.cid);
        if !(MIN_CID..u32::MAX).contains(&cid) {
            return Err(VsockError::Cid { cid });
        }
        let listener = options.map(|options| Listener::bind(&options.path)).transpose()?;
        let port = peer.as_ref().map_or(0, |peer| peer.port);
        let host = Host::new(listener, peer).map_err(|source| VsockError::Peer { port, source })?;
        Ok(Self { cid, host: Some(host), worker: None, counters: Default::default() })
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
        QUEUE_SIZES.to_vec()
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
        let ends = self.host.take().ok_or_else(|| {
            host("go on after its thread panicked", io::ErrorKind::NotConnected.into())
        })?;
        let switch = Switch::new(self.cid.into(), ends, receive, transmit, events);
        let worker = Worker::spawn(NAME, switch).map_err(|e| host("start its thread", e))?;
        self.worker = Some(worker);
        Ok(())
    }

    fn reset(&mut self) {
        // Connections end with the thread; the socket stays.
        if let Some(switch) = self.worker.take().and_then(Worker::stop) {
            self.host = Some(switch.host);
        }
    }
}
