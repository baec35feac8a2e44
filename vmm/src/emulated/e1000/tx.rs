//! Transmission: descriptors in, frames with offloads out (manual 3.3 and 3.4).

use std::io;
use std::os::fd::BorrowedFd;

use nix::poll::{PollFd, PollFlags, poll};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::checksum;
use super::ring::{Ring, STATUS_DD};
use super::vnet::{
    VIRTIO_NET_HDR_GSO_ECN, VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV6,
    VIRTIO_NET_HDR_GSO_UDP_L4, VnetHeader,
};
use crate::backend::net::NetBackend;
use crate::backend::vectors::VectorBuffer;
use crate::memory::GuestRam;
use crate::segments::GuestSegment;

/// The most descriptors in one go; then the registers are looked at again.
const BATCH: usize = 256;
/// The largest frame a virtio header can describe, and so the largest one sent: an IP packet of
/// 64 KiB with its Ethernet header and VLAN tag.
const MAX_FRAME: usize = 0xffff + 18;
/// Within IOV_MAX (1024). A frame of 64 KiB in pages has 17.
const MAX_SEGMENTS: usize = 256;
/// This much of a frame is copied, so that headers can be changed; the rest goes from guest
/// memory straight to the host kernel.
const COPIED: usize = 256;
/// Frames below this are padded when TCTL.PSP says so.
const MIN_FRAME: usize = 60;
const ADDRESSES_LENGTH: usize = 12;

/// Command bits, third byte of a descriptor's upper half (3.3.3.1 and 3.3.7.1).
mod command {
    pub const EOP: u8 = 0x01;
    /// Legacy descriptors: insert checksum.
    pub const IC: u8 = 0x04;
    /// Extended descriptors: segmentation.
    pub const TSE: u8 = 0x04;
    pub const RS: u8 = 0x08;
    pub const RPS: u8 = 0x10;
    pub const DEXT: u8 = 0x20;
    pub const VLE: u8 = 0x40;
    pub const IDE: u8 = 0x80;
    /// Context descriptors: TCP, else UDP.
    pub const TCP: u8 = 0x01;
    /// Context descriptors: IPv4, else IPv6.
    pub const IP: u8 = 0x02;
}

/// Packet options of data descriptors (3.3.7.2).
const POPTS_IXSM: u8 = 0x01;
const POPTS_TXSM: u8 = 0x02;

/// Where headers and checksums are, from a context descriptor (3.3.6). All of it is the guest's
/// word and may make no sense.
#[derive(Clone, Copy, Debug, Default)]
struct Context {
    ip_start: usize,
    ip_field: usize,
    /// Offset of the IP header's last byte.
    ip_end: usize,
    start: usize,
    field: usize,
    /// Inclusive; 0 for the end of the frame.
    end: usize,
    header_length: usize,
    segment_size: u16,
    tcp: bool,
    ipv4: bool,
}

impl Context {
    fn parse(low: u64, high: u64) -> Self {
        let byte = |value: u64, shift: u32| (value >> shift) as u8;
        let command = byte(high, 24);
        Self {
            ip_start: usize::from(byte(low, 0)),
            ip_field: usize::from(byte(low, 8)),
            ip_end: usize::from((low >> 16) as u16),
            start: usize::from(byte(low, 32)),
            field: usize::from(byte(low, 40)),
            end: usize::from((low >> 48) as u16),
            header_length: usize::from(byte(high, 40)),
            segment_size: (high >> 48) as u16,
            tcp: command & command::TCP != 0,
            ipv4: command & command::IP != 0,
        }
    }
}

/// A frame in the making: the descriptors up to the one with EOP.
#[derive(Debug, Default)]
struct Packet {
    segments: Vec<GuestSegment>,
    length: usize,
    /// Too long, in too many pieces, or outside of memory: to be dropped at its end.
    broken: bool,
    /// The first descriptor said so.
    started: bool,
    options: u8,
    segmented: bool,
    /// Legacy descriptors: start of the sum and the field, if wanted.
    legacy_checksum: Option<(usize, usize)>,
    vlan: Option<u16>,
}

