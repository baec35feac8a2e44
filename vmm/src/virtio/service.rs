//! The loop in which every device works its virtqueues.
//!
//! The driver's notifications are off while the device looks anyway. When it finds no more it
//! signals what it has done, and unless its thread goes on looking ([`polling`](super::polling))
//! asks for notifications and looks once more: a chain that came in between was notified to nobody
//! (virtio 1.2, 2.7.10).

use std::ops::ControlFlow;

use super::chain::Chain;
use super::queue::{BrokenQueue, DeviceQueue};
use super::worker::EventSources;

/// What one step of a [`Service`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A chain was taken, given back or both, and there may be more to do.
    Done,
    /// The driver has to offer a chain first.
    Empty,
    /// Something else has to happen first, and wakes the thread: a timer, room at the host's
    /// side, the disk. The driver's notifications would be for nothing.
    Waiting,
}

/// A device's work at one of its queues.
pub trait Service {
    /// Steps after which the thread's other events have their turn.
    const BUDGET: usize;

    /// The queue that the steps take from.
    fn queue(&mut self) -> &mut DeviceQueue;

    /// Does a bounded piece of work: one chain, mostly.
    ///
    /// # Errors
    /// The driver broke the queue.
    fn step(&mut self) -> Result<Step, BrokenQueue>;

    /// Ends what the steps began, before the driver is told of it. Tells whether a step that had
    /// to wait can go on now.
    ///
    /// # Errors
    /// The driver broke the queue.
    fn settle(&mut self) -> Result<bool, BrokenQueue> {
        Ok(false)
    }

    /// The thread is going to sleep: asks for events of what it waits for besides chains. `true`:
    /// there is some already.
    fn arm(&mut self) -> bool {
        false
    }

    /// The budget is spent with work left: makes the thread come back after its other events.
    fn come_back(&mut self) {
        self.queue().notify_self();
    }
}

/// Works a queue until there is nothing to do for now, and tells why: [`Step::Done`] is a spent
/// budget, or a thread that is to end. Events will tell of more, unless the thread stays awake
/// ([`EventSources::stays_awake`]).
///
/// # Errors
/// The driver broke the queue and has been told so.
pub fn serve<S: Service>(service: &mut S, sources: &EventSources) -> Result<Step, BrokenQueue> {
    let mut budget = S::BUDGET;
    loop {
        service.queue().disable_notifications()?;
        let step = steps(service, &mut budget)?;
        let unblocked = service.settle()?;
        service.queue().signal_used()?;
        if sources.is_stopping() {
            return Ok(Step::Done);
        }
        match step {
            Step::Done => {
                service.come_back();
                return Ok(Step::Done);
            }
            Step::Waiting if unblocked => {}
            step if sources.stays_awake() => return Ok(step),
            step => {
                let done = service.arm();
                let offered = step == Step::Empty && service.queue().enable_notifications()?;
                if !done && !offered {
                    return Ok(step);
                }
            }
        }
    }
}

/// Steps until one cannot go on, or the budget is spent. A round without any costs one as well:
/// a driver can make chains come and go.
fn steps(service: &mut impl Service, budget: &mut usize) -> Result<Step, BrokenQueue> {
    while let Some(left) = budget.checked_sub(1) {
        *budget = left;
        match service.step()? {
            Step::Done => {}
            pause => return Ok(pause),
        }
    }
    Ok(Step::Done)
}

/// Answers one chain after the other: `answer` gives the number of bytes that it wrote to the
/// chain's start. A chain without an end breaks the queue.
///
/// # Errors
/// The driver broke the queue and has been told so.
pub fn answer_chains(
    queue: &mut DeviceQueue,
    sources: &EventSources,
    answer: impl FnMut(&DeviceQueue, &Chain) -> u32,
) -> Result<(), BrokenQueue> {
    serve(&mut Answers { queue, answer }, sources).map(drop)
}

struct Answers<'q, A> {
    queue: &'q mut DeviceQueue,
    answer: A,
}

impl<A: FnMut(&DeviceQueue, &Chain) -> u32> Service for Answers<'_, A> {
    const BUDGET: usize = 64;

    fn queue(&mut self) -> &mut DeviceQueue {
        self.queue
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        let Some(chain) = self.queue.pop_finite()? else {
            return Ok(Step::Empty);
        };
        let written = (self.answer)(self.queue, &chain);
        self.queue.push(chain, written)?;
        Ok(Step::Done)
    }
}

