//! Reception: frames from the host into the buffers of receive descriptors (manual 3.2).

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use vm_memory::{Bytes, GuestAddress};

use super::checksum;
use super::filter::{Filter, Match};
use super::registers::{Store, ctrl, offset, rctl, rxcsum};
use super::ring::{Ring, STATUS_DD};
use super::vnet::{VIRTIO_NET_HDR_F_DATA_VALID, VIRTIO_NET_HDR_F_NEEDS_CSUM, VnetHeader};
use crate::backend::net::{NetBackend, VNET_HEADER_LENGTH};
use crate::backend::vectors::VectorBuffer;
use crate::memory::GuestRam;

/// The most frames in one go; then the driver hears of them.
const BATCH: usize = 32;
/// The longest frames with and without RCTL.LPE, frame check sequence included (3.2.2).
const MAX_LONG_FRAME: usize = 16384;
const MAX_FRAME: usize = 1522;
/// Shorter frames are padded on a wire; taps hand over what the host made.
const MIN_FRAME: usize = 60;
const FCS_LENGTH: usize = 4;
const TAG_LENGTH: usize = 4;
const ADDRESSES_LENGTH: usize = 12;

/// Status bits of a receive descriptor (3.2.3.1), beside DD.
mod status {
    pub const EOP: u8 = 1 << 1;
    /// Ignore the checksum indications.
    pub const IXSM: u8 = 1 << 2;
    /// The frame had a VLAN tag, which is in the special field.
    pub const VP: u8 = 1 << 3;
    pub const TCPCS: u8 = 1 << 5;
    pub const IPCS: u8 = 1 << 6;
    /// Passed the multicast table only: the driver should check the address.
    pub const PIF: u8 = 1 << 7;
}

/// Error bits (3.2.3.2).
const ERROR_IPE: u8 = 1 << 6;

/// What the registers say about reception.
#[derive(Clone, Debug)]
pub struct ReceiveView {
    /// Where the descriptors are.
    pub ring: Ring,
    buffer_size: usize,
    max_frame: usize,
    strip_fcs: bool,
    /// The EtherType of tags to strip, or to filter by.
    vlan_type: u16,
    strip_tag: bool,
    check_ip: bool,
    check_transport: bool,
}

impl ReceiveView {
    /// `None` when the ring makes no sense.
    pub fn from_registers(store: &Store) -> Option<Self> {
        let control = store.get(offset::RCTL);
        let size = control >> rctl::BSIZE_SHIFT & 3;
        let buffer_size = match (size, control & rctl::BSEX != 0) {
            (0, _) => 2048,
            (size, false) => 2048 >> size,
            (size, true) => 32768 >> size,
        };
        let long = control & rctl::LPE != 0;
        Some(Self {
            ring: Ring::receive(store)?,
            buffer_size,
            max_frame: if long { MAX_LONG_FRAME } else { MAX_FRAME },
            strip_fcs: control & rctl::SECRC != 0,
            vlan_type: store.get(offset::VET) as u16,
            strip_tag: store.get(offset::CTRL) & ctrl::VME != 0,
            check_ip: store.get(offset::RXCSUM) & rxcsum::IPOFL != 0,
            check_transport: store.get(offset::RXCSUM) & rxcsum::TUOFL != 0,
        })
    }
}

/// What a batch did, for the registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiveReport {
    /// Index of the first descriptor that is still the hardware's: RDH.
    pub head: u32,
    /// Descriptors that are still the hardware's.
    pub left: u32,
    /// Frames stored in guest memory.
    pub frames: u32,
    /// Bytes of these frames.
    pub octets: u64,
    /// Stored frames to group addresses except broadcasts.
    pub multicasts: u32,
    /// Stored broadcasts.
    pub broadcasts: u32,
    /// Frames that came from the host, stored or not.
    pub total_frames: u32,
    /// Bytes of these frames.
    pub total_octets: u64,
    /// Frames that were too long.
    pub oversized: u32,
    /// Frames no ring could hold.
    pub missed: u32,
    /// A frame waits for more descriptors.
    pub starved: bool,
    /// There may be more frames at once.
    pub more: bool,
    /// The host's side is broken and will give no more.
    pub dead: bool,
}

