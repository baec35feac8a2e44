//! A virtqueue in the hands of a device's thread: chains in, used buffers and interrupts out.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::EventFd;

use super::chain::{Chain, ChainFault};
use super::log::DeviceLog;
use super::stats::QueueCounters;
use super::{ActivateError, Activation, ActiveQueue};
use crate::irq::VirtioInterrupt;
use crate::memory::GuestRam;

/// Bytes in front of the rings' elements, and of a used element (virtio 1.2, 2.7.6 and 2.7.8).
const AVAILABLE_RING: u64 = 4;
const USED_RING: u64 = 4;
const USED_ELEMENT: u64 = 8;

/// The driver broke the rings, and was told so by DEVICE_NEEDS_RESET. The thread that gets this
/// ends; nothing of the queue can be trusted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the driver broke virtqueue {queue}: {reason}")]
pub struct BrokenQueue {
    /// Number of the queue in its device, from 0.
    pub queue: u16,
    /// Which rule of virtio the driver broke, in words.
    pub reason: &'static str,
}

/// Takes queue number `index` out of `queues`.
///
/// # Errors
/// [`ActivateError::MissingQueue`].
pub fn take_queue(
    queues: &mut Vec<DeviceQueue>,
    index: u16,
    device: &'static str,
) -> Result<DeviceQueue, ActivateError> {
    let position = queues.iter().position(|queue| queue.index == index);
    position
        .map(|position| queues.swap_remove(position))
        .ok_or(ActivateError::MissingQueue { device, queue: index })
}

/// One active queue with everything its thread needs.
pub struct DeviceQueue {
    index: u16,
    queue: Queue,
    notify: EventFd,
    memory: GuestRam,
    interrupt: Arc<dyn VirtioInterrupt>,
    counters: Arc<QueueCounters>,
    log: Arc<DeviceLog>,
    /// Chains taken and not yet given back.
    in_flight: u16,
    /// Chains given back since the last interrupt decision.
    unsignalled: bool,
    /// The used index at that decision.
    signalled: u16,
    /// The thread notified itself since it last looked.
    notified_self: bool,
    /// Chains that are done with, for their allocations.
    spare: Vec<Chain>,
}

impl DeviceQueue {
    /// Takes over a queue of `activation`, which the driver set up; it need not be in there still.
    pub fn new(active: ActiveQueue, activation: &Activation, counters: Arc<QueueCounters>) -> Self {
        Self {
            index: active.index,
            signalled: active.queue.next_used(),
            queue: active.queue,
            notify: active.notify,
            memory: activation.memory.clone(),
            interrupt: Arc::clone(&activation.interrupt),
            counters,
            log: Arc::clone(&activation.log),
            in_flight: 0,
            unsignalled: false,
            notified_self: false,
            spare: Vec::new(),
        }
    }

    /// Takes over every queue of an activation, in its order. `counters[i]` counts for queue
    /// number `i`; a queue without one gets its own.
    pub fn from_activation(
        mut activation: Activation,
        counters: &[Arc<QueueCounters>],
    ) -> Vec<Self> {
        let queues = std::mem::take(&mut activation.queues);
        let counters_of = |index: u16| counters.get(usize::from(index)).cloned();
        queues
            .into_iter()
            .map(|queue| {
                let counters = counters_of(queue.index).unwrap_or_default();
                Self::new(queue, &activation, counters)
            })
            .collect()
    }

    /// Number of the queue in its device, from 0.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Entries of the ring: a power of two up to 32768.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Guest RAM, where the buffers are.
    pub fn memory(&self) -> &GuestRam {
        &self.memory
    }

    /// What counts this queue's work.
    pub fn counters(&self) -> &QueueCounters {
        &self.counters
    }

    /// Where the operator hears of the device.
    pub fn log(&self) -> &DeviceLog {
        &self.log
    }

    /// The interrupt to the driver, for devices that change their configuration.
    pub fn interrupt(&self) -> &dyn VirtioInterrupt {
        self.interrupt.as_ref()
    }

    /// What to watch for the driver's notifications (see
    /// [`EventSources::watch_event`](super::worker::EventSources::watch_event)).
    pub fn notify_fd(&self) -> RawFd {
        self.notify.as_raw_fd()
    }

