//! Guest to host: one frame per chain, virtio-net header first (virtio 1.2, 5.1.6.2).

use std::io;

use crate::backend::net::{MAX_FRAME, NetBackend, VNET_HEADER_LENGTH};
use crate::backend::vectors::VectorBuffer;
use crate::eintr::retry;
use crate::rate_limit::RateLimiter;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step};

/// Destination, source and type: the tap takes nothing shorter.
const ETHERNET_HEADER: usize = 14;

/// A transmit queue (5.1.6.2): the guest's frames go to the host.
pub struct Transmitter {
    pub queue: DeviceQueue,
    vectors: VectorBuffer,
    pub limiter: Option<RateLimiter>,
    /// The host's queue is full.
    pub blocked: bool,
    /// The rate limit is reached; its timer is set.
    pub throttled: bool,
}

impl Transmitter {
    /// The transmit queue `queue`, no faster than `limiter` has it.
    pub fn new(queue: DeviceQueue, limiter: Option<RateLimiter>) -> Self {
        let vectors = VectorBuffer::default();
        Self { queue, vectors, limiter, blocked: false, throttled: false }
    }

    /// Sends what the driver has offered, to be given to [`serve`](crate::virtio::service::serve).
    pub fn sending<'a>(&'a mut self, backend: &'a mut dyn NetBackend) -> impl Service + 'a {
        Sending { transmitter: self, backend }
    }

    /// `false`: the host's queue is full. Otherwise the frame is sent, or lost.
    fn send(&mut self, chain: &Chain, backend: &mut dyn NetBackend) -> bool {
        let length = chain.readable_length();
        let fits = (VNET_HEADER_LENGTH + ETHERNET_HEADER..=MAX_FRAME)
            .contains(&usize::try_from(length).unwrap_or(usize::MAX));
        if chain.fault.is_some() || !fits {
            self.queue.counters().error();
            return true;
        }
        let mut frame = self.vectors.gather();
        let sent = match frame.add_guest(self.queue.memory(), &chain.readable) {
            Some(()) => retry(|| backend.send(&frame)),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        match sent {
            Ok(_) => {
                let payload = length - VNET_HEADER_LENGTH as u64;
                self.queue.counters().request(payload);
                if let Some(limiter) = &mut self.limiter {
                    limiter.take(payload);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => self.queue.counters().error(),
        }
        true
    }
}

/// A [`Transmitter`] with its back end at hand.
struct Sending<'a> {
    transmitter: &'a mut Transmitter,
    backend: &'a mut dyn NetBackend,
}

impl Service for Sending<'_> {
    /// Frames sent before the other direction has its turn.
    const BUDGET: usize = 128;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.transmitter.queue
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        let Self { transmitter, backend } = self;
        if transmitter.limiter.as_mut().is_some_and(|limiter| !limiter.ready()) {
            transmitter.throttled = true;
            return Ok(Step::Waiting);
        }
        let Some(chain) = transmitter.queue.pop()? else {
            return Ok(Step::Empty);
        };
        if !transmitter.send(&chain, *backend) {
            transmitter.queue.undo_pop(chain);
            transmitter.blocked = true;
            return Ok(Step::Waiting);
        }
        transmitter.queue.push(chain, 0)?;
        Ok(Step::Done)
    }
}
