//! The whole device, with a driver that writes rings into memory and a host that holds the other
//! end of the back end.

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::*;

use super::testing::{Host, socket_backend};
use super::*;
use crate::allocations::allocations;
use crate::memory::GuestRam;
use crate::virtio::service::serve;
use crate::virtio::testing::{
    Buffer, Driver, Inbox, NEXT, Signal, activation, interrupt, memory, readable, stopping_sources,
    writable,
};

const VERSION_1: u64 = 1 << VIRTIO_F_VERSION_1;
const MERGEABLE: u64 = VERSION_1 | 1 << VIRTIO_NET_F_MRG_RXBUF;
const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Where the tests keep buffers.
const BUFFERS: u64 = 0x10_0000;

struct Machine {
    device: VirtioNet,
    hosts: Vec<Arc<Host>>,
    memory: GuestRam,
    receive: Driver,
    transmit: Driver,
    inbox: Inbox,
}

fn device(pairs: usize) -> (VirtioNet, Vec<Arc<Host>>) {
    limited_device(pairs, RateLimit::default())
}

fn limited_device(pairs: usize, rate: RateLimit) -> (VirtioNet, Vec<Arc<Host>>) {
    let (backends, hosts): (Vec<_>, Vec<_>) = (0..pairs).map(|_| socket_backend()).unzip();
    let backends = backends.into_iter().map(|b| Box::new(b) as Box<dyn NetBackend>).collect();
    let parts = NetParts {
        backends,
        mac: MAC,
        mtu: 1500,
        vhost: Vec::new(),
        rate,
        poll: Some(PollLimit::from_micros(0)),
        vcpus: 1,
    };
    (VirtioNet::new(parts).unwrap(), hosts)
}

/// A device with one pair, started with `features`; `prepare` fills the queues before.
fn machine(features: u64, prepare: impl FnOnce(&mut Driver, &mut Driver)) -> Machine {
    limited_machine(features, RateLimit::default(), prepare)
}

fn limited_machine(
    features: u64,
    rate: RateLimit,
    prepare: impl FnOnce(&mut Driver, &mut Driver),
) -> Machine {
    let memory = memory();
    let (mut device, hosts) = limited_device(1, rate);
    let mut receive = Driver::new(&memory, 0, 16);
    let mut transmit = Driver::new(&memory, 0x4000, 16);
    prepare(&mut receive, &mut transmit);
    let (interrupt, inbox) = interrupt();
    let queues = vec![receive.queue(0, features), transmit.queue(1, features)];
    device.activate(activation(&memory, features, queues, interrupt)).unwrap();
    Machine { device, hosts, memory, receive, transmit, inbox }
}

