//! virtio 1.2 devices: what a device shows its transport (PCI or MMIO), and what the transport
//! hands the device when the driver is ready.

pub mod balloon;
pub mod block;
pub mod chain;
pub mod console;
pub mod fs;
pub mod log;
pub mod net;
pub mod polling;
pub mod queue;
pub mod rng;
pub mod service;
pub mod slots;
pub mod stats;
#[cfg(test)]
pub(crate) mod testing;
pub mod transport;
pub mod vsock;
pub mod worker;

use std::sync::Arc;

use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use self::log::DeviceLog;
use crate::irq::VirtioInterrupt;
use crate::memory::GuestRam;

/// The features that every device here offers.
pub const BASE_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// Answers [`VirtioDevice::read_config`] from the configuration's bytes.
pub fn read_config_bytes(configuration: &[u8], offset: u64, data: &mut [u8]) {
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|offset| configuration.get(offset..))
        .unwrap_or_default();
    let length = rest.len().min(data.len());
    data[..length].copy_from_slice(&rest[..length]);
}

/// A virtqueue the driver has set up, given to the device for as long as it is active.
pub struct ActiveQueue {
    /// Number of the queue in its device, from 0.
    pub index: u16,
    /// Rings and size, already validated against guest RAM. Owned by the device's thread.
    pub queue: Queue,
    /// Readable when the driver notified the queue (an ioeventfd).
    pub notify: EventFd,
}

/// Everything a device needs to work, handed over when the driver sets DRIVER_OK
/// (virtio 1.2, 3.1.1).
pub struct Activation {
    /// Where the queues and buffers are.
    pub memory: GuestRam,
    /// Features that both sides agreed on, VIRTIO_F_VERSION_1 always among them.
    pub features: u64,
    /// The queues the driver enabled, in order of their numbers.
    pub queues: Vec<ActiveQueue>,
    /// How to reach the driver.
    pub interrupt: Arc<dyn VirtioInterrupt>,
    /// How to reach the operator.
    pub log: Arc<DeviceLog>,
}

/// Why a device could not start working; the transport marks it DEVICE_NEEDS_RESET.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver left out a queue that the device cannot do without.
    #[error("{device}: the driver did not enable queue {queue}")]
    MissingQueue {
        /// The device's name in statistics.
        device: &'static str,
        /// Number of the queue in its device, from 0.
        queue: u16,
    },
    /// The host refused something.
    #[error("{device}: cannot {action}")]
    Host {
        /// The device's name in statistics.
        device: &'static str,
        /// What was attempted: a verb and its object.
        action: &'static str,
        /// The host's answer.
        #[source]
        source: std::io::Error,
    },
}

/// One virtio device, independent of its transport.
///
/// The transport calls these from vCPU threads, under its lock, so none may block on the guest.
/// The work is done on threads that [`VirtioDevice::activate`] starts and
/// [`VirtioDevice::reset`] stops and joins.
pub trait VirtioDevice: Send {
    /// The device's name in statistics and errors, for example `virtio-blk`.
    fn name(&self) -> &'static str;

    /// virtio 1.2, chapter 5: 1 network, 2 block, 3 console, 4 entropy, 5 balloon, 19 socket,
    /// 26 file system.
    fn device_type(&self) -> u32;

    /// The largest size of each queue; the length is the number of queues. Powers of two.
    fn queue_sizes(&self) -> Vec<u16>;

    /// The features offered. The transport adds nothing, so VIRTIO_F_VERSION_1,
    /// RING_INDIRECT_DESC and RING_EVENT_IDX are in here.
    fn device_features(&self) -> u64;

    /// Reads the device configuration. Beyond its end `data` stays untouched (zeroes).
    fn read_config(&self, offset: u64, data: &mut [u8]);

    /// Writes the device configuration; read-only fields ignore it.
    fn write_config(&mut self, offset: u64, data: &[u8]);

    /// The driver is ready: take the queues and start.
    ///
    /// # Errors
    /// [`ActivateError`]; the device is then as after a reset.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// The driver reset the device: stop, and forget everything negotiated.
    fn reset(&mut self);
}