/// The receiver. Its lock is held during a batch, so a reset waits for the batch's end.
pub struct Receiver {
    backend: Box<dyn NetBackend>,
    buffer: Box<[u8]>,
    vectors: VectorBuffer,
    /// Bytes in `buffer` of a frame that did not fit into the descriptors there were.
    waiting: Option<usize>,
}

/// Room for the longest frame, its check sequence, and one byte more to tell longer ones.
const BUFFER: usize = VNET_HEADER_LENGTH + MAX_LONG_FRAME + FCS_LENGTH;

impl Receiver {
    /// A receiver from `backend`.
    pub fn new(backend: Box<dyn NetBackend>) -> Self {
        Self {
            backend,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            vectors: VectorBuffer::default(),
            waiting: None,
        }
    }

    /// Readable when the host has a frame.
    pub fn event(&self) -> RawFd {
        self.backend.event().as_raw_fd()
    }

    /// Forgets a waiting frame.
    pub fn reset(&mut self) {
        self.waiting = None;
    }

    /// Throws away what the host sends while reception is off, as a controller does.
    pub fn discard(&mut self) -> ReceiveReport {
        let mut report = ReceiveReport::default();
        self.waiting = None;
        for _ in 0..BATCH {
            if self.next_frame(&mut report).is_none() {
                return report;
            }
        }
        report.more = true;
        report
    }

    /// Moves frames into the ring until one of them runs out, at most [`BATCH`].
    pub fn run(
        &mut self,
        memory: &GuestRam,
        filter: &Filter,
        mut view: ReceiveView,
    ) -> ReceiveReport {
        let mut report = ReceiveReport { more: true, ..ReceiveReport::default() };
        for _ in 0..BATCH {
            if view.ring.available() == 0 {
                report.starved = true;
                break;
            }
            let Some(length) = self.waiting.take().or_else(|| self.next_frame(&mut report)) else {
                report.more = false;
                break;
            };
            if !self.store(memory, filter, &mut view, length, &mut report) {
                self.waiting = Some(length);
                report.starved = true;
                break;
            }
        }
        report.more &= !report.starved;
        report.head = view.ring.head;
        report.left = view.ring.available();
        report
    }

    /// Takes a frame from the host; its length without the header.
    fn next_frame(&mut self, report: &mut ReceiveReport) -> Option<usize> {
        let mut buffers = self.vectors.scatter();
        buffers.add(&mut self.buffer);
        match self.backend.receive(&mut buffers) {
            Ok(length) => {
                let length = length.saturating_sub(VNET_HEADER_LENGTH);
                report.total_frames += 1;
                report.total_octets += length as u64;
                self.complete_checksum(length);
                Some(length)
            }
            Err(error) => {
                report.dead =
                    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted);
                None
            }
        }
    }

    fn header(&self) -> VnetHeader {
        let mut bytes = [0; VNET_HEADER_LENGTH];
        bytes.copy_from_slice(&self.buffer[..VNET_HEADER_LENGTH]);
        VnetHeader::from_bytes(&bytes)
    }

    /// The host leaves the checksum of its own packets to us. A driver may forward the frame, so
    /// it gets what a wire would have carried.
    fn complete_checksum(&mut self, length: usize) {
        let header = self.header();
        if header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM as u8 == 0 {
            return;
        }
        let frame = &mut self.buffer[VNET_HEADER_LENGTH..];
        let start = usize::from(header.checksum_start);
        checksum::insert(frame, start, length, start + usize::from(header.checksum_offset));
    }

    /// Stores the frame in the buffer; `false` when it must wait for descriptors.
    fn store(
        &mut self,
        memory: &GuestRam,
        filter: &Filter,
        view: &mut ReceiveView,
        length: usize,
        report: &mut ReceiveReport,
    ) -> bool {
        let verified = self.header().flags
            & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID) as u8
            != 0;
        if length < 14 || length + FCS_LENGTH > view.max_frame {
            report.oversized += u32::from(length >= 14);
            return true;
        }
        let frame = &self.buffer[VNET_HEADER_LENGTH..VNET_HEADER_LENGTH + length];
        let mut destination = [0; 6];
        destination.copy_from_slice(&frame[..6]);
        let tag = (frame[12..14] == view.vlan_type.to_be_bytes() && length >= 14 + TAG_LENGTH)
            .then(|| u16::from_be_bytes([frame[14], frame[15]]));
        let Some(passed) = filter.accepts(destination, tag) else { return true };
        let stripped = tag.filter(|_| view.strip_tag);

        let kept = length - if stripped.is_some() { TAG_LENGTH } else { 0 };
        let stored = kept.max(MIN_FRAME) + if view.strip_fcs { 0 } else { FCS_LENGTH };
        let needed = stored.div_ceil(view.buffer_size) as u32;
        if needed > view.ring.available() {
            if needed < view.ring.count() {
                return false;
            }
            report.missed += 1;
            return true;
        }

        let mut completion = checks(frame, tag.is_some(), verified, view);
        completion.special = stripped.unwrap_or(0);
        completion.status |= if stripped.is_some() { status::VP } else { 0 };
        completion.status |= if passed == Match::Inexact { status::PIF } else { 0 };
        let frame = &mut self.buffer[VNET_HEADER_LENGTH..];
        if stripped.is_some() {
            frame.copy_within(ADDRESSES_LENGTH + TAG_LENGTH..length, ADDRESSES_LENGTH);
        }
        if kept < MIN_FRAME {
            frame[kept..MIN_FRAME].fill(0);
        }
        if !view.strip_fcs {
            let end = kept.max(MIN_FRAME);
            let mut fcs = flate2::Crc::new();
            fcs.update(&frame[..end]);
            frame[end..end + FCS_LENGTH].copy_from_slice(&fcs.sum().to_le_bytes());
        }
        scatter(memory, view, &frame[..stored], completion);
        report.frames += 1;
        report.octets += stored as u64;
        match destination {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => report.broadcasts += 1,
            [first, ..] if first & 1 != 0 => report.multicasts += 1,
            _ => {}
        }
        true
    }
}