fn payload(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

impl Machine {
    /// Sends a frame from the guest in the given pieces.
    fn send(&mut self, payload: &[u8], lengths: &[u32]) -> u16 {
        let mut frame = vec![0; 12];
        frame.extend(payload);
        self.transmit.write(BUFFERS, &frame);
        let mut at = BUFFERS;
        let pieces: Vec<Buffer> = lengths
            .iter()
            .map(|length| {
                at += u64::from(*length);
                readable(at - u64::from(*length), *length)
            })
            .collect();
        self.transmit.send(&pieces)
    }
}

#[test]
fn the_configuration_tells_address_link_pairs_and_mtu() {
    let (device, _) = device(3);
    let mut config = [0xEE; 16];
    device.read_config(0, &mut config);
    assert_eq!(config, [2, 0, 0, 0, 0, 1, 1, 0, 3, 0, 0xDC, 5, 0xEE, 0xEE, 0xEE, 0xEE]);
    let mut mtu = [0; 2];
    device.read_config(10, &mut mtu);
    assert_eq!(mtu, [0xDC, 5]);
    device.read_config(u64::MAX, &mut mtu);
    assert_eq!(device.queue_sizes(), [256, 256, 256, 256, 256, 256, 64]);
}

#[test]
fn impossible_parts_are_refused() {
    let parts = |pairs, mtu| {
        let backends = (0..pairs).map(|_| Box::new(socket_backend().0) as Box<dyn NetBackend>);
        VirtioNet::new(NetParts {
            backends: backends.collect(),
            mac: MAC,
            mtu,
            vhost: vec![],
            rate: RateLimit::default(),
            poll: Some(PollLimit::from_micros(0)),
            vcpus: 1,
        })
    };
    assert!(matches!(parts(0, 1500), Err(NetError::QueuePairs { pairs: 0 })));
    assert!(matches!(parts(1, 67), Err(NetError::Mtu { mtu: 67 })));
}

#[test]
fn frames_of_the_guest_reach_the_host_whatever_their_pieces() {
    let mut m = machine(VERSION_1, |_, _| {});
    let data = payload(60);
    for lengths in [&[72][..], &[12, 60], &[10, 2, 1, 59], &[5, 60, 7]] {
        let head = m.send(&data, lengths);
        assert_eq!(m.hosts[0].receive()[12..], data);
        assert_eq!(m.transmit.wait_used(&m.inbox, 1), [(head.into(), 0)]);
    }
    let stats = m.device.counters()[1].snapshot();
    assert_eq!((stats.requests, stats.bytes, stats.errors), (4, 240, 0));
}

#[test]
fn frames_offered_before_the_start_and_in_indirect_tables_are_sent() {
    let frame = [vec![0; 12], payload(60)].concat();
    let mut m = machine(VERSION_1, |_, transmit| {
        transmit.write(BUFFERS, &frame);
        let pieces = [readable(BUFFERS, 20), readable(BUFFERS + 20, 52)];
        let head = transmit.indirect_chain(0x9000, &pieces);
        transmit.offer(head);
    });
    assert_eq!(m.hosts[0].receive(), frame);
    m.transmit.wait_used(&m.inbox, 1);
}

#[test]
fn frames_across_a_border_of_memory_regions_arrive_whole() {
    let mut m = machine(VERSION_1, |_, _| {});
    let data = payload(100);
    m.transmit.write(0x20_0000 - 50, &[vec![0; 12], data.clone()].concat());
    m.transmit.send(&[readable(0x20_0000 - 50, 112)]);
    assert_eq!(m.hosts[0].receive()[12..], data);
}

#[test]
fn hostile_transmit_chains_are_given_back_and_the_next_frame_goes() {
    let mut m = machine(VERSION_1, |_, _| {});
    let hostile: [&[Buffer]; 7] = [
        &[readable(0x30_0000, 100)],
        &[readable(0x20_0000 + 0x10_0000 - 10, 100)],
        &[readable(u64::MAX - 10, 100)],
        &[readable(BUFFERS, 12)],
        &[readable(BUFFERS, 0)],
        &[writable(BUFFERS, 100)],
        &[readable(BUFFERS, 0xFFFF_FFFF)],
    ];
    for chain in hostile {
        let head = m.transmit.send(chain);
        assert_eq!(m.transmit.wait_used(&m.inbox, 1), [(head.into(), 0)]);
    }
    // A chain that loops.
    m.transmit.write_descriptor(9, readable(BUFFERS, 100), NEXT, 9);
    m.transmit.offer(9);
    m.transmit.kick();
    assert_eq!(m.transmit.wait_used(&m.inbox, 1), [(9, 0)]);
    m.send(&payload(60), &[72]);
    assert_eq!(m.hosts[0].receive().len(), 72);
    m.device.reset();
    assert_eq!(m.device.counters()[1].snapshot().errors, 8);
}

#[test]
fn a_broken_ring_needs_a_reset_and_a_reset_mends_it() {
    let mut m = machine(VERSION_1, |_, _| {});
    m.transmit.jump(1000);
    m.transmit.kick();
    assert_eq!(m.inbox.next(), Signal::NeedsReset);
    m.device.reset();
    let mut transmit = Driver::new(&m.memory, 0x4000, 16);
    let receive = Driver::new(&m.memory, 0, 16);
    let (interrupt, _inbox) = interrupt();
    let queues = vec![receive.queue(0, VERSION_1), transmit.queue(1, VERSION_1)];
    m.device.activate(activation(&m.memory, VERSION_1, queues, interrupt)).unwrap();
    transmit.write(BUFFERS, &[0; 72]);
    transmit.send(&[readable(BUFFERS, 72)]);
    assert_eq!(m.hosts[0].receive().len(), 72);
}

#[test]
fn a_full_host_queue_delays_frames_and_loses_none() {
    let mut m = machine(VERSION_1, |_, _| {});
    // More than an unread datagram socket holds.
    m.transmit.write(BUFFERS, &[0; 1024]);
    let mut given_back = 0;
    for i in 0..14u8 {
        m.transmit.write(BUFFERS + u64::from(i) * 128 + 12, &[i; 60]);
        m.transmit.send(&[readable(BUFFERS + u64::from(i) * 128, 72)]);
    }
    for i in 0..14u8 {
        assert_eq!(m.hosts[0].receive()[12..], [i; 60]);
    }
    while given_back < 14 {
        given_back += m.transmit.wait_used(&m.inbox, 1).len();
    }
}

#[test]
fn a_frame_arrives_in_one_buffer() {
    let mut m = machine(VERSION_1, |receive, _| {
        receive.send(&[writable(BUFFERS, 5), writable(BUFFERS + 0x1000, 2000)]);
    });
    let data = payload(1000);
    m.hosts[0].send(&data);
    assert_eq!(m.receive.wait_used(&m.inbox, 1), [(0, 1012)]);
    // num_buffers, the last two bytes of the header, is 1.
    assert_eq!(m.receive.read(BUFFERS + 0x1000, 7), [0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(m.receive.read(BUFFERS + 0x1007, 1000), data);
    let stats = m.device.counters()[0].snapshot();
    assert_eq!((stats.requests, stats.bytes), (1, 1000));
}

#[test]
fn frames_wait_for_buffers() {
    let mut m = machine(VERSION_1, |_, _| {});
    m.hosts[0].send(&[1; 60]);
    m.hosts[0].send(&[2; 60]);
    for value in [1, 2] {
        m.receive.send(&[writable(BUFFERS, 2048)]);
        assert_eq!(m.receive.wait_used(&m.inbox, 1)[0].1, 72);
        assert_eq!(m.receive.read(BUFFERS + 12, 60), [value; 60]);
    }
}

#[test]
fn a_frame_too_long_for_its_buffer_is_lost_and_the_buffer_used_for_the_next() {
    let mut m = machine(VERSION_1, |receive, _| {
        receive.send(&[writable(BUFFERS, 100)]);
    });
    m.hosts[0].send(&[1; 1000]);
    m.hosts[0].send(&[2; 60]);
    assert_eq!(m.receive.wait_used(&m.inbox, 1), [(0, 72)]);
    assert_eq!(m.receive.read(BUFFERS + 12, 60), [2; 60]);
    m.device.reset();
    assert_eq!(m.device.counters()[0].snapshot().errors, 1);
}

/// Reads a frame out of mergeable buffers of `size` bytes that start at [`BUFFERS`].
fn merged(m: &Machine, used: &[(u32, u32)], size: u64) -> Vec<u8> {
    let piece = |&(head, length): &(u32, u32)| {
        m.receive.read(BUFFERS + u64::from(head) * size, length as usize)
    };
    used.iter().flat_map(piece).collect()
}

#[test]
fn a_long_frame_is_spread_over_mergeable_buffers() {
    // Where the longest possible frame fits, straight to the guest; else through a copy.
    for (count, size) in [(16, 512), (12, 120)] {
        let mut m = machine(MERGEABLE, |receive, _| {
            for i in 0..count {
                receive.send(&[writable(BUFFERS + i * size, size as u32)]);
            }
        });
        let data = payload(1400);
        m.hosts[0].send(&data);
        let needed = 1412usize.div_ceil(size as usize);
        let used = m.receive.wait_used(&m.inbox, needed);
        assert_eq!(used.len(), needed);
        let frame = merged(&m, &used, size);
        assert_eq!(frame.len(), 1412);
        assert_eq!(frame[10..12], (needed as u16).to_le_bytes());
        assert_eq!(frame[12..], data);
    }
}

#[test]
fn a_segment_of_64_kib_arrives_in_mergeable_buffers() {
    let offloads = 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO4;
    let mut m = machine(MERGEABLE | offloads, |receive, _| {
        for i in 0..16 {
            receive.send(&[writable(BUFFERS + i * 0x2000, 0x2000)]);
        }
    });
    let data = payload(65550);
    m.hosts[0].send(&data);
    let used = m.receive.wait_used(&m.inbox, 9);
    assert_eq!(merged(&m, &used, 0x2000)[12..], data);
}

#[test]
fn a_long_frame_waits_until_there_are_enough_mergeable_buffers() {
    let mut m = machine(MERGEABLE, |receive, _| {
        receive.send(&[writable(BUFFERS, 1000)]);
    });
    let data = payload(1400);
    m.hosts[0].send(&data);
    m.hosts[0].send(&[7; 60]);
    m.receive.send(&[writable(BUFFERS + 1000, 1000)]);
    m.receive.send(&[writable(BUFFERS + 2000, 1000)]);
    let used = m.receive.wait_used(&m.inbox, 3);
    assert_eq!(used, [(0, 1000), (1, 412), (2, 72)]);
    assert_eq!(merged(&m, &used[..2], 1000)[12..], data);
}

#[test]
fn a_frame_that_no_ring_of_such_buffers_can_hold_is_lost() {
    let mut m = machine(MERGEABLE, |receive, _| {
        for i in 0..16 {
            receive.send(&[writable(BUFFERS + i * 64, 64)]);
        }
    });
    m.hosts[0].send(&payload(1400));
    m.hosts[0].send(&[7; 40]);
    assert_eq!(m.receive.wait_used(&m.inbox, 1), [(0, 52)]);
    m.device.reset();
    assert_eq!(m.device.counters()[0].snapshot().errors, 1);
}

#[test]
fn hostile_receive_buffers_are_given_back_empty() {
    for features in [VERSION_1, MERGEABLE] {
        let mut m = machine(features, |receive, _| {
            receive.send(&[writable(0x30_0000, 2048)]);
            receive.send(&[writable(0x20_0000 + 0x10_0000 - 10, 100)]);
            receive.send(&[writable(u64::MAX, 2)]);
            receive.send(&[writable(BUFFERS, 11)]);
            receive.send(&[writable(BUFFERS, 0)]);
            receive.send(&[readable(BUFFERS, 2048)]);
            receive.write_descriptor(9, writable(BUFFERS, 100), NEXT, 9);
            receive.offer(9);
            receive.kick();
        });
        let given_back = m.receive.wait_used(&m.inbox, 7);
        assert!(given_back.iter().all(|(_, length)| *length == 0));
        m.receive.write_descriptor(10, writable(BUFFERS, 2048), 0, 0);
        m.receive.offer(10);
        m.receive.kick();
        m.hosts[0].send(&[3; 60]);
        assert_eq!(m.receive.wait_used(&m.inbox, 1), [(10, 72)]);
    }
}

#[test]
fn offloads_are_set_by_negotiation_and_taken_back_by_reset() {
    let offloads = 1 << VIRTIO_NET_F_GUEST_CSUM | 1 << VIRTIO_NET_F_GUEST_TSO6;
    let mut m = machine(VERSION_1 | offloads, |_, _| {});
    let flags = libc::TUN_F_CSUM | libc::TUN_F_TSO6;
    assert_eq!(m.hosts[0].offloads.lock().unwrap()[2..], [flags]);
    m.device.reset();
    assert_eq!(m.hosts[0].offloads.lock().unwrap()[2..], [flags, 0]);
}

#[test]
fn the_first_pair_is_required() {
    let memory = memory();
    let (mut device, hosts) = device(1);
    let (interrupt, _inbox) = interrupt();
    let receive = Driver::new(&memory, 0, 16);
    let queues = vec![receive.queue(0, VERSION_1)];
    let error = device.activate(activation(&memory, VERSION_1, queues, interrupt)).unwrap_err();
    assert!(matches!(error, ActivateError::MissingQueue { queue: 1, .. }), "{error}");
    assert_eq!(*hosts[0].offloads.lock().unwrap().last().unwrap(), 0);
}

#[test]
fn the_control_queue_sets_how_many_pairs_take_part() {
    let features = VERSION_1 | 1 << VIRTIO_NET_F_CTRL_VQ | 1 << VIRTIO_NET_F_MQ;
    let memory = memory();
    let (mut device, hosts) = device(2);
    let drivers: Vec<Driver> = (0..5).map(|i| Driver::new(&memory, i * 0x4000, 16)).collect();
    let (interrupt, inbox) = interrupt();
    let queues = (0..).zip(&drivers).map(|(i, driver)| driver.queue(i, features)).collect();
    device.activate(activation(&memory, features, queues, interrupt)).unwrap();
    let mut control = drivers.into_iter().nth(4).unwrap();
    let mut command = |bytes: &[u8]| {
        control.write(BUFFERS, bytes);
        control.write(BUFFERS + 0x100, &[0xEE]);
        let length = bytes.len() as u32;
        control.send(&[
            readable(BUFFERS, length.min(2)),
            readable(BUFFERS + 2, length.saturating_sub(2)),
            writable(BUFFERS + 0x100, 1),
        ]);
        let used = control.wait_used(&inbox, 1);
        (used[0].1, control.read(BUFFERS + 0x100, 1)[0])
    };
    assert_eq!(command(&[4, 0, 2, 0]), (1, 0));
    for hostile in [&[4, 0, 0, 0][..], &[4, 0, 3, 0], &[4, 1, 1, 0], &[1, 1, 1, 1], &[4, 0]] {
        assert_eq!(command(hostile), (1, 1));
    }
    assert_eq!(command(&[4, 0, 1, 0]), (1, 0));
    device.reset();
    // The second pair was detached at the start; whether it saw both changes or only that there
    // was nothing left to change depends on its thread. The end is what counts.
    let seen = hosts[1].attached.lock().unwrap();
    assert_eq!((seen.first(), seen.last()), (Some(&false), Some(&true)));
    assert!(!hosts[0].attached.lock().unwrap().contains(&false));
}

#[test]
fn without_multiqueue_the_other_pairs_are_detached_and_the_control_queue_is_number_2() {
    let features = VERSION_1 | 1 << VIRTIO_NET_F_CTRL_VQ;
    let memory = memory();
    let (mut device, hosts) = device(2);
    let drivers: Vec<Driver> = (0..3).map(|i| Driver::new(&memory, i * 0x4000, 16)).collect();
    let (interrupt, inbox) = interrupt();
    let queues = (0..).zip(&drivers).map(|(i, driver)| driver.queue(i, features)).collect();
    device.activate(activation(&memory, features, queues, interrupt)).unwrap();
    assert_eq!(*hosts[1].attached.lock().unwrap(), [false]);
    let mut control = drivers.into_iter().nth(2).unwrap();
    control.write(BUFFERS, &[4, 0, 1, 0, 0xEE]);
    control.send(&[readable(BUFFERS, 4), writable(BUFFERS + 4, 1)]);
    control.wait_used(&inbox, 1);
    assert_eq!(control.read(BUFFERS + 4, 1), [VIRTIO_NET_ERR as u8]);
}

#[test]
fn frames_over_the_rate_limit_come_later_and_none_is_lost() {
    // 100 frames a second, ten at once: most of these wait for the timer.
    let rate =
        RateLimit { operations_per_second: std::num::NonZeroU64::new(100), bytes_per_second: None };
    let mut m = limited_machine(VERSION_1, rate, |receive, _| {
        for i in 0..14 {
            receive.send(&[writable(BUFFERS + 0x8000 + i * 0x100, 0x100)]);
        }
    });
    let started = std::time::Instant::now();
    for i in 0..14u8 {
        m.transmit.write(BUFFERS + u64::from(i) * 128 + 12, &[i; 60]);
        m.transmit.send(&[readable(BUFFERS + u64::from(i) * 128, 72)]);
    }
    for i in 0..14u8 {
        assert_eq!(m.hosts[0].receive()[12..], [i; 60]);
        m.hosts[0].send(&[i; 40]);
    }
    m.receive.wait_used(&m.inbox, 14);
    // No less than the limit demands, however long this machine took.
    assert!(started.elapsed() >= std::time::Duration::from_millis(30));
    for i in 0..14u8 {
        let at = BUFFERS + 0x8000 + u64::from(i) * 0x100 + 12;
        assert_eq!(m.receive.read(at, 40), [i; 40]);
    }
}

#[test]
fn frames_allocate_nothing_once_there_is_a_place_for_each() {
    for features in [VERSION_1, MERGEABLE] {
        let memory = memory();
        let (mut backend, host) = socket_backend();
        let (mut receive, mut transmit) =
            (Driver::new(&memory, 0, 16), Driver::new(&memory, 0x4000, 16));
        // A test's interrupts allocate.
        receive.set_available_flags(1);
        transmit.set_available_flags(1);
        let activation = activation(&memory, features, Vec::new(), interrupt().0);
        let queue = |active| DeviceQueue::new(active, &activation, Arc::default());
        let mut receiver = Receiver::new(queue(receive.queue(0, features)), features, 1500, None);
        let mut transmitter = Transmitter::new(queue(transmit.queue(1, features)), None);
        let sources = stopping_sources(false);
        let mut round = || {
            let mut count = 0;
            for _ in 0..3 {
                receive.send(&[writable(BUFFERS, 1000), writable(BUFFERS + 1000, 1000)]);
                transmit.send(&[readable(BUFFERS, 12), readable(BUFFERS + 12, 1000)]);
                host.send(&[7; 1400]);
            }
            let end = receive.used_index().wrapping_add(3);
            count += allocations(|| {
                assert!(serve(&mut transmitter.sending(&mut backend), &sources).is_ok());
                assert!(serve(&mut receiver.receiving(&mut backend), &sources).is_ok());
            });
            assert_eq!(receive.used_index(), end);
            for _ in 0..3 {
                assert_eq!(host.receive().len(), 1012);
            }
            count
        };
        for _ in 0..4 {
            round();
        }
        assert_eq!((0..20).map(|_| round()).sum::<usize>(), 0);
    }
}