/// The thread of a broken queue ends until the driver resets the device.
pub fn unless_broken<T>(result: Result<T, BrokenQueue>) -> ControlFlow<()> {
    match result {
        Ok(_) => ControlFlow::Continue(()),
        // The driver has been told.
        Err(BrokenQueue { .. }) => ControlFlow::Break(()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

    use super::*;
    use crate::virtio::testing::{
        Driver, Inbox, Signal, activation, interrupt, memory, readable, stopping_sources,
    };

    const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

    fn queue(driver: &Driver, features: u64) -> (DeviceQueue, Inbox) {
        let (interrupt, inbox) = interrupt();
        let activation = activation(&driver.memory, features, Vec::new(), interrupt);
        (DeviceQueue::new(driver.queue(0, features), &activation, Arc::default()), inbox)
    }

    /// Gives chains back as they come. At the `late`th look for one that finds none, the driver
    /// offers another before notifications are on; so does every settling of `held` chains.
    struct Mirror {
        queue: DeviceQueue,
        driver: Driver,
        late: usize,
        held: Vec<Chain>,
        room: usize,
        settled: usize,
    }

    impl Mirror {
        fn new(driver: Driver, queue: DeviceQueue) -> Self {
            Self { queue, driver, late: 0, held: Vec::new(), room: usize::MAX, settled: 0 }
        }
    }

    impl Service for Mirror {
        const BUDGET: usize = 10;

        fn queue(&mut self) -> &mut DeviceQueue {
            &mut self.queue
        }

        fn step(&mut self) -> Result<Step, BrokenQueue> {
            if self.held.len() == self.room {
                return Ok(Step::Waiting);
            }
            if let Some(chain) = self.queue.pop()? {
                self.held.push(chain);
                return Ok(Step::Done);
            }
            if let Some(left) = self.late.checked_sub(1) {
                self.late = left;
                let head = self.driver.chain(&[readable(0x5000, 1)]);
                self.driver.offer(head);
            }
            Ok(Step::Empty)
        }

        fn settle(&mut self) -> Result<bool, BrokenQueue> {
            self.settled += 1;
            let held = !self.held.is_empty();
            for chain in self.held.drain(..) {
                self.queue.push(chain, 0)?;
            }
            Ok(held)
        }
    }

    fn offer(driver: &mut Driver, count: usize) {
        for _ in 0..count {
            let head = driver.chain(&[readable(0x5000, 1)]);
            driver.offer(head);
        }
    }

    #[test]
    fn a_chain_that_comes_before_notifications_are_on_is_not_lost() {
        for features in [0, EVENT_IDX] {
            let memory = memory();
            let mut driver = Driver::new(&memory, 0, 8);
            offer(&mut driver, 2);
            let (queue, inbox) = queue(&driver, features);
            let mut mirror = Mirror { late: 3, ..Mirror::new(driver, queue) };
            let sources = stopping_sources(false);
            assert_eq!(serve(&mut mirror, &sources), Ok(Step::Empty));
            assert_eq!(mirror.driver.used().len(), 5);
            // An interrupt a round; with EVENT_IDX only the first, as the driver asks for no more.
            let signals = if features == 0 { 4 } else { 1 };
            assert_eq!(inbox.drain(), vec![Signal::Used(0); signals]);
            if features == EVENT_IDX {
                assert_eq!(mirror.driver.avail_event(), 5, "the next chain is notified");
            }
        }
    }

    #[test]
    fn a_driver_that_never_stops_spends_the_budget() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        offer(&mut driver, 8);
        let (queue, _inbox) = queue(&driver, 0);
        let mut mirror = Mirror { late: usize::MAX, ..Mirror::new(driver, queue) };
        let sources = stopping_sources(false);
        assert_eq!(serve(&mut mirror, &sources), Ok(Step::Done));
        assert!(mirror.driver.used().len() <= Mirror::BUDGET);
        assert_eq!(mirror.driver.notify.read().unwrap(), 1, "it comes back by itself");
        mirror.queue.notified();
        assert_eq!(mirror.queue.counters().snapshot().notifications, 0);
        mirror.queue.notified();
        assert_eq!(mirror.queue.counters().snapshot().notifications, 1);
    }

    #[test]
    fn what_settling_makes_room_for_goes_on_and_what_still_waits_leaves_notifications_off() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        offer(&mut driver, 5);
        let (queue, _inbox) = queue(&driver, 0);
        let mut mirror = Mirror { room: 2, ..Mirror::new(driver, queue) };
        let sources = stopping_sources(false);
        assert_eq!(serve(&mut mirror, &sources), Ok(Step::Empty));
        assert_eq!((mirror.driver.used().len(), mirror.settled), (5, 3));
        assert!(mirror.driver.wants_notifications());
        mirror.room = 0;
        offer(&mut mirror.driver, 1);
        assert_eq!(serve(&mut mirror, &sources), Ok(Step::Waiting));
        assert!(!mirror.driver.wants_notifications());
    }

    #[test]
    fn a_thread_that_is_to_end_ends_between_rounds_and_a_broken_queue_at_once() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        offer(&mut driver, 1);
        let (queue, inbox) = queue(&driver, 0);
        let mut mirror = Mirror { late: usize::MAX, ..Mirror::new(driver, queue) };
        let sources = stopping_sources(true);
        assert_eq!(serve(&mut mirror, &sources), Ok(Step::Done));
        assert_eq!(mirror.driver.used().len(), 1);
        mirror.driver.jump(1000);
        let broken = serve(&mut mirror, &sources);
        assert!(broken.is_err() && unless_broken(broken).is_break());
        assert_eq!(inbox.drain(), [Signal::Used(0), Signal::NeedsReset]);
    }
}
