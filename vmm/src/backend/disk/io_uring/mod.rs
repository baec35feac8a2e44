//! The io_uring engine: as many requests at a time as the guest queues, one system call a batch.

mod slot;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use io_uring::{IoUring, opcode};
use vm_memory::GuestMemoryBackend;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::slot::{Slot, State, entry, step};
use super::blocking::{MAX_BOUNCE, perform};
use super::buffer::{BounceBuffer, gather};
use super::image::{DiskImage, Route};
use super::{DiskCompletion, DiskEngine, DiskOperation, DiskRequest};
use crate::memory::GuestRam;

/// Whose completion is of no interest: an attempt to cancel.
const NO_SLOT: u64 = u64::MAX;

/// linux/io_uring.h.
const IORING_ENTER_GETEVENTS: u32 = 1;

/// See [`EngineKind::IoUring`](super::EngineKind::IoUring).
///
/// Until a slot is free again the kernel may access its vectors: they stay valid because `memory`
/// keeps the guest's RAM mapped and `bounce` its buffer, and because dropping the engine first
/// waits for all of them.
pub struct IoUringEngine {
    ring: IoUring,
    image: Arc<DiskImage>,
    event: EventFd,
    memory: Option<GuestRam>,
    /// What is in flight: [`DiskRequest::tag`] is the index.
    slots: Vec<Slot>,
    /// Part of what the kernel gives back with a tag: requests that were abandoned and do no harm
    /// may end when their tag is another's.
    generation: u32,
    /// Entries that the ring takes.
    depth: usize,
    /// Tags whose next step is not yet in the ring.
    waiting: VecDeque<u16>,
    /// Tags whose entries are in the ring but not yet taken by the kernel, oldest first.
    unsubmitted: VecDeque<u16>,
    /// Entries that the kernel has taken and not completed.
    in_kernel: usize,
    done: Vec<DiskCompletion>,
    /// Empty between calls; kept for its allocation.
    completed: Vec<(u64, i32)>,
    /// The event may be readable: someone was to be told of completions by it.
    armed: bool,
    /// `io_uring_enter` failed for good; the ring must not be entered again.
    broken: bool,
}

