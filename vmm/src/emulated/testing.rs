//! Stand-ins for the host in unit tests of emulated devices.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::backend::disk::{DiskCompletion, DiskEngine, DiskOperation, DiskRequest};
use crate::backend::net::NetBackend;
use crate::backend::vectors::{Gather, Scatter};
use crate::irq::InterruptLine;
use crate::memory::GuestRam;

/// A wire that remembers its level and counts its rising edges.
#[derive(Default)]
pub struct Wire {
    level: AtomicBool,
    rises: AtomicUsize,
}

impl Wire {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn is_high(&self) -> bool {
        self.level.load(Ordering::SeqCst)
    }

    pub fn rises(&self) -> usize {
        self.rises.load(Ordering::SeqCst)
    }
}

impl InterruptLine for Wire {
    fn set(&self, asserted: bool) {
        if asserted && !self.level.swap(asserted, Ordering::SeqCst) {
            self.rises.fetch_add(1, Ordering::SeqCst);
        } else {
            self.level.store(asserted, Ordering::SeqCst);
        }
    }
}

/// What a [`MemoryDisk`] holds, for a test to look at.
#[derive(Default)]
pub struct Medium {
    pub bytes: Vec<u8>,
    pub flushes: usize,
    /// Requests that touch this byte fail.
    pub bad_byte: Option<u64>,
}

/// A disk engine over a vector.
pub struct MemoryDisk {
    pub medium: Arc<Mutex<Medium>>,
    event: EventFd,
    done: Vec<DiskCompletion>,
}

impl MemoryDisk {
    pub fn new(bytes: Vec<u8>) -> Self {
        let medium = Medium { bytes, ..Medium::default() };
        Self {
            medium: Arc::new(Mutex::new(medium)),
            event: EventFd::new(EFD_NONBLOCK).unwrap(),
            done: Vec::new(),
        }
    }

    fn run(&self, memory: &GuestRam, request: &DiskRequest<'_>) -> io::Result<()> {
        let mut medium = self.medium.lock().unwrap();
        let range = request.offset..request.offset + request.length;
        if medium.bad_byte.is_some_and(|b| range.contains(&b)) {
            return Err(io::Error::other("bad medium"));
        }
        let sum: u64 = request.segments.iter().map(|s| u64::from(s.length)).sum();
        let mut at = request.offset as usize;
        match request.operation {
            DiskOperation::Flush => medium.flushes += 1,
            DiskOperation::Read | DiskOperation::Write => {
                assert_eq!(sum, request.length, "segments cover the request");
                assert!(range.end <= medium.bytes.len() as u64, "a front end checks the range");
                for segment in request.segments {
                    let length = segment.length as usize;
                    let part = &mut medium.bytes[at..at + length];
                    if request.operation == DiskOperation::Read {
                        memory.write_slice(part, segment.address).map_err(io::Error::other)?;
                    } else {
                        memory.read_slice(part, segment.address).map_err(io::Error::other)?;
                    }
                    at += length;
                }
            }
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        Ok(())
    }
}

impl DiskEngine for MemoryDisk {
    fn submit(&mut self, memory: &GuestRam, request: DiskRequest<'_>) {
        let result = self.run(memory, &request);
        self.done.push(DiskCompletion { tag: request.tag, result });
        self.event.write(1).unwrap();
    }

    fn kick(&mut self) {}

    fn completions(&mut self, done: &mut Vec<DiskCompletion>) {
        let _ = self.event.read();
        done.append(&mut self.done);
    }

    fn has_completions(&mut self) -> bool {
        !self.done.is_empty()
    }

    fn completion_event(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    fn arm(&mut self) -> bool {
        self.has_completions()
    }

    fn abandon(&mut self) {
        self.done.clear();
    }
}

/// Guest RAM of `length` bytes from address 0 on.
pub fn ram(length: usize) -> GuestRam {
    GuestRam::from_ranges(&[(GuestAddress(0), length)]).unwrap()
}

/// Both ends of a network: what the device sent, and what it is to receive.
#[derive(Clone)]
pub struct Network {
    pub sent: Arc<Mutex<Vec<Vec<u8>>>>,
    to_receive: Arc<Mutex<VecDeque<Vec<u8>>>>,
    event: Arc<EventFd>,
    /// Frames go through datagrams on their way, as the host's kernel would have them.
    link: Arc<(UnixDatagram, UnixDatagram)>,
}

impl Network {
    pub fn new() -> Self {
        Self {
            sent: Arc::default(),
            to_receive: Arc::default(),
            event: Arc::new(EventFd::new(EFD_NONBLOCK).unwrap()),
            link: Arc::new(UnixDatagram::pair().unwrap()),
        }
    }

    /// Lets the device receive `frame`, its virtio header in front.
    pub fn deliver(&self, frame: Vec<u8>) {
        self.to_receive.lock().unwrap().push_back(frame);
        self.event.write(1).unwrap();
    }

    pub fn take_sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

impl NetBackend for Network {
    fn send(&mut self, frame: &Gather<'_>) -> io::Result<usize> {
        let (near, far) = &*self.link;
        // The list stays what it is until the frame is out on the other side.
        let mut sent = self.sent.lock().unwrap();
        let length = frame.write_to(near.as_fd())?;
        let mut bytes = vec![0; length];
        assert_eq!(far.recv(&mut bytes)?, length);
        sent.push(bytes);
        Ok(length)
    }

    fn receive(&mut self, buffers: &mut Scatter<'_>) -> io::Result<usize> {
        let _ = self.event.read();
        let mut frames = self.to_receive.lock().unwrap();
        let frame = frames.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let (near, far) = &*self.link;
        far.send(&frame)?;
        buffers.read_from(near.as_fd())
    }

    fn set_offloads(&mut self, _tun_flags: u32) -> io::Result<()> {
        Ok(())
    }

    fn event(&self) -> BorrowedFd<'_> {
        // SAFETY: the eventfd is open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.event.as_raw_fd()) }
    }
}