/// What the registers say about transmission.
#[derive(Clone, Copy, Debug)]
pub struct TransmitView {
    /// Where the descriptors are.
    pub ring: Ring,
    /// TCTL.PSP: frames below 64 bytes are padded.
    pub pad: bool,
    /// The EtherType of inserted tags, when CTRL.VME allows inserting.
    pub vlan_type: Option<u16>,
}

/// What a batch did, for the registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TransmitReport {
    /// Index of the first descriptor that was not taken: TDH.
    pub head: u32,
    /// Some descriptor asked for an interrupt when written back.
    pub interrupt: bool,
    /// Some descriptor asked for a delayed one.
    pub delayed: bool,
    /// Frames handed to the host.
    pub frames: u32,
    /// Bytes of these, with the frame check sequence.
    pub octets: u64,
    /// Those to group addresses except broadcasts.
    pub multicasts: u32,
    /// Those to the broadcast address.
    pub broadcasts: u32,
    /// Frames that the host segments.
    pub segmented: u32,
}

/// The transmitter. Its lock is held during a batch, so a reset waits for the batch's end.
pub struct Transmitter {
    backend: Box<dyn NetBackend>,
    segmentation: Context,
    checksums: Context,
    packet: Packet,
    /// The copied part of a frame.
    head: Vec<u8>,
    vectors: VectorBuffer,
}

impl Transmitter {
    /// A transmitter into `backend`.
    pub fn new(backend: Box<dyn NetBackend>) -> Self {
        Self {
            backend,
            segmentation: Context::default(),
            checksums: Context::default(),
            packet: Packet::default(),
            head: Vec::new(),
            vectors: VectorBuffer::default(),
        }
    }

    /// Forgets contexts and a half-made frame.
    pub fn reset(&mut self) {
        self.segmentation = Context::default();
        self.checksums = Context::default();
        self.packet = Packet::default();
    }

    /// Works through the ring, at most [`BATCH`] descriptors.
    pub fn run(&mut self, memory: &GuestRam, mut view: TransmitView) -> TransmitReport {
        let mut report = TransmitReport::default();
        for _ in 0..BATCH.min(view.ring.available() as usize) {
            if let Some((low, high)) = view.ring.read(memory) {
                self.descriptor(memory, &view, (low, high), &mut report);
            }
            view.ring.advance();
        }
        report.head = view.ring.head;
        report
    }

    fn descriptor(
        &mut self,
        memory: &GuestRam,
        view: &TransmitView,
        (low, high): (u64, u64),
        report: &mut TransmitReport,
    ) {
        let command = (high >> 24) as u8;
        let extended = command & command::DEXT != 0;
        match (extended, high >> 20 & 0xf) {
            (true, 0) => self.context(command, low, high),
            (true, 1) => self.data(command, low, high),
            (true, _) => {} // reserved types
            (false, _) => self.legacy(command, low, high),
        }
        let carries_data = !extended || high >> 20 & 0xf == 1;
        if carries_data && command & command::EOP != 0 {
            let packet = std::mem::take(&mut self.packet);
            self.send(memory, view, &packet, report);
            self.packet.segments = packet.segments;
            self.packet.segments.clear();
        }
        if command & (command::RS | command::RPS) != 0 {
            let status = (high >> 32) as u8 & 0xf;
            view.ring.write_status(memory, status | STATUS_DD);
            if command & command::IDE != 0 {
                report.delayed = true;
            } else {
                report.interrupt = true;
            }
        }
    }

    fn context(&mut self, command: u8, low: u64, high: u64) {
        let context = Context::parse(low, high);
        if command & command::TSE != 0 {
            self.segmentation = context;
        } else {
            self.checksums = context;
        }
    }

    fn data(&mut self, command: u8, low: u64, high: u64) {
        if !self.packet.started {
            // Options count in a frame's first descriptor only (3.3.7.2).
            self.packet.started = true;
            self.packet.options = (high >> 40) as u8;
            self.packet.segmented = command & command::TSE != 0;
        }
        self.append(low, (high & 0xf_ffff) as u32);
        self.end_of_packet(command, high);
    }

    fn legacy(&mut self, command: u8, low: u64, high: u64) {
        self.packet.started = true;
        self.append(low, (high & 0xffff) as u32);
        if command & (command::EOP | command::IC) == command::EOP | command::IC {
            let (field, start) = ((high >> 16) as u8, (high >> 40) as u8);
            self.packet.legacy_checksum = Some((usize::from(start), usize::from(field)));
        }
        self.end_of_packet(command, high);
    }