impl IoUringEngine {
    /// A ring for `depth` requests at a time; more wait here.
    ///
    /// # Errors
    /// The kernel has no io_uring or forbids it.
    pub fn new(image: Arc<DiskImage>, depth: u16) -> io::Result<Self> {
        let depth = u32::from(depth.clamp(1, 1024)).next_power_of_two();
        // Completions are looked for after system calls only, so no need to be interrupted for
        // them; kernels before 5.19 do not know the flag.
        let ring = match IoUring::builder().setup_coop_taskrun().build(depth) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => IoUring::new(depth)?,
            result => result?,
        };
        let event = EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let mut ring = ring;
        ring.completion().disable_eventfd();
        let depth = depth as usize;
        Ok(Self {
            ring,
            image,
            event,
            memory: None,
            slots: Vec::new(),
            generation: 0,
            depth,
            waiting: VecDeque::with_capacity(depth),
            unsubmitted: VecDeque::with_capacity(depth),
            in_kernel: 0,
            done: Vec::new(),
            completed: Vec::with_capacity(depth),
            armed: false,
            broken: false,
        })
    }

    /// The end of a request.
    fn finish(
        &mut self,
        tag: u16,
        operation: DiskOperation,
        (offset, length): (u64, u64),
        result: io::Result<()>,
    ) {
        self.image.note_end(operation, offset, length, &result);
        self.done.push(DiskCompletion { tag, result });
    }

    /// The end of a request that has a slot.
    fn release(&mut self, tag: u16, result: io::Result<()>) {
        let slot = &mut self.slots[usize::from(tag)];
        let state = std::mem::replace(&mut slot.state, State::Free);
        slot.bounce = None;
        let (operation, range) = (slot.operation, (slot.offset, slot.length));
        if state == State::Taken {
            self.finish(tag, operation, range, result);
        }
    }

    /// Keeps `memory` mapped for as long as requests use it.
    fn hold(&mut self, memory: &GuestRam) {
        if self.memory.as_ref().is_some_and(|held| same(held, memory)) {
            return;
        }
        // One machine has one RAM; should it ever change, nothing may be using the old one.
        self.drain();
        self.memory = Some(memory.clone());
    }

    /// Fills the slot of a request. `false`: there is nothing to wait for.
    fn prepare(&mut self, memory: &GuestRam, request: &DiskRequest<'_>) -> io::Result<bool> {
        self.image.check(request)?;
        let tag = usize::from(request.tag);
        if self.slots.len() <= tag {
            self.slots.resize_with(tag + 1, Slot::default);
        }
        let slot = &mut self.slots[tag];
        debug_assert!(slot.is_free(), "tag {tag} is in flight");
        (slot.operation, slot.offset) = (request.operation, request.offset);
        (slot.length, slot.fd) = (request.length, self.image.fd());
        (slot.done, slot.syncing) = (0, false);
        if request.length == 0 && request.operation != DiskOperation::Flush {
            return Ok(false);
        }
        if !slot.is_transfer() {
            return Ok(true);
        }
        slot.vectors.set_guest(memory, request.segments)?;
        match self.image.route(request.offset, request.length, &slot.vectors) {
            Route::Straight(fd) => slot.fd = fd,
            // Rare, and unbounded memory otherwise.
            Route::Bounce(_) if request.length > MAX_BOUNCE as u64 => {
                return perform(&self.image, memory, request, &mut slot.vectors).map(|()| false);
            }
            Route::Bounce(fd) => {
                slot.fd = fd;
                // At most MAX_BOUNCE.
                let length = request.length as usize;
                let mut buffer = BounceBuffer::new(length);
                if request.operation == DiskOperation::Write {
                    gather(memory, request.segments, 0, buffer.bytes())?;
                }
                slot.vectors.set_bounce(&mut buffer, length);
                slot.segments.clear();
                slot.segments.extend_from_slice(request.segments);
                slot.bounce = Some(buffer);
            }
        }
        Ok(true)
    }

    fn user_data(&self, tag: u16) -> u64 {
        u64::from(self.generation) << 32 | u64::from(tag)
    }

    /// Puts waiting steps into the ring, as many as it and its completion queue have room for.
    fn fill_ring(&mut self) {
        while self.unsubmitted.len() + self.in_kernel < self.depth
            && let Some(&tag) = self.waiting.front()
        {
            let slot = &self.slots[usize::from(tag)];
            let entry = entry(slot, &self.image).user_data(self.user_data(tag));
            // SAFETY: the vectors and what they point to stay until the slot is free, which it is
            // when the kernel has completed the entry (see the type's documentation).
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                return;
            }
            self.waiting.pop_front();
            self.unsubmitted.push_back(tag);
        }
    }

    /// Hands new entries to the kernel.
    fn enter(&mut self) {
        while !self.broken {
            self.fill_ring();
            if self.unsubmitted.is_empty() {
                return;
            }
            match self.ring.submit() {
                Ok(taken) => {
                    let taken = taken.min(self.unsubmitted.len());
                    self.unsubmitted.drain(..taken);
                    self.in_kernel += taken;
                    if taken == 0 {
                        return self.come_back();
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The host is short of memory, or completions must be taken first.
                    Some(libc::EAGAIN | libc::EBUSY) => return self.come_back(),
                    _ => self.give_up(&error),
                },
            }
        }
    }

    /// Makes the front end call again, and lets others run meanwhile.
    fn come_back(&mut self) {
        std::thread::yield_now();
        self.armed = true;
        // Fails only if the counter is full, and then it is readable.
        let _ = self.event.write(1);
    }

    /// The kernel refuses the ring: what it has not taken fails, what it has completes.
    fn give_up(&mut self, error: &io::Error) {
        let disk = self.image.path().display();
        tracing::error!(%disk, %error, "io_uring does not work any more; the disk is dead");
        self.broken = true;
        while let Some(tag) = self.unsubmitted.pop_front().or_else(|| self.waiting.pop_front()) {
            self.release(tag, Err(io::Error::from_raw_os_error(libc::EIO)));
        }
        self.armed = true;
        let _ = self.event.write(1);
    }

    /// Takes what the kernel has completed; whether there was anything.
    fn reap(&mut self) -> bool {
        let mut completed = std::mem::take(&mut self.completed);
        completed.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        let reaped = !completed.is_empty();
        for (user_data, result) in completed.drain(..) {
            if user_data == NO_SLOT {
                continue;
            }
            self.in_kernel = self.in_kernel.saturating_sub(1);
            // As composed in `user_data`.
            let (generation, tag) = ((user_data >> 32) as u32, user_data as u16);
            let slot = match self.slots.get_mut(usize::from(tag)) {
                Some(slot) if generation == self.generation && !slot.is_free() => slot,
                // Abandoned long ago.
                _ => continue,
            };
            let abandoned = slot.state == State::Abandoned;
            let end = match abandoned {
                true => Some(Ok(())),
                false => step(slot, result, &self.image, self.memory.as_ref()),
            };
            match end {
                Some(result) => self.release(tag, result),
                None if self.broken => {
                    self.release(tag, Err(io::Error::from_raw_os_error(libc::EIO)));
                }
                None => self.waiting.push_back(tag),
            }
        }
        self.completed = completed;
        reaped
    }

    /// Tries to take back what the kernel has not begun, of regular files mostly: it queues those
    /// for a few threads of its own. What it has begun goes on.
    fn cancel(&mut self) {
        for index in 0..self.slots.len() {
            if self.slots[index].is_free() {
                continue;
            }
            if self.ring.submission().is_full() {
                self.submit_everything();
            }
            // Tags are 16 bits.
            let entry = opcode::AsyncCancel::new(self.user_data(index as u16)).build();
            // SAFETY: the entry has no pointers. It cannot fail in a way that matters: what is not
            // cancelled is waited for.
            let _ = unsafe { self.ring.submission().push(&entry.user_data(NO_SLOT)) };
        }
        self.submit_everything();
    }

    /// Hands over all of the ring, so that `enter` again counts entries of slots only.
    fn submit_everything(&mut self) {
        while !self.broken && !self.ring.submission().is_empty() {
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => {
                        self.reap();
                        std::thread::yield_now();
                    }
                    _ => self.give_up(&error),
                },
            }
        }
    }

    /// Waits until the kernel uses no memory of ours.
    fn drain(&mut self) {
        self.drain_until(|_| false);
    }

    /// Waits until `done`, or nothing is left to wait for.
    fn drain_until(&mut self, done: impl Fn(&Self) -> bool) {
        loop {
            self.enter();
            if done(self) {
                return;
            }
            if self.in_kernel == 0 {
                // The kernel took nothing for now, or nothing is left.
                if self.unsubmitted.is_empty() && self.waiting.is_empty() {
                    return;
                }
                continue;
            }
            // SAFETY: submits nothing and passes no argument; only waits.
            let result = unsafe {
                self.ring.submitter().enter::<libc::sigset_t>(0, 1, IORING_ENTER_GETEVENTS, None)
            };
            let fatal = |code| !matches!(code, libc::EINTR | libc::EAGAIN | libc::EBUSY);
            if let Err(error) = result
                && error.raw_os_error().is_none_or(fatal)
            {
                // The kernel may still write there: better leaked than reused.
                std::mem::forget(self.memory.clone());
                std::mem::forget(std::mem::take(&mut self.slots));
                self.waiting.clear();
                self.unsubmitted.clear();
                self.in_kernel = 0;
                self.broken = true;
                return;
            }
            self.reap();
        }
    }
}

