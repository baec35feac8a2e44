//! Host to guest: a frame into one chain, or into as many as it takes with MRG_RXBUF
//! (virtio 1.2, 5.1.6.3 and 5.1.6.4).

use std::collections::VecDeque;
use std::io;

use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use vm_memory::{GuestMemory, Permissions};

use super::features::{has, receives_segments};
use crate::backend::net::{MAX_FRAME, NetBackend, VNET_HEADER_LENGTH};
use crate::backend::vectors::VectorBuffer;
use crate::eintr::retry;
use crate::rate_limit::RateLimiter;
use crate::segments::{self, GuestSegment};
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step};

/// Offset of num_buffers in the header.
const NUM_BUFFERS: u64 = 10;
/// Ethernet header with a VLAN tag.
const LINK_HEADER: usize = 18;

/// A buffer the driver offered and no frame has filled yet.
struct Posted {
    chain: Chain,
    capacity: usize,
}

/// A receive queue (5.1.6.3): frames of the host go into the guest's buffers.
pub struct Receiver {
    pub queue: DeviceQueue,
    mergeable: bool,
    /// No frame is longer, unless someone changed the tap's MTU.
    longest: usize,
    posted: VecDeque<Posted>,
    posted_bytes: usize,
    vectors: VectorBuffer,
    /// Behind the guest's buffers in every readv, so that a frame that does not fit shows; and
    /// where a frame waits for buffers to come.
    spare: Vec<u8>,
    /// Bytes in `spare` that wait.
    held: usize,
    used: Vec<(Chain, u32)>,
    pub limiter: Option<RateLimiter>,
    /// The driver has to offer buffers.
    pub starved: bool,
    /// The rate limit is reached; its timer is set.
    pub throttled: bool,
    /// The back end is gone.
    pub dead: bool,
}

enum Received {
    Frame(usize),
    None,
    /// The back end is gone.
    Dead(io::Error),
}

impl Receiver {
    pub fn new(queue: DeviceQueue, features: u64, mtu: u16, limiter: Option<RateLimiter>) -> Self {
        let longest = match receives_segments(features) {
            true => MAX_FRAME,
            false => VNET_HEADER_LENGTH + LINK_HEADER + usize::from(mtu),
        };
        Self {
            queue,
            mergeable: has(features, VIRTIO_NET_F_MRG_RXBUF),
            longest,
            posted: VecDeque::new(),
            posted_bytes: 0,
            vectors: VectorBuffer::default(),
            spare: vec![0; MAX_FRAME],
            held: 0,
            used: Vec::new(),
            limiter,
            starved: false,
            throttled: false,
            dead: false,
        }
    }

    /// Moves frames to the driver, to be given to [`serve`](crate::virtio::service::serve).
    pub fn receiving<'a>(&'a mut self, backend: &'a mut dyn NetBackend) -> impl Service + 'a {
        Receiving { receiver: self, backend }
    }

    fn receive(&mut self, backend: &mut dyn NetBackend) -> Result<Step, BrokenQueue> {
        self.post()?;
        self.starved = match self.held {
            0 => self.posted.is_empty(),
            length => !self.deliver_held(length)?,
        };
        if self.starved {
            return Ok(Step::Empty);
        }
        if self.limiter.as_mut().is_some_and(|limiter| !limiter.ready()) {
            self.throttled = true;
            return Ok(Step::Waiting);
        }
        let received = if self.mergeable && self.posted_bytes < self.longest {
            self.receive_into_spare(backend)
        } else {
            self.receive_into_guest(backend)?
        };
        match received {
            Received::Frame(length) => {
                if length < VNET_HEADER_LENGTH {
                    self.queue.counters().error();
                }
                Ok(Step::Done)
            }
            Received::None => Ok(Step::Waiting),
            Received::Dead(error) => {
                self.dead = true;
                self.queue.log().failed("cannot receive from the tap any more", &error);
                Ok(Step::Waiting)
            }
        }
    }

    /// Takes buffers from the driver until the longest frame fits, or one where a frame cannot
    /// have several.
    fn post(&mut self) -> Result<(), BrokenQueue> {
        let enough = |posted: &VecDeque<Posted>, bytes: usize| match self.mergeable {
            true => bytes >= self.longest.max(self.held),
            false => !posted.is_empty(),
        };
        // Chains that are of no use come back at once: a driver may offer them for ever.
        for _ in 0..self.queue.size() {
            if enough(&self.posted, self.posted_bytes) {
                break;
            }
            let Some(chain) = self.queue.pop()? else { break };
            let capacity = chain.writable_length();
            let usable = chain.fault.is_none()
                && chain.readable.is_empty()
                && capacity >= VNET_HEADER_LENGTH as u64
                && self.is_ram(&chain.writable);
            if !usable {
                self.queue.counters().error();
                self.queue.push(chain, 0)?;
                continue;
            }
            // More than any frame needs is as good as exactly that, and adds up without overflow.
            let capacity = capacity.min(MAX_FRAME as u64) as usize;
            self.posted_bytes += capacity;
            self.posted.push_back(Posted { chain, capacity });
        }
        Ok(())
    }

