//! vhost-net: the host kernel works a queue pair (linux/vhost.h).

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use virtio_queue::{Queue, QueueT};
use vm_memory::{Address, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::EventFd;

use super::pair::PairControl;
use crate::backend::net::NetBackend;
use crate::irq::VirtioInterrupt;
use crate::memory::GuestRam;
use crate::threads;
use crate::virtio::ActiveQueue;
use crate::virtio::worker::{EventHandler, EventSources};

/// The device node of the module vhost_net.
pub const DEVICE: &str = "/dev/vhost-net";

/// VHOST_VIRTIO, the ioctls' type.
const TYPE: u32 = 0xAF;
const GET_FEATURES: libc::Ioctl = libc::_IOR::<u64>(TYPE, 0x00);
const SET_FEATURES: libc::Ioctl = libc::_IOW::<u64>(TYPE, 0x00);
const SET_OWNER: libc::Ioctl = libc::_IO(TYPE, 0x01);
const SET_MEM_TABLE: libc::Ioctl = libc::_IOW::<MemoryHeader>(TYPE, 0x03);
const SET_VRING_NUM: libc::Ioctl = libc::_IOW::<VringState>(TYPE, 0x10);
const SET_VRING_ADDR: libc::Ioctl = libc::_IOW::<VringAddresses>(TYPE, 0x11);
const SET_VRING_BASE: libc::Ioctl = libc::_IOW::<VringState>(TYPE, 0x12);
const SET_VRING_KICK: libc::Ioctl = libc::_IOW::<VringFile>(TYPE, 0x20);
const SET_VRING_CALL: libc::Ioctl = libc::_IOW::<VringFile>(TYPE, 0x21);
const SET_VRING_BUSYLOOP_TIMEOUT: libc::Ioctl = libc::_IOW::<VringState>(TYPE, 0x23);
const NET_SET_BACKEND: libc::Ioctl = libc::_IOW::<VringFile>(TYPE, 0x30);

/// `struct vhost_memory` up to its regions.
#[repr(C)]
struct MemoryHeader {
    regions: u32,
    padding: u32,
}

/// The most regions we pass; RAM has one piece on each side of the hole.
const MAX_REGIONS: usize = 8;

#[repr(C)]
struct MemoryTable {
    header: MemoryHeader,
    regions: [MemoryRegion; MAX_REGIONS],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct MemoryRegion {
    guest: u64,
    size: u64,
    user: u64,
    flags: u64,
}

#[repr(C)]
struct VringState {
    index: u32,
    number: u32,
}

#[repr(C)]
struct VringFile {
    index: u32,
    fd: RawFd,
}

#[repr(C)]
struct VringAddresses {
    index: u32,
    flags: u32,
    descriptors: u64,
    used: u64,
    available: u64,
    log: u64,
}

/// An open /dev/vhost-net: serves one queue pair at a time.
pub struct VhostNet {
    device: Arc<File>,
    /// Makes this process the device's owner, until the first who needs it.
    owning: Option<JoinHandle<io::Result<()>>>,
}

impl VhostNet {
    /// Opens the device and makes this process its owner, which is waited for when a pair is started: before Linux 6.4
    /// the kernel moves a thread into our cgroups for that, and waits some 10 ms for RCU.
    ///
    /// # Errors
    /// The host's: no such device (module `vhost_net`), no permission, no thread.
    pub fn open() -> io::Result<Self> {
        let device = Arc::new(OpenOptions::new().read(true).write(true).open(DEVICE)?);
        let owned = Arc::clone(&device);
        // SAFETY: SET_OWNER takes no argument.
        let own = move || check(unsafe { libc::ioctl(owned.as_raw_fd(), SET_OWNER) });
        let owning = threads::builder("vhost-owner").spawn(own)?;
        Ok(Self { device, owning: Some(owning) })
    }

    fn await_owner(&mut self) -> io::Result<()> {
        let Some(owning) = self.owning.take() else { return Ok(()) };
        owning.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    }

    /// The virtio features it can work with; those of the device itself are the tap's business.
    ///
    /// # Errors
    /// The host's.
    pub fn features(&self) -> io::Result<u64> {
        let mut features = 0u64;
        // SAFETY: GET_FEATURES writes one u64.
        check(unsafe { libc::ioctl(self.device.as_raw_fd(), GET_FEATURES, &mut features) })?;
        Ok(features)
    }

    /// For requests whose argument is a pointer to `T`, which the kernel only reads.
    fn set<T>(&self, request: libc::Ioctl, argument: &T) -> io::Result<()> {
        // SAFETY: every caller pairs a request with the structure that linux/vhost.h names for
        // it; it is alive, and the kernel reads no more than its size (for the memory table:
        // than the header's count, which is at most MAX_REGIONS).
        let result =
            unsafe { libc::ioctl(self.device.as_raw_fd(), request, std::ptr::from_ref(argument)) };
        check(result)
    }

    /// Hands over memory and features; before any queue.
    fn set_up(&self, memory: &GuestRam, features: u64) -> io::Result<()> {
        let supported = self.features()?;
        self.set(SET_FEATURES, &(features & supported))?;
        let mut regions = [MemoryRegion::default(); MAX_REGIONS];
        let mut count = 0;
        for region in memory.iter() {
            let slot = regions.get_mut(count).ok_or(io::ErrorKind::InvalidInput)?;
            let start = region.start_addr();
            let user = memory.get_host_address(start).map_err(io::Error::other)? as u64;
            *slot = MemoryRegion { guest: start.raw_value(), size: region.len(), user, flags: 0 };
            count += 1;
        }
        let header = MemoryHeader { regions: count as u32, padding: 0 };
        self.set(SET_MEM_TABLE, &MemoryTable { header, regions })
    }

    fn set_ring(
        &self,
        index: u32,
        memory: &GuestRam,
        queue: &Queue,
        kick: RawFd,
        call: RawFd,
    ) -> io::Result<()> {
        let size = u64::from(queue.size());
        // Each ring must be contiguous in our memory (the sizes are those of virtio 1.2, 2.7).
        let host = |address: u64, length: u64| {
            let slice = memory
                .get_slice(GuestAddress(address), length as usize)
                .map_err(io::Error::other)?;
            Ok::<_, io::Error>(slice.ptr_guard_mut().as_ptr() as u64)
        };
        self.set(SET_VRING_NUM, &VringState { index, number: queue.size().into() })?;
        self.set(SET_VRING_BASE, &VringState { index, number: queue.next_avail().into() })?;
        self.set(
            SET_VRING_ADDR,
            &VringAddresses {
                index,
                flags: 0,
                descriptors: host(queue.desc_table(), 16 * size)?,
                used: host(queue.used_ring(), 6 + 8 * size)?,
                available: host(queue.avail_ring(), 6 + 2 * size)?,
                log: 0,
            },
        )?;
        self.set(SET_VRING_CALL, &VringFile { index, fd: call })?;
        self.set(SET_VRING_KICK, &VringFile { index, fd: kick })
    }

    fn set_poll_limit(&self, index: u32, limit: Duration) -> io::Result<()> {
        let micros = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
        self.set(SET_VRING_BUSYLOOP_TIMEOUT, &VringState { index, number: micros })
    }

    /// Connects a ring with the tap, which starts it; with -1, stops it.
    fn set_backend(&self, index: u32, fd: RawFd) -> io::Result<()> {
        self.set(NET_SET_BACKEND, &VringFile { index, fd })
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How interrupts get from vhost to the guest.
struct Call {
    queue: u16,
    event: EventFd,
    /// Through this thread, because the transport has no eventfd for it.
    relayed: bool,
}

/// A pair whose frames the host kernel moves. Its thread only follows the control queue, and
/// passes interrupts on where the transport does not take them from an eventfd.
pub struct VhostPair {
    pub backend: Box<dyn NetBackend>,
    pub vhost: VhostNet,
    calls: [Call; 2],
    interrupt: Arc<dyn VirtioInterrupt>,
    control: Arc<PairControl>,
    attached: bool,
    /// Held open: vhost polls them.
    _kicks: [EventFd; 2],
}

/// What it takes to start a pair.
pub struct VhostPairParts {
    pub backend: Box<dyn NetBackend>,
    pub vhost: VhostNet,
    pub receive: ActiveQueue,
    pub transmit: ActiveQueue,
    pub memory: GuestRam,
    pub features: u64,
    pub interrupt: Arc<dyn VirtioInterrupt>,
    pub control: Arc<PairControl>,
    /// For how long the kernel's thread looks for frames before it sleeps; by default not at all.
    pub poll: Option<Duration>,
}

const CONTROL: u32 = 2;

impl VhostPair {
    /// Starts vhost on both queues.
    ///
    /// # Errors
    /// The host's; the back end and vhost come back for the next attempt.
    pub fn start(
        parts: VhostPairParts,
    ) -> Result<Self, (io::Error, Box<dyn NetBackend>, VhostNet)> {
        let VhostPairParts { backend, mut vhost, receive, transmit, memory, features, .. } = parts;
        let VhostPairParts { interrupt, control, poll, .. } = parts;
        let queues = [&receive, &transmit];
        let calls = match calls(&*interrupt, queues) {
            Ok(calls) => calls,
            Err(error) => return Err((error, backend, vhost)),
        };
        let mut run = || {
            vhost.await_owner()?;
            vhost.set_up(&memory, features)?;
            for (index, (active, call)) in (0..).zip(queues.into_iter().zip(&calls)) {
                let (kick, call) = (active.notify.as_raw_fd(), call.event.as_raw_fd());
                vhost.set_ring(index, &memory, &active.queue, kick, call)?;
                if let Some(limit) = poll {
                    vhost.set_poll_limit(index, limit)?;
                }
            }
            (0..2).try_for_each(|index| vhost.set_backend(index, backend.event().as_raw_fd()))
        };
        if let Err(error) = run() {
            stop(&vhost);
            return Err((error, backend, vhost));
        }
        let _kicks = [receive.notify, transmit.notify];
        let attached = true;
        Ok(Self { backend, vhost, calls, interrupt, control, attached, _kicks })
    }

    /// Stops vhost; afterwards it touches neither queues nor buffers.
    pub fn stop(&self) {
        stop(&self.vhost);
    }

    fn follow_control(&mut self) {
        let wanted = self.control.is_attached();
        if wanted != self.attached {
            let _ = self.backend.set_attached(wanted);
            self.attached = wanted;
        }
    }
}

fn stop(vhost: &VhostNet) {
    for index in 0..2 {
        // Unbinding waits for the kernel's worker and has nothing to fail of its own.
        let _ = vhost.set_backend(index, -1);
    }
}

fn calls(interrupt: &dyn VirtioInterrupt, queues: [&ActiveQueue; 2]) -> io::Result<[Call; 2]> {
    let call = |queue: u16| {
        let direct = interrupt.used_buffers_event(queue);
        let relayed = direct.is_none();
        let event = match direct {
            Some(event) => event,
            None => EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)?,
        };
        Ok::<_, io::Error>(Call { queue, event, relayed })
    };
    Ok([call(queues[0].index)?, call(queues[1].index)?])
}

impl EventHandler for VhostPair {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        for (token, call) in (0..).zip(&self.calls) {
            if call.relayed {
                sources.watch_event(call.event.as_raw_fd(), token)?;
            }
        }
        sources.watch_event(self.control.event().as_raw_fd(), CONTROL)
    }

    fn start(&mut self, _: &EventSources) -> ControlFlow<()> {
        self.follow_control();
        ControlFlow::Continue(())
    }

    fn handle(&mut self, token: u32, _: EventSet, _: &EventSources) -> ControlFlow<()> {
        match self.calls.get(token as usize) {
            Some(call) => self.interrupt.used_buffers(call.queue),
            None => self.follow_control(),
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_those_of_the_header() {
        // Computed by the C compiler from linux/vhost.h on x86-64.
        let expected = [
            (GET_FEATURES, 0x8008_AF00u32),
            (SET_FEATURES, 0x4008_AF00),
            (SET_OWNER, 0x0000_AF01),
            (SET_MEM_TABLE, 0x4008_AF03),
            (SET_VRING_NUM, 0x4008_AF10),
            (SET_VRING_ADDR, 0x4028_AF11),
            (SET_VRING_BASE, 0x4008_AF12),
            (SET_VRING_KICK, 0x4008_AF20),
            (SET_VRING_CALL, 0x4008_AF21),
            (SET_VRING_BUSYLOOP_TIMEOUT, 0x4008_AF23),
            (NET_SET_BACKEND, 0x4008_AF30),
        ];
        for (request, number) in expected {
            assert_eq!(request as u32, number);
        }
    }
}
