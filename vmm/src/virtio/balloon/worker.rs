//! The balloon's thread.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use super::discard::discard;
use super::stats::{BalloonStats, ENTRY_LENGTH};
use super::{PAGE_SIZE, Shared};
use crate::virtio::chain::{self, Chain, ChainFault};
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::worker::{EventHandler, EventSources, Flow};

const INFLATED: u32 = 0;
const DEFLATED: u32 = 1;
const STATS_GIVEN: u32 = 2;
const REPORTED: u32 = 3;
const STATS_WANTED: u32 = 4;

/// Page numbers taken from one request, each of which may cost a system call. Linux sends 256.
const MAX_PAGES: u64 = 1 << 13;
/// Page numbers read at a time.
const PAGES_PER_PIECE: usize = 1024;
/// More entries than there are tags.
const MAX_STATS: usize = 64;
/// Requests done before the thread looks at its other events.
const MAX_BATCH: usize = 64;

/// The state of the balloon's thread.
pub struct BalloonQueues {
    inflate: DeviceQueue,
    deflate: DeviceQueue,
    stats: Option<DeviceQueue>,
    reporting: Option<DeviceQueue>,
    shared: Arc<Shared>,
    /// The statistics buffer, kept until someone asks: giving it back is the question (5.5.6.4).
    held: Option<u16>,
    /// Someone asked before the guest gave a buffer.
    asked: bool,
}

impl BalloonQueues {
    pub fn new(
        inflate: DeviceQueue,
        deflate: DeviceQueue,
        stats: Option<DeviceQueue>,
        reporting: Option<DeviceQueue>,
        shared: Arc<Shared>,
    ) -> Self {
        Self { inflate, deflate, stats, reporting, shared, held: None, asked: false }
    }

    fn take_stats(&mut self) -> Result<(), BrokenQueue> {
        let Some(queue) = &mut self.stats else {
            return Ok(());
        };
        loop {
            while let Some(request) = queue.pop()? {
                if request.fault == Some(ChainFault::Endless) {
                    return Err(queue.broken("a buffer's descriptor chain has no end"));
                }
                // A second buffer makes the first one pointless.
                if let Some(head) = self.held.replace(request.head) {
                    queue.push(head, 0)?;
                }
                let mut raw = [0; MAX_STATS * ENTRY_LENGTH];
                let Some(length) = chain::read(queue.memory(), &request.readable, &mut raw) else {
                    queue.counters().error();
                    continue;
                };
                queue.counters().request(length as u64);
                let mut report = self.shared.report();
                report.stats = BalloonStats::parse(&raw[..length]);
                report.number += 1;
                self.shared.reported.notify_all();
            }
            queue.announce()?;
            if !queue.enable_notifications()? {
                break;
            }
        }
        if self.asked {
            return self.ask_for_stats();
        }
        Ok(())
    }

    fn ask_for_stats(&mut self) -> Result<(), BrokenQueue> {
        let Some(queue) = &mut self.stats else {
            return Ok(());
        };
        self.asked = self.held.is_none();
        if let Some(head) = self.held.take() {
            queue.push(head, 0)?;
            queue.announce()?;
        }
        Ok(())
    }
}

/// Does `work` for every request of `queue`, which gives the bytes concerned or `None` for
/// nonsense.
fn serve(
    queue: &mut DeviceQueue,
    work: impl Fn(&DeviceQueue, &Chain) -> Option<u64>,
) -> Result<(), BrokenQueue> {
    let mut done = 0;
    loop {
        queue.disable_notifications()?;
        while let Some(request) = queue.pop()? {
            if request.fault == Some(ChainFault::Endless) {
                return Err(queue.broken("a buffer's descriptor chain has no end"));
            }
            match work(queue, &request) {
                Some(bytes) => queue.counters().request(bytes),
                None => queue.counters().error(),
            }
            queue.push(request.head, 0)?;
            done += 1;
            if done == MAX_BATCH {
                queue.notify_self();
                return queue.announce();
            }
        }
        queue.announce()?;
        if !queue.enable_notifications()? {
            return Ok(());
        }
    }
}