    /// Makes the queue's own thread come back as if the driver had notified.
    pub fn notify_self(&mut self) {
        self.notified_self = true;
        // Fails only if the counter is full, and then it is readable.
        let _ = self.notify.write(1);
    }

    /// The queue's event was signalled: counts it, if that was the driver.
    pub fn notified(&mut self) {
        if !std::mem::take(&mut self.notified_self) {
            self.counters.notification();
        }
    }

    /// Takes the next chain; `None` when the driver has offered no more, or when as many are in
    /// flight as the ring has entries, which no driver that keeps the rules reaches.
    ///
    /// # Errors
    /// The rings are broken.
    pub fn pop(&mut self) -> Result<Option<Chain>, BrokenQueue> {
        if self.in_flight >= self.queue.size() {
            return Ok(None);
        }
        let descriptors = match self.queue.iter(&self.memory) {
            Ok(mut available) => available.next(),
            Err(virtio_queue::Error::InvalidAvailRingIndex) => {
                return Err(self.broken("more chains are available than the ring can hold"));
            }
            Err(_) => return Err(self.broken("the available ring cannot be read")),
        };
        let Some(descriptors) = descriptors else {
            return Ok(None);
        };
        let mut chain = self.spare.pop().unwrap_or_default();
        chain.parse(descriptors);
        if chain.head >= self.queue.size() {
            return Err(self.broken("a chain starts outside the descriptor table"));
        }
        self.in_flight += 1;
        Ok(Some(chain))
    }

    /// Whether [`DeviceQueue::pop`] would give a chain, or find the rings broken. Cheap, for who
    /// looks often: one read of memory that the driver writes when it has something.
    pub fn has_chains(&self) -> bool {
        if self.in_flight >= self.queue.size() {
            return false;
        }
        match self.queue.avail_idx(&self.memory, Ordering::Acquire) {
            Ok(index) => index.0 != self.queue.next_avail(),
            Err(_) => true,
        }
    }

    /// As [`DeviceQueue::pop`], for devices that can give no answer to a chain without an end.
    ///
    /// # Errors
    /// The rings are broken, or the chain is endless.
    pub fn pop_finite(&mut self) -> Result<Option<Chain>, BrokenQueue> {
        match self.pop()? {
            Some(chain) if chain.fault == Some(ChainFault::Endless) => {
                Err(self.broken("a buffer's descriptor chain has no end"))
            }
            chain => Ok(chain),
        }
    }

    /// Puts `chain`, the last that was taken, back, to be taken again later.
    pub fn undo_pop(&mut self, chain: Chain) {
        self.queue.go_to_previous_position();
        self.in_flight = self.in_flight.saturating_sub(1);
        self.recycle(chain);
    }

