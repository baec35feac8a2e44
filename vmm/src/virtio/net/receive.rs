//! Host to guest: a frame into one chain, or into as many as it takes with MRG_RXBUF
//! (virtio 1.2, 5.1.6.3 and 5.1.6.4).

use std::collections::VecDeque;
use std::io;

use virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF;
use vm_memory::Permissions;

use super::Progress;
use super::features::{has, receives_segments};
use super::guest_io::IoVectors;
use super::transmit::retry;
use crate::backend::disk::GuestSegment;
use crate::backend::net::{MAX_FRAME, NetBackend, VNET_HEADER_LENGTH};
use crate::rate_limit::RateLimiter;
use crate::virtio::chain::{self, Chain};
use crate::virtio::queue::{BrokenQueue, DeviceQueue};

/// Frames received before the other direction has its turn.
const BATCH: usize = 128;
/// Offset of num_buffers in the header.
const NUM_BUFFERS: u64 = 10;
/// Ethernet header with a VLAN tag.
const LINK_HEADER: usize = 18;

/// A buffer the driver offered and no frame has filled yet.
struct Posted {
    head: u16,
    segments: Vec<GuestSegment>,
    capacity: usize,
}

/// A receive queue.
pub struct Receiver {
    pub queue: DeviceQueue,
    mergeable: bool,
    /// No frame is longer, unless someone changed the tap's MTU.
    longest: usize,
    posted: VecDeque<Posted>,
    posted_bytes: usize,
    vectors: IoVectors,
    /// Behind the guest's buffers in every readv, so that a frame that does not fit shows; and
    /// where a frame waits for buffers to come.
    spare: Vec<u8>,
    /// Bytes in `spare` that wait.
    held: usize,
    used: Vec<(u16, u32)>,
    pub limiter: Option<RateLimiter>,
}

enum Received {
    Frame(usize),
    None,
    /// The back end is gone.
    Dead,
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
            vectors: IoVectors::default(),
            spare: vec![0; MAX_FRAME],
            held: 0,
            used: Vec::new(),
            limiter,
        }
    }

    /// Moves frames until the back end has none, the driver has no buffers, or it is the other
    /// direction's turn. [`Progress::Blocked`] means that the driver must offer buffers first,
    /// and will notify.
    pub fn run(&mut self, backend: &mut dyn NetBackend) -> Result<Progress, BrokenQueue> {
        let progress = self.receive(backend)?;
        self.queue.announce()?;
        Ok(progress)
    }

    fn receive(&mut self, backend: &mut dyn NetBackend) -> Result<Progress, BrokenQueue> {
        self.queue.disable_notifications()?;
        let mut left = BATCH;
        loop {
            self.post()?;
            let lacking = match self.held {
                0 => self.posted.is_empty(),
                length => !self.deliver_held(length)?,
            };
            if lacking {
                // The driver may want to know of what was used before it offers more.
                self.queue.announce()?;
                if self.queue.enable_notifications()? {
                    self.queue.disable_notifications()?;
                    continue;
                }
                return Ok(Progress::Blocked);
            }
            if left == 0 {
                return Ok(Progress::More);
            }
            left -= 1;
            if self.limiter.as_mut().is_some_and(|limiter| !limiter.ready()) {
                return Ok(Progress::Throttled);
            }
            let received = if self.mergeable && self.posted_bytes < self.longest {
                self.receive_into_spare(backend)
            } else {
                self.receive_into_guest(backend)?
            };
            match received {
                Received::Frame(length) if length < VNET_HEADER_LENGTH => {
                    self.queue.counters().error();
                }
                Received::Frame(_) => {}
                Received::None => return Ok(Progress::Idle),
                Received::Dead => return Ok(Progress::Dead),
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
        while !enough(&self.posted, self.posted_bytes) {
            let Some(chain) = self.queue.pop()? else { break };
            let Chain { head, writable, fault, readable } = chain;
            let capacity = chain::length(&writable);
            let usable = fault.is_none()
                && readable.is_empty()
                && capacity >= VNET_HEADER_LENGTH as u64
                && self.is_ram(&writable);
            if !usable {
                self.queue.counters().error();
                self.queue.push(head, 0)?;
                continue;
            }
            // More than any frame needs is as good as exactly that, and adds up without overflow.
            let capacity = capacity.min(MAX_FRAME as u64) as usize;
            self.posted_bytes += capacity;
            self.posted.push_back(Posted { head, segments: writable, capacity });
        }
        Ok(())
    }

    fn is_ram(&self, segments: &[GuestSegment]) -> bool {
        use vm_memory::GuestMemory;
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
        let mut io = self.vectors.list();
        let mut room = 0;
        for posted in &self.posted {
            // Checked when it was posted; RAM does not go away.
            if io.add_guest(self.queue.memory(), &posted.segments, Permissions::Write).is_none() {
                break;
            }
            room += posted.capacity;
            if !self.mergeable || room >= self.longest {
                break;
            }
        }
        io.add_host(&mut self.spare);
        let result = retry(|| backend.receive(io.as_slices_mut()));
        self.vectors.keep(io);
        match result {
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
            Err(error) => Ok(failed(&error)),
        }
    }

    /// The slow way, when the driver is short of buffers: the frame waits in `spare` until there
    /// are enough for it.
    fn receive_into_spare(&mut self, backend: &mut dyn NetBackend) -> Received {
        let spare = &mut self.spare;
        match retry(|| backend.receive(&mut [io::IoSliceMut::new(spare)])) {
            Ok(length) => {
                self.held = if length < VNET_HEADER_LENGTH { 0 } else { length };
                Received::Frame(length)
            }
            Err(error) => failed(&error),
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
            let _ = chain::write(self.queue.memory(), &posted.segments, now);
            rest = later;
        }
        self.held = 0;
        self.complete(length)?;
        Ok(true)
    }

    /// Gives back the buffers that hold a frame of `length` bytes.
    fn complete(&mut self, length: usize) -> Result<(), BrokenQueue> {
        self.used.clear();
        let mut left = length;
        let mut header = None;
        while left > 0 {
            // The caller made sure that they hold that much.
            let Some(posted) = self.posted.pop_front() else { break };
            self.posted_bytes -= posted.capacity;
            let written = left.min(posted.capacity);
            left -= written;
            self.used.push((posted.head, written as u32));
            header.get_or_insert(posted.segments);
        }
        let buffers = self.used.len() as u16;
        // Behind what the back end knows of: it wrote the 10 bytes of the older header.
        if let Some((_, at)) = header.and_then(|h| chain::split_at(h, NUM_BUFFERS)) {
            let _ = chain::write(self.queue.memory(), &at, &buffers.to_le_bytes());
        }
        let payload = (length - VNET_HEADER_LENGTH) as u64;
        self.queue.counters().request(payload);
        if let Some(limiter) = &mut self.limiter {
            limiter.take(payload);
        }
        self.queue.push_together(&self.used)
    }
}

fn failed(error: &io::Error) -> Received {
    match error.kind() {
        io::ErrorKind::WouldBlock => Received::None,
        _ => Received::Dead,
    }
}