impl DiskEngine for IoUringEngine {
    fn submit(&mut self, memory: &GuestRam, request: DiskRequest<'_>) {
        self.hold(memory);
        let (tag, range) = (request.tag, (request.offset, request.length));
        let prepared = match self.broken {
            true => Err(io::Error::from_raw_os_error(libc::EIO)),
            false => self.prepare(memory, &request),
        };
        match prepared {
            Ok(true) => {
                self.slots[usize::from(tag)].state = State::Taken;
                self.waiting.push_back(tag);
            }
            Ok(false) => self.finish(tag, request.operation, range, Ok(())),
            Err(error) => self.finish(tag, request.operation, range, Err(error)),
        }
    }

    fn kick(&mut self) {
        // What completes on the way needs no event: `completions` is asked next.
        self.ring.completion().disable_eventfd();
        self.enter();
    }

    fn completions(&mut self, done: &mut Vec<DiskCompletion>) {
        // Before looking, so that what completes afterwards makes it readable again. WouldBlock
        // where nothing has.
        if std::mem::take(&mut self.armed) {
            let _ = self.event.read();
        }
        loop {
            let reaped = self.reap();
            self.enter();
            done.append(&mut self.done);
            if !reaped {
                return;
            }
        }
    }

    fn has_completions(&mut self) -> bool {
        !self.done.is_empty() || self.in_kernel > 0 && !self.ring.completion().is_empty()
    }

    fn completion_event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    fn arm(&mut self) -> bool {
        if !self.done.is_empty() {
            return true;
        }
        if self.in_kernel == 0 {
            return false;
        }
        // Armed first and looked again afterwards, or a completion in between would be told by
        // nobody.
        self.ring.completion().enable_eventfd();
        self.armed = true;
        fence(Ordering::SeqCst);
        !self.ring.completion().is_empty()
    }

    fn abandon(&mut self) {
        for tag in std::mem::take(&mut self.waiting) {
            self.slots[usize::from(tag)].state = State::Free;
        }
        while !self.unsubmitted.is_empty() && !self.broken {
            self.enter();
        }
        for slot in self.slots.iter_mut().filter(|slot| !slot.is_free()) {
            slot.state = State::Abandoned;
        }
        self.cancel();
        // A flush may take as long as the disk likes, and concerns nobody any more.
        self.drain_until(|engine| {
            engine.slots.iter().all(|slot| slot.is_free() || slot.is_harmless())
        });
        for slot in &mut self.slots {
            slot.state = State::Free;
        }
        self.generation = self.generation.wrapping_add(1);
        self.done.clear();
    }
}

impl Drop for IoUringEngine {
    fn drop(&mut self) {
        self.waiting.clear();
        self.drain();
    }
}

/// Whether two handles mean the same mapping.
fn same(one: &GuestRam, other: &GuestRam) -> bool {
    one.num_regions() == other.num_regions()
        && one.iter().zip(other.iter()).all(|(a, b)| a.as_ptr() == b.as_ptr())
}