    fn end_of_packet(&mut self, command: u8, high: u64) {
        const BOTH: u8 = command::EOP | command::VLE;
        if command & BOTH == BOTH {
            self.packet.vlan = Some((high >> 48) as u16);
        }
    }

    fn append(&mut self, address: u64, length: u32) {
        let packet = &mut self.packet;
        if length == 0 || packet.broken {
            return;
        }
        packet.length += length as usize;
        packet.broken = packet.length > MAX_FRAME || packet.segments.len() == MAX_SEGMENTS;
        packet.segments.push(GuestSegment { address: GuestAddress(address), length });
    }

    fn send(
        &mut self,
        memory: &GuestRam,
        view: &TransmitView,
        packet: &Packet,
        report: &mut TransmitReport,
    ) {
        if packet.broken || packet.length < ADDRESSES_LENGTH + 2 {
            return;
        }
        let context = if packet.segmented { self.segmentation } else { self.checksums };
        let summed = packet.segmented || packet.options & POPTS_TXSM != 0;
        let in_software = summed && context.end != 0;
        let copied = match (in_software, packet.options & POPTS_IXSM != 0) {
            (true, _) => packet.length,
            (_, true) => COPIED.max(context.ip_end + 1),
            _ => COPIED,
        };
        let mut rest = Vec::new();
        if !self.split(memory, packet, copied, &mut rest) {
            return;
        }
        let mut header = VnetHeader::default();
        if let Some((start, field)) = packet.legacy_checksum {
            self.request_checksum(&mut header, start, field);
        }
        self.offload(packet, context, &mut header);
        if let (Some(tag), Some(vlan_type)) = (packet.vlan, view.vlan_type) {
            self.insert_tag(tag, vlan_type, &mut header);
        }
        if view.pad && self.head.len() < MIN_FRAME && rest.is_empty() {
            self.head.resize(MIN_FRAME, 0);
        }
        let Some(length) = self.hand_over(memory, header, &rest) else { return };
        report.frames += 1;
        report.octets += length as u64 + 4; // with the frame check sequence, as counters do
        report.segmented += u32::from(header.segmentation != 0);
        match self.head[..6] {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => report.broadcasts += 1,
            [first, ..] if first & 1 != 0 => report.multicasts += 1,
            _ => {}
        }
    }

    /// Copies the first `copied` bytes to `head` and leaves the others in `rest`; false when
    /// something lies outside of guest memory.
    fn split(
        &mut self,
        memory: &GuestRam,
        packet: &Packet,
        copied: usize,
        rest: &mut Vec<GuestSegment>,
    ) -> bool {
        self.head.clear();
        for segment in &packet.segments {
            let length = segment.length as usize;
            let now = length.min(copied.saturating_sub(self.head.len()));
            let at = self.head.len();
            self.head.resize(at + now, 0);
            if memory.read_slice(&mut self.head[at..], segment.address).is_err() {
                return false;
            }
            if now < length {
                let Some(address) = segment.address.0.checked_add(now as u64) else {
                    return false;
                };
                let address = GuestAddress(address);
                if !memory.check_range(address, length - now) {
                    return false;
                }
                rest.push(GuestSegment { address, length: (length - now) as u32 });
            }
        }
        true
    }

    fn request_checksum(&mut self, header: &mut VnetHeader, start: usize, field: usize) {
        // The host refuses frames whose sum starts or goes beyond their end; the controller would
        // send them as they are.
        if field + 2 > self.head.len() || start >= self.head.len() {
            return;
        }
        if !header.request_checksum(start, field) {
            // The field lies in front of what is summed.
            let end = self.head.len();
            checksum::insert(&mut self.head, start, end, field);
        }
    }