/// The request lists page numbers that the guest does without.
fn inflate(queue: &DeviceQueue, request: &Chain) -> Option<u64> {
    for_each_run(queue, request, |first, count| {
        discard(queue.memory(), first * PAGE_SIZE, count * PAGE_SIZE).is_ok()
    })
}

/// The guest takes pages back: they are there when it touches them.
fn deflate(queue: &DeviceQueue, request: &Chain) -> Option<u64> {
    for_each_run(queue, request, |_, _| true)
}

/// The request's buffers are free pages.
fn report(queue: &DeviceQueue, request: &Chain) -> Option<u64> {
    for segment in &request.writable {
        discard(queue.memory(), segment.address.0, segment.length.into()).ok()?;
    }
    Some(request.writable_length())
}

/// Calls `run` for every run of consecutive page numbers; the bytes in all.
fn for_each_run(
    queue: &DeviceQueue,
    request: &Chain,
    run: impl Fn(u64, u64) -> bool,
) -> Option<u64> {
    let length = request.readable_length();
    if !length.is_multiple_of(4) || length / 4 > MAX_PAGES {
        return None;
    }
    let mut rest = request.readable.clone();
    let mut left = length;
    let mut raw = [0; PAGES_PER_PIECE * 4];
    let mut all = true;
    // First page and number of pages.
    let mut current: Option<(u64, u64)> = None;
    while left > 0 {
        let size = left.min(raw.len() as u64);
        let (piece, tail) = chain::split_at(rest, size)?;
        // At most the piece's size.
        let raw = &mut raw[..size as usize];
        chain::read(queue.memory(), &piece, raw)?;
        for number in raw.chunks_exact(4) {
            let page = u64::from(u32::from_le_bytes(number.try_into().ok()?));
            current = match current {
                Some((first, count)) if first + count == page => Some((first, count + 1)),
                // Linux takes pages from the top of a block as often as from its bottom.
                Some((first, count)) if page + 1 == first => Some((page, count + 1)),
                Some((first, count)) => {
                    all &= run(first, count);
                    Some((page, 1))
                }
                None => Some((page, 1)),
            };
        }
        rest = tail;
        left -= size;
    }
    if let Some((first, count)) = current {
        all &= run(first, count);
    }
    all.then_some(length / 4 * PAGE_SIZE)
}

impl EventHandler for BalloonQueues {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.inflate.notify_fd(), INFLATED)?;
        sources.watch_event(self.deflate.notify_fd(), DEFLATED)?;
        sources.watch_event(self.shared.request.as_raw_fd(), STATS_WANTED)?;
        if let Some(queue) = &self.stats {
            sources.watch_event(queue.notify_fd(), STATS_GIVEN)?;
        }
        if let Some(queue) = &self.reporting {
            sources.watch_event(queue.notify_fd(), REPORTED)?;
        }
        Ok(())
    }

    fn start(&mut self, sources: &EventSources) -> Flow {
        for token in [INFLATED, DEFLATED, STATS_GIVEN, REPORTED] {
            if self.serve_token(token, sources) == Flow::Stop {
                return Flow::Stop;
            }
        }
        Flow::Continue
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> Flow {
        let queue = match token {
            INFLATED => Some(&self.inflate),
            DEFLATED => Some(&self.deflate),
            STATS_GIVEN => self.stats.as_ref(),
            REPORTED => self.reporting.as_ref(),
            _ => None,
        };
        if let Some(queue) = queue {
            queue.counters().notification();
        }
        self.serve_token(token, sources)
    }
}

impl BalloonQueues {
    fn serve_token(&mut self, token: u32, _sources: &EventSources) -> Flow {
        Flow::from(match token {
            INFLATED => serve(&mut self.inflate, inflate),
            DEFLATED => serve(&mut self.deflate, deflate),
            STATS_GIVEN => self.take_stats(),
            REPORTED => match &mut self.reporting {
                Some(queue) => serve(queue, report),
                None => Ok(()),
            },
            _ => self.ask_for_stats(),
        })
    }
}