    fn is_ram(&self, segments: &[GuestSegment]) -> bool {
        let memory = self.queue.memory();
        segments
            .iter()
            .all(|s| memory.check_range(s.address, s.length as usize, Permissions::Write))
    }

    /// The fast way: straight into the guest's buffers.
    fn receive_into_guest(
        &mut self,
        backend: &mut dyn NetBackend,
    ) -> Result<Received, BrokenQueue> {
        let mut buffers = self.vectors.scatter();
        let mut room = 0;
        for posted in &self.posted {
            // Checked when it was posted; RAM does not go away.
            if buffers.add_guest(self.queue.memory(), &posted.chain.writable).is_none() {
                break;
            }
            room += posted.capacity;
            if !self.mergeable || room >= self.longest {
                break;
            }
        }
        buffers.add(&mut self.spare);
        match retry(|| backend.receive(&mut buffers)) {
            Ok(length) if length < VNET_HEADER_LENGTH => Ok(Received::Frame(length)),
            // It does not fit, and is lost. The buffers stay for the next.
            Ok(length) if length > room => {
                self.queue.counters().error();
                Ok(Received::Frame(length))
            }
            Ok(length) => {
                self.complete(length)?;
                Ok(Received::Frame(length))
            }
            Err(error) => Ok(failed(error)),
        }
    }

    /// The slow way, when the driver is short of buffers: the frame waits in `spare` until there
    /// are enough for it.
    fn receive_into_spare(&mut self, backend: &mut dyn NetBackend) -> Received {
        let mut buffers = self.vectors.scatter();
        buffers.add(&mut self.spare);
        match retry(|| backend.receive(&mut buffers)) {
            Ok(length) => {
                self.held = if length < VNET_HEADER_LENGTH { 0 } else { length };
                Received::Frame(length)
            }
            Err(error) => failed(error),
        }
    }

    /// Copies the waiting frame to the guest, if it fits by now.
    fn deliver_held(&mut self, length: usize) -> Result<bool, BrokenQueue> {
        if self.posted_bytes < length {
            // With every buffer of the ring posted, it never will.
            if self.posted.len() < usize::from(self.queue.size()) {
                return Ok(false);
            }
            self.queue.counters().error();
            self.held = 0;
            return Ok(true);
        }
        let mut rest = &self.spare[..length];
        for posted in &self.posted {
            let (now, later) = rest.split_at(rest.len().min(posted.capacity));
            // Checked when it was posted.
            let _ = segments::write(self.queue.memory(), &posted.chain.writable, 0, now);
            rest = later;
        }
        self.held = 0;
        self.complete(length)?;
        Ok(true)
    }

    /// Gives back the buffers that hold a frame of `length` bytes.
    fn complete(&mut self, length: usize) -> Result<(), BrokenQueue> {
        let mut left = length;
        while left > 0 {
            // The caller made sure that they hold that much.
            let Some(Posted { chain, capacity }) = self.posted.pop_front() else { break };
            self.posted_bytes -= capacity;
            let written = left.min(capacity);
            left -= written;
            self.used.push((chain, written as u32));
        }
        let buffers = (self.used.len() as u16).to_le_bytes();
        // Behind what the back end knows of: it wrote the 10 bytes of the older header.
        if let Some((first, _)) = self.used.first() {
            let _ = segments::write(self.queue.memory(), &first.writable, NUM_BUFFERS, &buffers);
        }
        let payload = (length - VNET_HEADER_LENGTH) as u64;
        self.queue.counters().request(payload);
        if let Some(limiter) = &mut self.limiter {
            limiter.take(payload);
        }
        self.queue.push_together(&mut self.used)
    }
}

fn failed(error: io::Error) -> Received {
    match error.kind() {
        io::ErrorKind::WouldBlock => Received::None,
        _ => Received::Dead(error),
    }
}

/// A [`Receiver`] with its back end at hand.
struct Receiving<'a> {
    receiver: &'a mut Receiver,
    backend: &'a mut dyn NetBackend,
}

impl Service for Receiving<'_> {
    /// Frames received before the other direction has its turn.
    const BUDGET: usize = 128;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.receiver.queue
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        self.receiver.receive(&mut *self.backend)
    }

    /// The back end is watched by level: more frames mean another round.
    fn come_back(&mut self) {}
}
