//! Network interfaces: frames with a virtio-net header in front, as tap devices speak them.

mod mac;
mod options;

use std::io;
use std::os::fd::BorrowedFd;

pub use mac::{BadMacAddress, MacAddress};
pub use options::{MAX_QUEUE_PAIRS, NetOptions, NetOptionsError, TapSource};

use super::vectors::{Gather, Scatter};

/// Length of `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6), which precedes every frame.
pub const VNET_HEADER_LENGTH: usize = 12;

/// The longest frame with its header that passes through here: 64 KiB of segments to come, an
/// Ethernet header with a VLAN tag, and the virtio-net header.
pub const MAX_FRAME: usize = VNET_HEADER_LENGTH + 18 + 65536;

/// One queue of a network back end. Non-blocking.
///
/// Every frame starts with a `virtio_net_hdr_v1`, so checksum and segmentation offloads pass
/// through to the host's stack from virtio-net and e1000 alike.
pub trait NetBackend: Send {
    /// Sends one frame, header first.
    ///
    /// # Errors
    /// `WouldBlock` when the host's queue is full; other errors mean that this frame is lost.
    fn send(&mut self, frame: &Gather<'_>) -> io::Result<usize>;

    /// Receives one frame, header first; the length includes the header. What does not fit into
    /// `buffers` is lost.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    fn receive(&mut self, buffers: &mut Scatter<'_>) -> io::Result<usize>;

    /// Which offloads the guest can take in received frames, as `TUN_F_*` (linux/if_tun.h).
    ///
    /// # Errors
    /// The host refused the combination.
    fn set_offloads(&mut self, tun_flags: u32) -> io::Result<()>;

    /// Takes part in the interface's traffic, or leaves it to the other queues. Queues start
    /// taking part.
    ///
    /// # Errors
    /// The host's, for example for an interface with a single queue.
    fn set_attached(&mut self, attached: bool) -> io::Result<()> {
        let _ = attached;
        Ok(())
    }

    /// Readable when [`NetBackend::receive`] has a frame, writable when [`NetBackend::send`] can
    /// take one. For a tap, the descriptor that vhost-net takes over.
    fn event(&self) -> BorrowedFd<'_>;
}
