//! Register and descriptor sequences as the manual prescribes them, and as a hostile driver
//! writes them.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use super::checksum;
use super::registers::{cause, ctrl, offset, rctl, rxcsum, tctl};
use super::rx::{ReceiveReport, Receiver};
use super::state::Registers;
use super::tx::Transmitter;
use super::vnet::VnetHeader;
use crate::emulated::testing::{Network, Wire, ram};
use crate::memory::GuestRam;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const RAM: usize = 0x20_0000;
const TX_RING: u64 = 0x1000;
const RX_RING: u64 = 0x2000;
const RX_BUFFERS: u64 = 0x1_0000;
const DATA: u64 = 0x8_0000;

const EOP: u64 = 1 << 24;
const IC: u64 = 4 << 24;
const TSE: u64 = 4 << 24;
const RS: u64 = 8 << 24;
const DEXT: u64 = 0x20 << 24;
const VLE: u64 = 0x40 << 24;
const DATA_TYPE: u64 = 1 << 20;
const IXSM: u64 = 1 << 40;
const TXSM: u64 = 2 << 40;
/// Ethernet, IPv4, TCP context: sums from 14 and 34, fields at 24 and 50.
const CONTEXT: u64 = 14 | 24 << 8 | 33 << 16 | 34 << 32 | 50 << 40;

struct Rig {
    registers: Registers,
    transmitter: Transmitter,
    receiver: Receiver,
    network: Network,
    wire: Arc<Wire>,
    memory: GuestRam,
}

impl Rig {
    fn new() -> Self {
        let (network, wire) = (Network::new(), Wire::new());
        let mut rig = Self {
            registers: Registers::new(MAC, wire.clone(), None),
            transmitter: Transmitter::new(Box::new(network.clone())),
            receiver: Receiver::new(Box::new(network.clone())),
            network,
            wire,
            memory: ram(RAM),
        };
        rig.write(&[
            (offset::TDBAL, TX_RING as u32),
            (offset::TDLEN, 128),
            (offset::TCTL, tctl::EN),
            (offset::RDBAL, RX_RING as u32),
            (offset::RDLEN, 128),
            (offset::RDT, 7),
            (offset::RCTL, rctl::EN | rctl::BAM | rctl::SECRC),
        ]);
        for index in 0..8 {
            let at = GuestAddress(RX_RING + index * 16);
            rig.memory.write_obj(u128::from(RX_BUFFERS + index * 2048), at).unwrap();
        }
        rig
    }

    fn write(&mut self, registers: &[(u32, u32)]) {
        for &(at, value) in registers {
            self.registers.write(at, value);
        }
    }

    /// Puts descriptors at the tail and lets the transmitter work; returns what was sent.
    fn transmit(&mut self, descriptors: &[(u64, u64)]) -> Vec<(VnetHeader, Vec<u8>)> {
        let mut tail = self.registers.read(offset::TDT);
        for (low, high) in descriptors {
            let value = u128::from(*low) | u128::from(*high) << 64;
            let at = GuestAddress(TX_RING + u64::from(tail) * 16);
            self.memory.write_obj(value, at).unwrap();
            tail = (tail + 1) % 8;
        }
        self.registers.write(offset::TDT, tail);
        while let Some(view) = self.registers.transmit_view() {
            let report = self.transmitter.run(&self.memory, view);
            self.registers.transmitted(report);
        }
        let split = |frame: Vec<u8>| {
            (VnetHeader::from_bytes(frame[..12].try_into().unwrap()), frame[12..].to_vec())
        };
        self.network.take_sent().into_iter().map(split).collect()
    }

    fn receive(&mut self, header: VnetHeader, frame: &[u8]) -> ReceiveReport {
        self.network.deliver([&header.to_bytes()[..], frame].concat());
        self.receive_all()
    }

    fn receive_all(&mut self) -> ReceiveReport {
        let (_, filter) = self.registers.filter();
        let Some(view) = self.registers.receive_view().filter(|_| self.registers.receiving())
        else {
            return self.receiver.discard();
        };
        let report = self.receiver.run(&self.memory, &filter, view);
        self.registers.received(report)
    }

