//! The balloon's thread.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use super::discard::discard;
use super::stats::{BalloonStats, ENTRY_LENGTH};
use super::{PAGE_SIZE, Shared};
use crate::segments;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step, answer_chains, serve, unless_broken};
use crate::virtio::worker::{EventHandler, EventSources};

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

/// The state of the balloon's thread.
pub struct BalloonQueues {
    inflate: DeviceQueue,
    deflate: DeviceQueue,
    stats: Option<DeviceQueue>,
    reporting: Option<DeviceQueue>,
    shared: Arc<Shared>,
    /// The statistics buffer, kept until someone asks: giving it back is the question (5.5.6.4).
    held: Option<Chain>,
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

    fn take_stats(&mut self, sources: &EventSources) -> Result<(), BrokenQueue> {
        let Some(queue) = &mut self.stats else {
            return Ok(());
        };
        serve(&mut StatsQueue { queue, shared: &self.shared, held: &mut self.held }, sources)?;
        if self.asked { self.ask_for_stats() } else { Ok(()) }
    }

    fn ask_for_stats(&mut self) -> Result<(), BrokenQueue> {
        let Some(queue) = &mut self.stats else {
            return Ok(());
        };
        self.asked = self.held.is_none();
        if let Some(chain) = self.held.take() {
            queue.push(chain, 0)?;
            queue.signal_used()?;
        }
        Ok(())
    }
}

/// Takes reports, and keeps the last one's buffer.
struct StatsQueue<'a> {
    queue: &'a mut DeviceQueue,
    shared: &'a Shared,
    held: &'a mut Option<Chain>,
}

impl Service for StatsQueue<'_> {
    const BUDGET: usize = 64;

    fn queue(&mut self) -> &mut DeviceQueue {
        self.queue
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        let Some(request) = self.queue.pop_finite()? else {
            return Ok(Step::Empty);
        };
        let mut raw = [0; MAX_STATS * ENTRY_LENGTH];
        match segments::read(self.queue.memory(), &request.readable, 0, &mut raw) {
            Some(length) => {
                self.queue.counters().request(length as u64);
                let mut report = self.shared.report();
                report.stats = BalloonStats::parse(&raw[..length]);
                report.number += 1;
                self.shared.reported.notify_all();
            }
            None => self.queue.counters().error(),
        }
        // A second buffer makes the first one pointless.
        if let Some(before) = self.held.replace(request) {
            self.queue.push(before, 0)?;
        }
        Ok(Step::Done)
    }
}

/// Does `work` for every request of `queue`, which gives the bytes concerned or `None` for
/// nonsense.
fn serve_pages(
    queue: &mut DeviceQueue,
    sources: &EventSources,
    work: impl Fn(&DeviceQueue, &Chain) -> Option<u64>,
) -> Result<(), BrokenQueue> {
    answer_chains(queue, sources, |queue, request| {
        match work(queue, request) {
            Some(bytes) => queue.counters().request(bytes),
            None => queue.counters().error(),
        }
        0
    })
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
    let mut done = 0;
    let mut raw = [0; PAGES_PER_PIECE * 4];
    let mut all = true;
    // First page and number of pages.
    let mut current: Option<(u64, u64)> = None;
    while done < length {
        // All of it, or a whole number of page numbers.
        let read = segments::read(queue.memory(), &request.readable, done, &mut raw)?;
        done += read as u64;
        for number in raw[..read].chunks_exact(4) {
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

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        let tokens = [INFLATED, DEFLATED, STATS_GIVEN, REPORTED];
        unless_broken(tokens.into_iter().try_for_each(|token| self.serve_token(token, sources)))
    }

    fn handle(&mut self, token: u32, _events: EventSet, sources: &EventSources) -> ControlFlow<()> {
        let queue = match token {
            INFLATED => Some(&mut self.inflate),
            DEFLATED => Some(&mut self.deflate),
            STATS_GIVEN => self.stats.as_mut(),
            REPORTED => self.reporting.as_mut(),
            _ => None,
        };
        if let Some(queue) = queue {
            queue.notified();
        }
        unless_broken(self.serve_token(token, sources))
    }
}

impl BalloonQueues {
    fn serve_token(&mut self, token: u32, sources: &EventSources) -> Result<(), BrokenQueue> {
        match token {
            INFLATED => serve_pages(&mut self.inflate, sources, inflate),
            DEFLATED => serve_pages(&mut self.deflate, sources, deflate),
            STATS_GIVEN => self.take_stats(sources),
            REPORTED => match &mut self.reporting {
                Some(queue) => serve_pages(queue, sources, report),
                None => Ok(()),
            },
            _ => self.ask_for_stats(),
        }
    }
}
