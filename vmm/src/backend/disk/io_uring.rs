//! The io_uring engine: as many requests at a time as the guest queues, one system call a batch.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use io_uring::{IoUring, opcode, squeue, types};
use vm_memory::GuestMemoryBackend;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::blocking::{MAX_BOUNCE, PUNCH, ZERO, end_of_file, is_unsupported, perform, write_flags};
use super::buffer::{BounceBuffer, Vectors, gather, scatter};
use super::image::{DiskImage, Route};
use super::{DiskCompletion, DiskEngine, DiskOperation, DiskRequest};
use crate::memory::GuestRam;

/// Whose completion is of no interest: an attempt to cancel.
const NO_SLOT: u64 = u64::MAX;

/// linux/io_uring.h.
const IORING_ENTER_GETEVENTS: u32 = 1;

/// One request in the kernel's hands.
struct Slot {
    request: DiskRequest,
    vectors: Vectors,
    /// Where the data is when O_DIRECT could not use guest memory.
    bounce: Option<BounceBuffer>,
    fd: RawFd,
    /// Bytes transferred by earlier, short steps.
    done: u64,
    /// The operation is done; what is under way is the fdatasync that makes it durable.
    syncing: bool,
    /// Nobody waits for it: whatever the kernel answers is its end.
    abandoned: bool,
}

impl Slot {
    /// Neither uses guest memory nor changes the disk.
    fn is_harmless(&self) -> bool {
        self.syncing || self.request.operation == DiskOperation::Flush
    }
}

/// See [`EngineKind::IoUring`](super::EngineKind::IoUring).
///
/// While a slot is taken the kernel may access its vectors: they stay valid because `memory`
/// keeps the guest's RAM mapped and `bounce` its buffer, and because dropping the engine first
/// waits for all of them.
pub struct IoUringEngine {
    ring: IoUring,
    image: Arc<DiskImage>,
    event: EventFd,
    memory: Option<GuestRam>,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    /// Slots whose entries are in the ring but not yet taken by the kernel, oldest first.
    unsubmitted: VecDeque<usize>,
    /// Requests that came while all slots were taken.
    backlog: VecDeque<DiskRequest>,
    done: Vec<DiskCompletion>,
    /// Empty between calls; kept for its allocation.
    completed: Vec<(usize, i32)>,
    /// The event may be readable: someone was to be told of completions by it.
    armed: bool,
    /// `io_uring_enter` failed for good; the ring must not be entered again.
    broken: bool,
}