    /// Length, status, errors and special field of a receive descriptor.
    fn completion(&self, index: u64) -> (u16, u8, u8, u16) {
        let half: u64 = self.memory.read_obj(GuestAddress(RX_RING + index * 16 + 8)).unwrap();
        (half as u16, (half >> 32) as u8, (half >> 40) as u8, (half >> 48) as u16)
    }

    fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }
}

/// A TCP packet to our address. `tcp_field` is what the driver leaves in the checksum field.
fn tcp_packet(payload: usize, tcp_field: u16) -> Vec<u8> {
    let mut frame = [&MAC[..], &[2, 0, 0, 0, 0, 1, 8, 0]].concat();
    let length = (40 + payload) as u16;
    frame.extend_from_slice(&[0x45, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend_from_slice(&[0, 80, 0, 81, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0]);
    frame.extend_from_slice(&tcp_field.to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend((0..payload).map(|i| i as u8));
    frame
}

fn pseudo_sum(length: u16) -> u16 {
    let [high, low] = length.to_be_bytes();
    checksum::sum(&[10, 0, 0, 1, 10, 0, 0, 2, 0, 6, high, low])
}

#[test]
fn legacy_descriptors_gather_a_frame_and_report_it_done() {
    let mut rig = Rig::new();
    let frame = tcp_packet(600, 0);
    rig.memory.write_slice(&frame[..40], GuestAddress(DATA)).unwrap();
    rig.memory.write_slice(&frame[40..], GuestAddress(DATA + 0x4000)).unwrap();
    rig.registers.write(offset::IMS, cause::TXDW);
    let rest = frame.len() as u64 - 40;
    let sent = rig.transmit(&[(DATA, 40), (DATA + 0x4000, rest | EOP | RS)]);
    assert_eq!(sent, [(VnetHeader::default(), frame)]);
    let status: u8 = rig.memory.read_obj(GuestAddress(TX_RING + 16 + 12)).unwrap();
    assert_eq!(status & 1, 1);
    assert!(rig.wire.is_high());
    assert_eq!(rig.registers.read(offset::ICR), cause::TXDW | cause::TXQE);
    assert!(!rig.wire.is_high());
    assert_eq!(rig.registers.read(offset::TDH), 2);
    assert_eq!(rig.registers.read(0x4080), 1, "good packets transmitted");
    assert_eq!(rig.registers.read(0x4080), 0, "cleared by reading");
}

#[test]
fn checksums_are_left_to_the_host_where_it_can_do_them() {
    let mut rig = Rig::new();
    let frame = tcp_packet(10, pseudo_sum(30));
    rig.memory.write_slice(&frame, GuestAddress(DATA)).unwrap();
    let length = frame.len() as u64;
    let data = length | EOP | DEXT | DATA_TYPE | IXSM | TXSM;
    let sent = rig.transmit(&[(CONTEXT, DEXT), (DATA, data)]);
    let (header, out) = &sent[0];
    assert_eq!((header.flags, header.checksum_start, header.checksum_offset), (1, 34, 16));
    assert_eq!(checksum::sum(&out[14..34]), 0xffff);
    assert_eq!(out[34..], frame[34..]);

    let sent = rig.transmit(&[(DATA, length | EOP | IC | 50 << 16 | 34 << 40)]);
    assert_eq!((sent[0].0.checksum_start, sent[0].0.checksum_offset), (34, 16));

    // A sum that ends before the frame does is done here.
    let ends = CONTEXT | (length - 1) << 48;
    let sent = rig.transmit(&[(ends, DEXT), (DATA, length | EOP | DEXT | DATA_TYPE | TXSM)]);
    assert_eq!(sent[0].0, VnetHeader::default());
    assert_eq!(checksum::add(checksum::sum(&sent[0].1[34..]), pseudo_sum(30)), 0xffff);
}

#[test]
fn segmentation_is_handed_over_with_complete_headers() {
    let mut rig = Rig::new();
    let mut frame = tcp_packet(20_000, pseudo_sum(0));
    frame[16..18].fill(0); // drivers leave the length out
    rig.memory.write_slice(&frame, GuestAddress(DATA)).unwrap();
    let context = DEXT | TSE | 3 << 24 | 20_000 | 54 << 40 | 1448 << 48;
    let rest = frame.len() as u64 - 54;
    let sent = rig.transmit(&[
        (CONTEXT, context),
        (DATA, 54 | DEXT | TSE | DATA_TYPE | IXSM | TXSM),
        (DATA + 54, rest | EOP | DEXT | TSE | DATA_TYPE),
    ]);
    let (header, out) = &sent[0];
    assert_eq!((header.segmentation, header.segment_size, header.header_length), (1, 1448, 54));
    assert_eq!((header.flags, header.checksum_start, header.checksum_offset), (1, 34, 16));
    assert_eq!(out[16..18], 20_040u16.to_be_bytes());
    assert_eq!(checksum::sum(&out[14..34]), 0xffff);
    assert_eq!(out[50..52], pseudo_sum(20_020).to_be_bytes());
    assert_eq!(out[54..], frame[54..]);
    assert_eq!(rig.registers.read(0x40f8), 1);
}

#[test]
fn tags_are_inserted_where_enabled() {
    let mut rig = Rig::new();
    let frame = tcp_packet(10, pseudo_sum(30));
    rig.memory.write_slice(&frame, GuestAddress(DATA)).unwrap();
    let data = frame.len() as u64 | EOP | VLE | DEXT | DATA_TYPE | TXSM | 0x2005 << 48;
    assert_eq!(rig.transmit(&[(CONTEXT, DEXT), (DATA, data)])[0].1, frame);
    rig.registers.write(offset::CTRL, ctrl::VME | ctrl::SLU);
    let (header, out) = rig.transmit(&[(DATA, data)]).remove(0);
    assert_eq!(out[12..18], [0x81, 0, 0x20, 5, 8, 0]);
    assert_eq!(header.checksum_start, 38);
}

#[test]
fn hostile_transmit_descriptors_send_nothing_they_should_not() {
    let mut rig = Rig::new();
    let everywhere = [0, DATA, RAM as u64 - 100, RAM as u64, u64::MAX - 100, u64::MAX];
    for address in everywhere {
        for low_bits in [EOP, EOP | RS | DEXT | DATA_TYPE | IXSM | TXSM, EOP | IC | 0xff << 16] {
            for length in [0, 1, 13, 1500, 0xffff] {
                rig.transmit(&[(address, length | low_bits)]);
            }
        }
    }
    // Contexts without sense, for both kinds of frames.
    for low in [0, u64::MAX, 0xffff << 48, 0xff << 8, 200 | 10 << 8] {
        for high in [0, !(0x2f << 24 | 0xf << 20), 1 << 48, 0xff << 40] {
            let data = 1000 | EOP | DEXT | DATA_TYPE | IXSM | TXSM;
            rig.transmit(&[(low, high | DEXT), (DATA, data)]);
            rig.transmit(&[(low, high | DEXT | TSE), (DATA, data | TSE)]);
            rig.transmit(&[(DATA, 0xf_ffff | DEXT | DATA_TYPE | TSE), (DATA, data | TSE)]);
        }
    }
    // A frame that never ends is dropped, and the next one goes out.
    for _ in 0..1000 {
        assert!(rig.transmit(&[(DATA, 0xffff)]).is_empty());
    }
    assert!(rig.transmit(&[(DATA, 60 | EOP)]).is_empty());
    assert_eq!(rig.transmit(&[(DATA, 60 | EOP)]).len(), 1);
}

#[test]
fn rings_without_sense_do_nothing() {
    let mut rig = Rig::new();
    for (length, head, tail) in [(0, 0, 5), (128, 9, 3), (128, 0, 8), (128, 0xffff, 0xffff)] {
        rig.write(&[(offset::TDLEN, length), (offset::TDH, head), (offset::TDT, tail)]);
        assert!(rig.registers.transmit_view().is_none());
        rig.write(&[(offset::RDLEN, length), (offset::RDH, head), (offset::RDT, tail)]);
        assert!(rig.registers.receive_view().is_none());
    }
    rig.write(&[(offset::TDBAH, !0), (offset::TDLEN, !0), (offset::TDH, 1), (offset::TDT, 0)]);
    let view = rig.registers.transmit_view().unwrap();
    let report = rig.transmitter.run(&rig.memory, view);
    assert_eq!((report.head, report.frames), (257, 0), "bounded");
}

#[test]
fn received_frames_are_padded_stored_and_announced() {
    let mut rig = Rig::new();
    rig.registers.write(offset::IMS, cause::RXT0);
    let mut frame = [&[0xff; 6][..], &MAC, &[8, 6]].concat();
    frame.resize(42, 0x11);
    rig.receive(VnetHeader::default(), &frame);
    assert!(rig.wire.is_high());
    assert_eq!(rig.completion(0), (60, 0x07, 0, 0), "done, end of packet, ignore checksums");
    frame.resize(60, 0);
    assert_eq!(rig.bytes(RX_BUFFERS, 60), frame);
    assert_eq!(rig.registers.read(offset::RDH), 1);
    assert_eq!(rig.registers.read(offset::ICR) & cause::RXT0, cause::RXT0);
    // With the frame check sequence, whose residue over a whole frame is fixed.
    rig.registers.write(offset::RCTL, rctl::EN | rctl::BAM);
    rig.receive(VnetHeader::default(), &frame);
    assert_eq!(rig.completion(1).0, 64);
    let mut residue = flate2::Crc::new();
    residue.update(&rig.bytes(RX_BUFFERS + 2048, 64));
    assert_eq!(residue.sum(), 0x2144_df1c);
}

#[test]
fn checksums_are_completed_and_vouched_for() {
    let mut rig = Rig::new();
    rig.registers.write(offset::RXCSUM, rxcsum::IPOFL | rxcsum::TUOFL);
    let mut frame = tcp_packet(100, pseudo_sum(120));
    checksum::insert(&mut frame, 14, 34, 24);
    let mut partial = VnetHeader::default();
    partial.request_checksum(34, 50);
    rig.receive(partial, &frame);
    assert_eq!(rig.completion(0), (154, 0x63, 0, 0));
    let stored = rig.bytes(RX_BUFFERS, 154);
    assert_eq!(checksum::add(checksum::sum(&stored[34..]), pseudo_sum(120)), 0xffff);

    rig.receive(VnetHeader::default(), &frame);
    assert_eq!(rig.completion(1).1, 0x43, "nobody looked at the TCP checksum");
    frame[24] ^= 1;
    rig.receive(VnetHeader { flags: 2, ..VnetHeader::default() }, &frame);
    assert_eq!(rig.completion(2), (154, 0x63, 0x40, 0), "bad IP header");
    // A header that claims to sum from beyond the frame changes nothing.
    let mut beyond = VnetHeader::default();
    beyond.request_checksum(0xfff0, 0xffff);
    rig.receive(beyond, &frame);
    assert_eq!(rig.bytes(RX_BUFFERS + 3 * 2048, 154), frame);
}

#[test]
fn tags_are_stripped_where_enabled() {
    let mut rig = Rig::new();
    let mut frame = tcp_packet(100, 0);
    frame.splice(12..12, [0x81, 0, 0x20, 5]);
    rig.receive(VnetHeader::default(), &frame);
    assert_eq!(rig.completion(0).0, frame.len() as u16);
    rig.registers.write(offset::CTRL, ctrl::VME | ctrl::SLU);
    rig.receive(VnetHeader::default(), &frame);
    let (length, status, _, special) = rig.completion(1);
    assert_eq!((length, status & 8, special), (154, 8, 0x2005));
    assert_eq!(rig.bytes(RX_BUFFERS + 2048, 154), tcp_packet(100, 0));
}

#[test]
fn long_frames_need_permission_and_span_buffers() {
    let mut rig = Rig::new();
    let frame = tcp_packet(5000, 0);
    let report = rig.receive(VnetHeader::default(), &frame);
    assert_eq!((report.frames, report.oversized), (0, 1));
    rig.registers.write(offset::RCTL, rctl::EN | rctl::LPE | rctl::SECRC);
    rig.receive(VnetHeader::default(), &frame);
    assert_eq!([0, 1].map(|i| rig.completion(i).1), [1, 1]);
    assert_eq!((rig.completion(2).0, rig.completion(2).1 & 3), (5054 - 4096, 3));
    assert_eq!(rig.bytes(RX_BUFFERS, 5054), frame);
}

#[test]
fn a_frame_waits_for_descriptors_and_is_not_lost() {
    let mut rig = Rig::new();
    rig.registers.write(offset::RDT, 0);
    let frame = tcp_packet(100, 0);
    let report = rig.receive(VnetHeader::default(), &frame);
    assert!(report.starved && rig.registers.receiver_starved);
    let effects = rig.registers.write(offset::RDT, 1);
    assert!(effects.wake_receiver);
    assert_eq!(rig.receive_all().frames, 1);
    assert_eq!(rig.bytes(RX_BUFFERS, 154), frame);

    // Descriptors that come while the receiver finds it has none are noticed.
    rig.registers.receiver_starved = false;
    let view = rig.registers.receive_view().unwrap();
    let (_, filter) = rig.registers.filter();
    let starved = rig.receiver.run(&rig.memory, &filter, view);
    assert!(starved.starved);
    assert!(!rig.registers.write(offset::RDT, 2).wake_receiver);
    let report = rig.registers.received(starved);
    assert!(report.more && !rig.registers.receiver_starved);
}

#[test]
fn frames_are_thrown_away_while_reception_is_off() {
    let mut rig = Rig::new();
    rig.registers.write(offset::RCTL, 0);
    assert_eq!(rig.receive(VnetHeader::default(), &tcp_packet(0, 0)).total_frames, 1);
    rig.registers.write(offset::RCTL, rctl::EN);
    assert_eq!(rig.receive_all().frames, 0);
    for frame in [&[][..], &[0xff; 3], &[0xff; 13]] {
        assert_eq!(rig.receive(VnetHeader::default(), frame).frames, 0);
    }
}

#[test]
fn receive_buffers_outside_of_memory_swallow_frames() {
    let mut rig = Rig::new();
    rig.memory.write_obj(u128::from(u64::MAX), GuestAddress(RX_RING)).unwrap();
    rig.memory.write_obj(RAM as u128 - 10, GuestAddress(RX_RING + 16)).unwrap();
    for index in 0..2 {
        rig.receive(VnetHeader::default(), &tcp_packet(100, 0));
        assert_eq!(rig.completion(index).1 & 3, 3);
    }
}

#[test]
fn a_reset_forgets_everything_but_the_address() {
    let mut rig = Rig::new();
    rig.registers.write(offset::IMS, cause::LSC);
    rig.registers.write(offset::ICS, cause::LSC);
    assert!(rig.wire.is_high());
    assert!(rig.registers.needs_quiet(offset::CTRL, ctrl::RST));
    rig.registers.write(offset::CTRL, ctrl::RST);
    assert!(!rig.wire.is_high());
    assert_eq!(rig.registers.read(offset::CTRL) & ctrl::RST, 0);
    assert_eq!(rig.registers.read(offset::RAL), 0x1200_5452);
    assert_eq!(rig.registers.read(offset::RAL + 4), 0x8000_5634);
    assert_eq!(rig.registers.read(offset::STATUS) & 2, 2, "link up");
    assert!(rig.registers.transmit_view().is_none() && !rig.registers.receiving());
}

#[test]
fn the_cable_interrupts_when_it_moves() {
    let mut rig = Rig::new();
    rig.registers.write(offset::IMS, cause::LSC);
    rig.registers.set_carrier(false);
    assert!(rig.wire.is_high());
    assert_eq!(rig.registers.read(offset::STATUS) & 2, 0);
    assert!(!rig.registers.receiving());
}

#[test]
fn no_register_access_panics() {
    let mut rig = Rig::new();
    for value in [0, !0, 0x5555_5555, 1] {
        for at in (0..0x2_0000).step_by(4) {
            rig.registers.write(at, value);
            rig.registers.read(at);
        }
        rig.receive(VnetHeader::default(), &tcp_packet(100, 0));
        if let Some(view) = rig.registers.transmit_view() {
            rig.transmitter.run(&rig.memory, view);
        }
    }
}

#[test]
fn the_threads_move_frames_both_ways_and_end() {
    use super::E1000;
    use crate::bus::BusDevice;
    use crate::irq::InterruptLine;

    struct Bell(std::sync::mpsc::Sender<()>);
    impl InterruptLine for Bell {
        fn set(&self, asserted: bool) {
            if asserted {
                self.0.send(()).unwrap();
            }
        }
    }
    let (ring, rung) = std::sync::mpsc::channel();
    let (network, memory) = (Network::new(), ram(RAM));
    let [transmit, receive] = [network.clone(), network.clone()].map(Box::new);
    let nic = E1000::new(&memory, MAC, transmit, receive, Arc::new(Bell(ring))).unwrap();
    let mut registers = nic.memory_registers();
    let mut write = |at: u32, value: u32| registers.write(u64::from(at), &value.to_le_bytes());
    let frame = tcp_packet(100, 0);
    memory.write_slice(&frame, GuestAddress(DATA)).unwrap();
    let low_high = u128::from(DATA) | u128::from(frame.len() as u64 | EOP | RS) << 64;
    memory.write_obj(low_high, GuestAddress(TX_RING)).unwrap();
    memory.write_obj(u128::from(RX_BUFFERS), GuestAddress(RX_RING)).unwrap();
    for (at, value) in [
        (offset::TDBAL, TX_RING as u32),
        (offset::TDLEN, 128),
        (offset::TCTL, tctl::EN),
        (offset::IMS, cause::TXDW | cause::RXT0),
        (offset::TDT, 1),
    ] {
        write(at, value);
    }
    rung.recv().unwrap();
    assert_eq!(network.take_sent().len(), 1);
    for (at, value) in [
        (offset::ICR, !0),
        (offset::RDBAL, RX_RING as u32),
        (offset::RDLEN, 128),
        (offset::RCTL, rctl::EN),
    ] {
        write(at, value);
    }
    network.deliver([&VnetHeader::default().to_bytes()[..], &frame].concat());
    // The frame may find the ring empty or not; it arrives either way.
    write(offset::RDT, 1);
    rung.recv().unwrap();
    let mut stored = vec![0; frame.len()];
    memory.read_slice(&mut stored, GuestAddress(RX_BUFFERS)).unwrap();
    assert_eq!(stored, frame);

    let mut ports = nic.io_ports();
    ports.write(0, &(offset::STATUS).to_le_bytes());
    let mut status = [0; 4];
    ports.read(4, &mut status);
    assert_eq!(status[0] & 2, 2);
    nic.reset();
}

#[test]
fn a_driver_hears_of_frames_when_there_are_no_more_or_its_ring_runs_low() {
    let mut rig = Rig::new();
    // 256 descriptors, as Linux has, all of one buffer.
    rig.write(&[(offset::RDLEN, 256 * 16), (offset::RDT, 255), (offset::IMS, !0)]);
    for index in 0..256 {
        let at = GuestAddress(RX_RING + index * 16);
        rig.memory.write_obj(u128::from(RX_BUFFERS), at).unwrap();
    }
    rig.registers.read(offset::ICR);
    let frame = [&VnetHeader::default().to_bytes()[..], &tcp_packet(100, 0)].concat();
    let deliver = |rig: &Rig, count| (0..count).for_each(|_| rig.network.deliver(frame.clone()));
    // Batches until there are no more; how many frames had come when the line rose.
    let receive_all = |rig: &mut Rig| {
        let (before, mut frames) = (rig.wire.rises(), 0);
        let mut rose_at = Vec::new();
        loop {
            let report = rig.receive_all();
            frames += report.frames;
            if rig.wire.rises() > before && rose_at.is_empty() {
                rose_at.push(frames);
            }
            if !report.more {
                return (rose_at, frames);
            }
        }
    };
    deliver(&rig, 100);
    assert_eq!(receive_all(&mut rig), (vec![100], 100), "once, at the end");
    assert_eq!(rig.registers.read(offset::ICR) & cause::RXDMT0, 0);
    rig.registers.write(offset::RDT, 99);
    deliver(&rig, 200);
    let (rose_at, frames) = receive_all(&mut rig);
    assert_eq!((rose_at, frames), (vec![128], 200), "half of the ring is used up");
    assert_eq!(rig.registers.read(offset::ICR) & cause::RXDMT0, cause::RXDMT0);
}