/// What the last descriptor of a frame says.
#[derive(Clone, Copy, Debug, Default)]
struct Completion {
    status: u8,
    errors: u8,
    special: u16,
}

/// Looks at the checksums as RXCSUM wants (3.2.9): of IPv4 headers, and of TCP and UDP where the
/// host has `verified` them. Others are left to the driver, who has the data at hand.
fn checks(frame: &[u8], tagged: bool, verified: bool, view: &ReceiveView) -> Completion {
    const IPV4: [u8; 2] = [0x08, 0x00];
    let start = if tagged { 18 } else { 14 };
    let unknown = Completion { status: status::IXSM, ..Completion::default() };
    let (Some(kind), Some(packet)) = (frame.get(start - 2..start), frame.get(start..)) else {
        return unknown;
    };
    if kind != IPV4 || packet.len() < 20 || packet[0] >> 4 != 4 {
        return unknown;
    }
    let header_length = usize::from(packet[0] & 0xf) * 4;
    let Some(header) = packet.get(..header_length).filter(|h| h.len() >= 20) else {
        return unknown;
    };
    let mut completion = Completion::default();
    if view.check_ip {
        completion.status |= status::IPCS;
        if checksum::sum(header) != 0xffff {
            completion.errors |= ERROR_IPE;
        }
    }
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let transport = matches!(header[9], 6 | 17);
    if view.check_transport && verified && transport && !fragment {
        completion.status |= status::TCPCS;
    }
    completion
}

/// Writes the frame into as many buffers as it takes; the caller made sure that there are enough.
fn scatter(memory: &GuestRam, view: &mut ReceiveView, frame: &[u8], completion: Completion) {
    let mut pieces = frame.chunks(view.buffer_size).peekable();
    while let Some(piece) = pieces.next() {
        let last = pieces.peek().is_none();
        if let Some((address, _)) = view.ring.read(memory) {
            // A buffer outside of memory gets what a write to nowhere gets.
            let _ = memory.write_slice(piece, GuestAddress(address));
        }
        let mut half = piece.len() as u64 | u64::from(STATUS_DD) << 32;
        if last {
            let status = completion.status | status::EOP;
            half |= u64::from(status) << 32;
            half |= u64::from(completion.errors) << 40;
            half |= u64::from(completion.special) << 48;
        }
        view.ring.write_back(memory, half);
        view.ring.advance();
    }
}