    /// Gives a chain back, with the number of bytes the device wrote to its start.
    ///
    /// # Errors
    /// The rings are broken.
    pub fn push(&mut self, chain: Chain, written: u32) -> Result<(), BrokenQueue> {
        if self.queue.add_used(&self.memory, chain.head, written).is_err() {
            return Err(self.broken("the used ring cannot be written"));
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.unsignalled = true;
        self.recycle(chain);
        Ok(())
    }

    /// Gives several chains back at once, and leaves the list empty: the driver sees all of them
    /// or none, which a frame over several receive buffers needs (virtio 1.2, 5.1.6.4).
    ///
    /// # Errors
    /// The rings are broken.
    pub fn push_together(&mut self, chains: &mut Vec<(Chain, u32)>) -> Result<(), BrokenQueue> {
        let Some((last, last_written)) = chains.pop() else {
            return Ok(());
        };
        // Everything but the last goes into the ring ahead of the index; the last one's
        // `add_used` then moves the index over all of them.
        let mut next = self.queue.next_used();
        for (chain, written) in chains.drain(..) {
            let slot = u64::from(next % self.queue.size());
            let element = u64::from(chain.head) | u64::from(written) << 32;
            let address = GuestAddress(self.queue.used_ring() + USED_RING + slot * USED_ELEMENT);
            if self.memory.write_obj(element.to_le(), address).is_err() {
                return Err(self.broken("the used ring cannot be written"));
            }
            next = next.wrapping_add(1);
            self.in_flight = self.in_flight.saturating_sub(1);
            self.recycle(chain);
        }
        self.queue.set_next_used(next);
        self.push(last, last_written)
    }

    /// Keeps the allocations of a chain, unless a driver made them larger than any sensible one.
    fn recycle(&mut self, chain: Chain) {
        if chain.capacity() <= 2 * usize::from(self.queue.size()) {
            self.spare.push(chain);
        }
    }

    /// Interrupts the driver if chains were given back and it wants to know; once per batch.
    ///
    /// # Errors
    /// The rings are broken.
    pub fn signal_used(&mut self) -> Result<(), BrokenQueue> {
        if !self.unsignalled {
            return Ok(());
        }
        self.unsignalled = false;
        match self.wants_interrupt() {
            Ok(true) => {
                self.counters.interrupt();
                self.interrupt.used_buffers(self.index);
                Ok(())
            }
            Ok(false) => Ok(()),
            Err(_) => Err(self.broken("the available ring cannot be read")),
        }
    }

    /// Both ways of the driver to be left alone (virtio 1.2, 2.7.7 and 2.7.10). The crate has the
    /// second only, and counts just what it put into the ring itself.
    fn wants_interrupt(&mut self) -> Result<bool, vm_memory::GuestMemoryError> {
        // Keeps the used ring's new index ahead of these reads, as the driver re-checks the
        // other way.
        fence(Ordering::SeqCst);
        let available = self.queue.avail_ring();
        if !self.queue.event_idx_enabled() {
            let flags: u16 = self.memory.load(GuestAddress(available), Ordering::Relaxed)?;
            return Ok(u32::from(u16::from_le(flags)) & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        let used_event = available + AVAILABLE_RING + 2 * u64::from(self.queue.size());
        let event: u16 = self.memory.load(GuestAddress(used_event), Ordering::Relaxed)?;
        let now = self.queue.next_used();
        let before = std::mem::replace(&mut self.signalled, now);
        let past_event = now.wrapping_sub(u16::from_le(event)).wrapping_sub(1);
        Ok(past_event < now.wrapping_sub(before))
    }

    /// Asks the driver for notifications again; whether chains arrived meanwhile, whose
    /// notification may have been lost.
    ///
    /// # Errors
    /// The rings are broken.
    pub fn enable_notifications(&mut self) -> Result<bool, BrokenQueue> {
        match self.queue.enable_notification(&self.memory) {
            Ok(more) => Ok(more && self.in_flight < self.queue.size()),
            Err(_) => Err(self.broken("the used ring cannot be written")),
        }
    }

    /// Tells the driver not to notify while the device is looking anyway.
    ///
    /// # Errors
    /// The rings are broken.
    pub fn disable_notifications(&mut self) -> Result<(), BrokenQueue> {
        match self.queue.disable_notification(&self.memory) {
            Ok(()) => Ok(()),
            Err(_) => Err(self.broken("the used ring cannot be written")),
        }
    }

    /// Sets DEVICE_NEEDS_RESET: for faults from which no answer in the rings is possible.
    pub fn broken(&self, reason: &'static str) -> BrokenQueue {
        self.counters.error();
        self.log.queue_broken(self.index, reason);
        self.interrupt.device_needs_reset();
        BrokenQueue { queue: self.index, reason }
    }
}

#[cfg(test)]
mod tests {
    use virtio_bindings::bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

    use super::super::testing::{
        Driver, INDIRECT, Inbox, NEXT, Signal, activation, interrupt, memory, readable, writable,
    };
    use super::*;

    const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

    fn queue(driver: &Driver, features: u64) -> (DeviceQueue, Inbox) {
        let (interrupt, inbox) = interrupt();
        let activation = activation(&driver.memory, features, Vec::new(), interrupt);
        (DeviceQueue::new(driver.queue(3, features), &activation, Arc::default()), inbox)
    }

    fn one_chain(prepare: impl FnOnce(&mut Driver) -> u16) -> Chain {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        let head = prepare(&mut driver);
        driver.offer(head);
        let (mut queue, _inbox) = queue(&driver, 0);
        queue.pop().unwrap().unwrap()
    }

    #[test]
    fn a_chain_comes_apart_into_readable_and_writable_buffers() {
        let chain = one_chain(|driver| {
            driver.chain(&[
                readable(0x5000, 16),
                readable(0x6000, 0),
                readable(0x7000, 4),
                writable(0x8000, 1),
            ])
        });
        assert_eq!(chain.fault, None);
        assert_eq!((chain.readable_length(), chain.writable_length()), (20, 1));
        assert_eq!(chain.readable.len(), 2, "the empty buffer is left out");
    }

    #[test]
    fn an_indirect_table_may_be_longer_than_the_ring() {
        let chain = one_chain(|driver| {
            let buffers: Vec<_> = (0..20).map(|i| readable(0x5000 + i * 16, 16)).collect();
            driver.indirect_chain(0x1_0000, &buffers)
        });
        assert_eq!(chain.fault, None);
        assert_eq!(chain.readable_length(), 320);
    }

    #[test]
    fn endless_chains_are_found_out() {
        type Prepare = fn(&mut Driver) -> u16;
        let cases: [(&str, Prepare); 6] = [
            ("loop", |driver| {
                driver.write_descriptor(0, readable(0x5000, 1), NEXT, 1);
                driver.write_descriptor(1, readable(0x5000, 1), NEXT, 0);
                0
            }),
            ("self loop", |driver| {
                driver.write_descriptor(2, writable(0x5000, 1), NEXT, 2);
                2
            }),
            ("next outside the table", |driver| {
                driver.write_descriptor(0, readable(0x5000, 1), NEXT, 8);
                0
            }),
            ("indirect table outside RAM", |driver| {
                driver.write_descriptor(0, readable(0x30_0000, 32), INDIRECT, 0);
                0
            }),
            ("indirect inside indirect", |driver| {
                driver.write_descriptor_at(0x5000, 0, readable(0x5000, 16), INDIRECT, 0);
                driver.write_descriptor(0, readable(0x5000, 16), INDIRECT, 0);
                0
            }),
            ("more than 4 GiB", |driver| {
                driver.chain(&[readable(0, u32::MAX), readable(0, u32::MAX)])
            }),
        ];
        for (name, prepare) in cases {
            assert_eq!(one_chain(prepare).fault, Some(ChainFault::Endless), "{name}");
        }
        let empty_table = one_chain(|driver| driver.indirect_chain(0x5000, &[]));
        assert_eq!(empty_table.fault, Some(ChainFault::Endless));
    }

    #[test]
    fn a_long_indirect_loop_ends_at_the_limit() {
        let chain = one_chain(|driver| {
            // 65535 descriptors, each pointing to itself.
            driver.write_descriptor_at(0x1_0000, 0, readable(0x5000, 1), NEXT, 0);
            driver.write_descriptor(0, readable(0x1_0000, 65535 * 16), INDIRECT, 0);
            0
        });
        assert_eq!(chain.fault, Some(ChainFault::Endless));
        assert!(chain.readable.len() <= super::super::chain::MAX_CHAIN_LENGTH);
    }

    #[test]
    fn readable_after_writable_is_a_fault_but_the_chain_is_walked() {
        let chain = one_chain(|driver| driver.chain(&[writable(0x5000, 1), readable(0x6000, 16)]));
        assert_eq!(chain.fault, Some(ChainFault::Order));
        assert_eq!(chain.writable_length(), 1);
    }

    #[test]
    fn an_index_that_jumps_too_far_breaks_the_queue() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        let (mut queue, inbox) = queue(&driver, 0);
        driver.jump(9);
        assert!(queue.pop().is_err());
        assert_eq!(inbox.drain(), [Signal::NeedsReset]);
    }

    #[test]
    fn a_head_outside_the_table_breaks_the_queue() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        let (mut queue, inbox) = queue(&driver, 0);
        driver.offer(8);
        assert!(queue.pop().is_err());
        assert_eq!(inbox.drain(), [Signal::NeedsReset]);
    }

    #[test]
    fn rings_wrap_and_so_do_their_indices() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 4);
        driver.start_at(u16::MAX - 5);
        let (mut queue, _inbox) = queue(&driver, EVENT_IDX);
        for round in 0..20 {
            let head = driver.chain(&[readable(0x5000, 1), writable(0x6000, 4)]);
            driver.offer(head);
            let chain = queue.pop().unwrap().unwrap();
            assert_eq!((chain.head, chain.fault), (head, None));
            queue.push(chain, round).unwrap();
            assert_eq!(driver.used(), [(head.into(), round)]);
            assert!(queue.pop().unwrap().is_none());
        }
    }

    #[test]
    fn no_more_chains_are_taken_than_the_ring_has_entries() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 2);
        let (mut queue, _inbox) = queue(&driver, 0);
        let head = driver.chain(&[readable(0x5000, 1)]);
        let mut pop = || {
            driver.offer(head);
            queue.pop().unwrap()
        };
        let (first, _second) = (pop().unwrap(), pop().unwrap());
        assert!(pop().is_none(), "the same chain a third time");
        assert!(!queue.enable_notifications().unwrap());
        queue.push(first, 0).unwrap();
        assert!(queue.pop().unwrap().is_some());
    }

    #[test]
    fn one_interrupt_a_batch_and_only_where_event_idx_asks_for_it() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        let (mut queue, inbox) = queue(&driver, EVENT_IDX);
        let head = driver.chain(&[readable(0x5000, 1)]);
        let mut complete = |driver: &mut Driver, count: usize| {
            for _ in 0..count {
                driver.offer(head);
                let chain = queue.pop().unwrap().unwrap();
                queue.push(chain, 0).unwrap();
            }
            queue.signal_used().unwrap();
            inbox.drain()
        };
        driver.set_used_event(0);
        assert_eq!(complete(&mut driver, 3), [Signal::Used(3)]);
        driver.set_used_event(5);
        assert_eq!(complete(&mut driver, 2), [], "used index 5 is not past 5");
        assert_eq!(complete(&mut driver, 1), [Signal::Used(3)]);
        assert_eq!(complete(&mut driver, 0), [], "nothing new to signal");
    }

    #[test]
    fn without_event_idx_the_no_interrupt_flag_counts() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        let (mut queue, inbox) = queue(&driver, 0);
        let head = driver.chain(&[readable(0x5000, 1)]);
        for (flags, expected) in [(1, vec![]), (0, vec![Signal::Used(3)])] {
            driver.set_available_flags(flags);
            driver.offer(head);
            let chain = queue.pop().unwrap().unwrap();
            queue.push(chain, 0).unwrap();
            queue.signal_used().unwrap();
            assert_eq!(inbox.drain(), expected);
        }
    }

    #[test]
    fn enabling_notifications_tells_of_chains_that_came_meanwhile() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        let (mut queue, _inbox) = queue(&driver, EVENT_IDX);
        assert!(!queue.enable_notifications().unwrap());
        assert_eq!(driver.avail_event(), 0);
        let head = driver.chain(&[readable(0x5000, 1)]);
        driver.offer(head);
        assert!(queue.enable_notifications().unwrap());
        queue.pop().unwrap().unwrap();
        assert!(!queue.enable_notifications().unwrap());
        assert_eq!(driver.avail_event(), 1);
    }

    #[test]
    fn a_chain_put_back_comes_again() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        let (mut queue, _inbox) = queue(&driver, 0);
        let head = driver.chain(&[readable(0x5000, 1)]);
        driver.offer(head);
        let chain = queue.pop().unwrap().unwrap();
        assert_eq!(chain.head, head);
        queue.undo_pop(chain);
        assert_eq!(queue.pop().unwrap().unwrap().head, head);
        assert!(queue.pop().unwrap().is_none());
    }

    #[test]
    fn chains_given_back_together_appear_together_and_interrupt_once() {
        let memory = memory();
        let mut driver = Driver::new(&memory, 0, 8);
        driver.start_at(0xFFFE);
        let heads: Vec<u16> = (0..4).map(|i| driver.chain(&[writable(0x5000 + i, 1)])).collect();
        heads.iter().for_each(|head| driver.offer(*head));
        let (mut queue, inbox) = queue(&driver, EVENT_IDX);
        let mut chains = Vec::new();
        while let Some(chain) = queue.pop().unwrap() {
            chains.push((chain, 100));
        }
        // The driver asks for an interrupt at the second of them.
        driver.set_used_event(0xFFFF);
        queue.push_together(&mut Vec::new()).unwrap();
        queue.signal_used().unwrap();
        queue.push_together(&mut chains).unwrap();
        queue.signal_used().unwrap();
        let expected: Vec<(u32, u32)> = heads.iter().map(|head| (u32::from(*head), 100)).collect();
        assert_eq!(driver.used(), expected);
        assert_eq!(inbox.drain(), [Signal::Used(3)]);
        // It has not asked again.
        driver.offer(heads[0]);
        let again = queue.pop().unwrap().unwrap();
        queue.push(again, 0).unwrap();
        queue.signal_used().unwrap();
        assert_eq!(inbox.drain(), []);
    }
}
