//! Guest to host: one frame per chain, virtio-net header first (virtio 1.2, 5.1.6.2).

use std::io;

use vm_memory::Permissions;

use super::Progress;
use super::guest_io::IoVectors;
use crate::backend::net::{MAX_FRAME, NetBackend, VNET_HEADER_LENGTH};
use crate::rate_limit::RateLimiter;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};

/// Frames sent before the other direction has its turn.
const BATCH: usize = 128;
/// Destination, source and type: the tap takes nothing shorter.
const ETHERNET_HEADER: usize = 14;

/// A transmit queue.
pub struct Transmitter {
    pub queue: DeviceQueue,
    vectors: IoVectors,
    pub limiter: Option<RateLimiter>,
}

enum Outcome {
    /// The chain is done with, its frame sent or lost.
    Done,
    /// The host's queue is full.
    Blocked,
}

impl Transmitter {
    pub fn new(queue: DeviceQueue, limiter: Option<RateLimiter>) -> Self {
        Self { queue, vectors: IoVectors::default(), limiter }
    }

    /// Sends what the driver has offered.
    pub fn run(&mut self, backend: &mut dyn NetBackend) -> Result<Progress, BrokenQueue> {
        self.queue.disable_notifications()?;
        let mut left = BATCH;
        loop {
            loop {
                if self.limiter.as_mut().is_some_and(|limiter| !limiter.ready()) {
                    self.queue.announce()?;
                    return Ok(Progress::Throttled);
                }
                let Some(chain) = self.queue.pop()? else { break };
                if let Outcome::Blocked = self.send(&chain, backend) {
                    self.queue.undo_pop();
                    self.queue.announce()?;
                    return Ok(Progress::Blocked);
                }
                self.queue.push(chain.head, 0)?;
                left -= 1;
                if left == 0 {
                    self.queue.announce()?;
                    return Ok(Progress::More);
                }
            }
            self.queue.announce()?;
            if !self.queue.enable_notifications()? {
                return Ok(Progress::Idle);
            }
            self.queue.disable_notifications()?;
        }
    }

    fn send(&mut self, chain: &Chain, backend: &mut dyn NetBackend) -> Outcome {
        let length = chain.readable_length();
        let fits = (VNET_HEADER_LENGTH + ETHERNET_HEADER..=MAX_FRAME)
            .contains(&usize::try_from(length).unwrap_or(usize::MAX));
        if chain.fault.is_some() || !fits {
            self.queue.counters().error();
            return Outcome::Done;
        }
        let mut io = self.vectors.list();
        let memory = self.queue.memory();
        let sent = match io.add_guest(memory, &chain.readable, Permissions::Read) {
            Some(()) => retry(|| backend.send(io.as_slices())),
            None => Err(io::ErrorKind::InvalidInput.into()),
        };
        self.vectors.keep(io);
        match sent {
            Ok(_) => {
                let payload = length - VNET_HEADER_LENGTH as u64;
                self.queue.counters().request(payload);
                if let Some(limiter) = &mut self.limiter {
                    limiter.take(payload);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Outcome::Blocked,
            Err(_) => self.queue.counters().error(),
        }
        Outcome::Done
    }
}

/// Signals interrupt nothing that matters here.
pub fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