    fn offload(&mut self, packet: &Packet, context: Context, header: &mut VnetHeader) {
        let payload = packet.length.saturating_sub(context.header_length);
        let segmented = packet.segmented
            && context.segment_size > 0
            && payload > usize::from(context.segment_size);
        if packet.segmented {
            self.complete_headers(packet.length, &context);
        }
        if packet.options & POPTS_IXSM != 0 || packet.segmented && context.ipv4 {
            let Context { ip_start, ip_end, ip_field, .. } = context;
            checksum::insert(&mut self.head, ip_start, ip_end + 1, ip_field);
        }
        if packet.options & POPTS_TXSM != 0 || packet.segmented {
            if context.end != 0 && !segmented {
                let Context { start, end, field, .. } = context;
                checksum::insert(&mut self.head, start, end + 1, field);
            } else {
                self.request_checksum(header, context.start, context.field);
            }
        }
        // The host can only segment what it also sums.
        if segmented && header.flags != 0 {
            header.header_length = context.header_length as u16;
            header.segment_size = context.segment_size;
            header.segmentation = self.segmentation_type(&context);
        }
    }

    fn segmentation_type(&self, context: &Context) -> u8 {
        const TCP_FLAGS: usize = 13;
        const CWR: u8 = 0x80;
        let kind = match (context.tcp, context.ipv4) {
            (true, true) => VIRTIO_NET_HDR_GSO_TCPV4,
            (true, false) => VIRTIO_NET_HDR_GSO_TCPV6,
            (false, _) => VIRTIO_NET_HDR_GSO_UDP_L4,
        };
        let flags = self.head.get(context.start + TCP_FLAGS).copied().unwrap_or(0);
        let ecn = if context.tcp && flags & CWR != 0 { VIRTIO_NET_HDR_GSO_ECN } else { 0 };
        (kind | ecn) as u8
    }

    /// Drivers leave lengths out of the headers of frames to be segmented: the controller puts
    /// them into each segment (3.5.6). The host's stack expects them for the whole.
    fn complete_headers(&mut self, length: usize, context: &Context) {
        let mut put = |at: usize, value: usize| {
            // Lengths are below 64 KiB but for hostile contexts.
            if let Some(place) = self.head.get_mut(at..at + 2) {
                place.copy_from_slice(&(value as u16).to_be_bytes());
            }
        };
        let behind = |start: usize| length.saturating_sub(start);
        if context.ipv4 {
            put(context.ip_start + 2, behind(context.ip_start));
        } else {
            put(context.ip_start + 4, behind(context.ip_start + 40));
        }
        let transport = behind(context.start);
        if !context.tcp {
            put(context.start + 4, transport);
        }
        // The field holds the sum of the pseudo-header without the length.
        if let Some(place) = self.head.get_mut(context.field..context.field + 2) {
            let partial = u16::from_be_bytes([place[0], place[1]]);
            let whole = checksum::add(partial, transport as u16);
            place.copy_from_slice(&whole.to_be_bytes());
        }
    }

    fn insert_tag(&mut self, tag: u16, vlan_type: u16, header: &mut VnetHeader) {
        let [type_high, type_low] = vlan_type.to_be_bytes();
        let [tag_high, tag_low] = tag.to_be_bytes();
        let at = ADDRESSES_LENGTH..ADDRESSES_LENGTH;
        self.head.splice(at, [type_high, type_low, tag_high, tag_low]);
        if header.flags != 0 {
            header.checksum_start = header.checksum_start.saturating_add(4);
        }
        if header.segmentation != 0 {
            header.header_length = header.header_length.saturating_add(4);
        }
    }

    /// Sends the frame; its length, or `None` when the host did not take it.
    fn hand_over(
        &mut self,
        memory: &GuestRam,
        header: VnetHeader,
        rest: &[GuestSegment],
    ) -> Option<usize> {
        let header = header.to_bytes();
        let mut frame = self.vectors.gather();
        frame.add(&header);
        frame.add(&self.head);
        frame.add_guest(memory, rest)?;
        let length = frame.length() - header.len();
        match self.backend.send(&frame) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_writable(self.backend.event());
                self.backend.send(&frame).ok()
            }
            result => result.ok(),
        }
        .map(|_| length)
    }
}

/// Gives a full host queue a moment to drain; a frame that then still does not fit is lost, as on
/// a congested wire.
fn wait_writable(fd: BorrowedFd<'_>) {
    const TIMEOUT_MS: u8 = 10;
    // A failure is no more than an early return.
    let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], TIMEOUT_MS);
}