impl IoUringEngine {
    /// A ring for `depth` requests at a time.
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
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth).rev().collect(),
            unsubmitted: VecDeque::with_capacity(depth),
            backlog: VecDeque::new(),
            done: Vec::new(),
            completed: Vec::with_capacity(depth),
            armed: false,
            broken: false,
        })
    }

    fn finish(&mut self, tag: u64, result: io::Result<()>) {
        self.done.push(DiskCompletion { tag, result });
    }

    /// Requests in the kernel's hands.
    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len() - self.unsubmitted.len()
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

    /// Starts a request, or finishes it at once where there is nothing to wait for.
    fn start(&mut self, request: DiskRequest) {
        let tag = request.tag;
        if self.broken {
            return self.finish(tag, Err(io::Error::from_raw_os_error(libc::EIO)));
        }
        match self.prepare(request) {
            Ok(Some(slot)) => {
                // `submit` and `refill` start nothing without a free slot.
                let Some(index) = self.free.pop() else {
                    return self.finish(tag, Err(io::Error::from_raw_os_error(libc::EBUSY)));
                };
                self.slots[index] = Some(slot);
                self.enqueue(index);
            }
            Ok(None) => self.finish(tag, Ok(())),
            Err(error) => self.finish(tag, Err(error)),
        }
    }

    /// `None`: already done.
    fn prepare(&mut self, request: DiskRequest) -> io::Result<Option<Slot>> {
        self.image.check(&request)?;
        let mut slot = Slot {
            fd: self.image.fd(),
            request,
            vectors: Vectors::default(),
            bounce: None,
            done: 0,
            syncing: false,
            abandoned: false,
        };
        let request = &slot.request;
        let write = request.operation == DiskOperation::Write;
        if !write && request.operation != DiskOperation::Read {
            let nothing = request.length == 0 && request.operation != DiskOperation::Flush;
            return Ok((!nothing).then_some(slot));
        }
        let Some(memory) = &self.memory else {
            return Err(io::Error::from_raw_os_error(libc::EFAULT));
        };
        if request.length == 0 {
            return Ok(None);
        }
        slot.vectors = Vectors::guest(memory, &request.segments)?;
        match self.image.route(request, &slot.vectors) {
            Route::Straight(fd) => slot.fd = fd,
            // Rare, and unbounded memory otherwise.
            Route::Bounce(_) if request.length > MAX_BOUNCE as u64 => {
                return perform(&self.image, memory, request).map(|()| None);
            }
            Route::Bounce(fd) => {
                slot.fd = fd;
                // At most MAX_BOUNCE.
                let length = request.length as usize;
                let mut buffer = BounceBuffer::new(length);
                if write {
                    gather(memory, &request.segments, 0, buffer.bytes())?;
                }
                slot.vectors = Vectors::bounce(&mut buffer, length);
                slot.bounce = Some(buffer);
            }
        }
        Ok(Some(slot))
    }

    /// Puts the next step of a slot into the ring.
    fn enqueue(&mut self, index: usize) {
        let Some(slot) = &self.slots[index] else {
            return;
        };
        let entry = entry(slot, &self.image).user_data(index as u64);
        // SAFETY: the vectors and what they point to stay until the slot is freed, which happens
        // when the kernel has completed the entry (see the type's documentation).
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            // Cannot happen: the ring has an entry for every slot, and a slot has one at a time.
            let tag = self.release(index);
            return self.finish(tag, Err(io::Error::from_raw_os_error(libc::EBUSY)));
        }
        self.unsubmitted.push_back(index);
    }

    /// Frees a slot that the kernel is done with; its request's tag.
    fn release(&mut self, index: usize) -> u64 {
        self.free.push(index);
        self.slots[index].take().map_or(0, |slot| slot.request.tag)
    }

    /// Hands the ring's new entries to the kernel.
    fn enter(&mut self) {
        while !self.unsubmitted.is_empty() && !self.broken {
            match self.ring.submit() {
                Ok(taken) => {
                    let taken = taken.min(self.unsubmitted.len());
                    self.unsubmitted.drain(..taken);
                    if taken == 0 {
                        return self.come_back();
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The host is short of memory, or completions must be taken first.
                    Some(libc::EAGAIN | libc::EBUSY) => return self.come_back(),
                    _ => self.give_up(),
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
    fn give_up(&mut self) {
        self.broken = true;
        while let Some(index) = self.unsubmitted.pop_front() {
            let tag = self.release(index);
            self.finish(tag, Err(io::Error::from_raw_os_error(libc::EIO)));
        }
        self.armed = true;
        let _ = self.event.write(1);
    }

    /// Takes what the kernel has completed; whether there was anything.
    fn reap(&mut self) -> bool {
        let mut completed = std::mem::take(&mut self.completed);
        completed.extend(
            self.ring
                .completion()
                // Slot numbers, as pushed.
                .map(|entry| (entry.user_data() as usize, entry.result())),
        );
        let reaped = !completed.is_empty();
        for (index, result) in completed.drain(..) {
            let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut) else {
                continue;
            };
            if slot.abandoned {
                self.release(index);
                continue;
            }
            match step(slot, result, &self.image, self.memory.as_ref()) {
                Some(result) => {
                    let tag = self.release(index);
                    self.finish(tag, result);
                }
                None if self.broken => {
                    let tag = self.release(index);
                    self.finish(tag, Err(io::Error::from_raw_os_error(libc::EIO)));
                }
                None => self.enqueue(index),
            }
        }
        self.completed = completed;
        reaped
    }

    fn refill(&mut self) {
        while !self.free.is_empty() || self.broken {
            let Some(request) = self.backlog.pop_front() else {
                return;
            };
            self.start(request);
        }
    }

    /// Tries to take back what the kernel has not begun, of regular files mostly: it queues those
    /// for a few threads of its own. What it has begun goes on.
    fn cancel(&mut self) {
        for index in 0..self.slots.len() {
            let Some(slot) = &mut self.slots[index] else { continue };
            slot.abandoned = true;
            if self.ring.submission().is_full() {
                self.submit_everything();
            }
            let entry = opcode::AsyncCancel::new(index as u64).build().user_data(NO_SLOT);
            // SAFETY: the entry has no pointers. It cannot fail in a way that matters: what is not
            // cancelled is waited for.
            let _ = unsafe { self.ring.submission().push(&entry) };
        }
        self.submit_everything();
    }

    /// Hands over all of the ring, so that `enter` again counts entries of slots only.
    fn submit_everything(&mut self) {
        while !self.broken && !self.ring.submission().is_empty() {
            match self.ring.submit().map_err(|error| error.raw_os_error()) {
                Ok(_) | Err(Some(libc::EINTR)) => {}
                Err(Some(libc::EAGAIN | libc::EBUSY)) => {
                    self.reap();
                    std::thread::yield_now();
                }
                Err(_) => self.give_up(),
            }
        }
    }

    /// Waits until the kernel uses no memory of ours.
    fn drain(&mut self) {
        self.drain_until(|engine| engine.in_flight() == 0 && engine.unsubmitted.is_empty());
    }

    fn drain_until(&mut self, done: impl Fn(&Self) -> bool) {
        loop {
            self.enter();
            if done(self) {
                return;
            }
            if self.in_flight() == 0 {
                // The kernel took nothing for now, or nothing is left.
                if self.unsubmitted.is_empty() {
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
                self.free.clear();
                self.unsubmitted.clear();
                self.broken = true;
                return;
            }
            self.reap();
        }
    }
}

impl DiskEngine for IoUringEngine {
    fn submit(&mut self, memory: &GuestRam, request: DiskRequest) {
        self.hold(memory);
        if self.free.is_empty() && !self.broken {
            self.backlog.push_back(request);
        } else {
            self.start(request);
        }
    }

    fn kick(&mut self) {
        // What completes on the way needs no event: `completions` is asked next.
        self.ring.completion().disable_eventfd();
        self.enter();
    }

    fn completion_event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    fn completions(&mut self, done: &mut Vec<DiskCompletion>) {
        // Before looking, so that what completes afterwards makes it readable again. WouldBlock
        // where nothing has.
        if std::mem::take(&mut self.armed) {
            let _ = self.event.read();
        }
        loop {
            let reaped = self.reap();
            self.refill();
            self.enter();
            done.append(&mut self.done);
            if reaped {
                continue;
            }
            if self.in_flight() == 0 {
                return;
            }
            // Armed first and looked again afterwards, or a completion in between would be told
            // by nobody.
            let mut completion = self.ring.completion();
            if !completion.eventfd_disabled() {
                return self.armed = true;
            }
            completion.enable_eventfd();
            self.armed = true;
            fence(Ordering::SeqCst);
            completion.sync();
            if completion.is_empty() {
                return;
            }
        }
    }

    fn abandon(&mut self) {
        self.backlog.clear();
        while !self.unsubmitted.is_empty() && !self.broken {
            self.enter();
        }
        self.cancel();
        // A flush may take as long as the disk likes, and concerns nobody any more.
        self.drain_until(|engine| engine.slots.iter().flatten().all(Slot::is_harmless));
        self.done.clear();
    }
}

impl Drop for IoUringEngine {
    fn drop(&mut self) {
        self.backlog.clear();
        self.drain();
    }
}

/// The ring entry for a slot's next step.
fn entry(slot: &Slot, image: &DiskImage) -> squeue::Entry {
    let fd = types::Fd(slot.fd);
    let sync = || opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build();
    if slot.syncing {
        return sync();
    }
    let request = &slot.request;
    let window = slot.vectors.window();
    // At most UIO_MAXIOV.
    let count = window.len() as u32;
    let offset = request.offset + slot.done;
    let allocate =
        |mode| opcode::Fallocate::new(fd, request.length).offset(request.offset).mode(mode).build();
    match request.operation {
        DiskOperation::Read => {
            opcode::Readv::new(fd, window.as_ptr(), count).offset(offset).build()
        }
        DiskOperation::Write => opcode::Writev::new(fd, window.as_ptr(), count)
            .offset(offset)
            .rw_flags(write_flags(image))
            .build(),
        DiskOperation::Flush => sync(),
        DiskOperation::Discard | DiskOperation::WriteZeroes { unmap: true } => allocate(PUNCH),
        DiskOperation::WriteZeroes { unmap: false } => allocate(ZERO),
    }
}

/// Takes the kernel's answer to a slot's step: the request's end, or `None` if a further step
/// must follow.
fn step(
    slot: &mut Slot,
    result: i32,
    image: &DiskImage,
    memory: Option<&GuestRam>,
) -> Option<io::Result<()>> {
    let request = &slot.request;
    let Ok(count) = usize::try_from(result) else {
        let error = io::Error::from_raw_os_error(result.saturating_neg());
        let plain = matches!(
            request.operation,
            DiskOperation::Read | DiskOperation::Write | DiskOperation::Flush
        );
        return match (error.raw_os_error(), memory) {
            (Some(libc::EINTR), _) => None,
            // What the kernel does not do asynchronously is done here.
            (Some(libc::EAGAIN), Some(memory)) => Some(perform(image, memory, request)),
            (_, Some(memory)) if !plain && !slot.syncing && is_unsupported(&error) => {
                Some(perform(image, memory, request))
            }
            _ => Some(Err(error)),
        };
    };
    let write = match request.operation {
        DiskOperation::Read => false,
        DiskOperation::Write => true,
        DiskOperation::Flush => return Some(Ok(())),
        DiskOperation::Discard | DiskOperation::WriteZeroes { .. } => {
            if slot.syncing || !image.durable_writes() {
                return Some(Ok(()));
            }
            slot.syncing = true;
            return None;
        }
    };
    if count == 0 {
        return Some(Err(end_of_file(write)));
    }
    slot.vectors.advance(count);
    slot.done += count as u64;
    if !slot.vectors.is_empty() {
        return None;
    }
    match (&mut slot.bounce, memory) {
        (Some(buffer), Some(memory)) if !write => {
            Some(scatter(memory, &request.segments, 0, buffer.bytes()))
        }
        _ => Some(Ok(())),
    }
}

/// Whether two handles mean the same mapping.
fn same(one: &GuestRam, other: &GuestRam) -> bool {
    one.num_regions() == other.num_regions()
        && one.iter().zip(other.iter()).all(|(a, b)| a.as_ptr() == b.as_ptr())
}
