use std::sync::{Arc, Mutex};

use super::*;
use crate::bus::BusDevice;

/// Answers reads with the width of the access, and remembers writes.
#[derive(Default)]
struct Widths(Vec<(u64, Vec<u8>)>);

impl BusDevice for Widths {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        let width = data.len() as u8;
        data.fill(width);
    }
    fn write(&mut self, offset: u64, data: &[u8]) {
        self.0.push((offset, data.to_vec()));
    }
}

fn handler() -> (ExitHandler, Arc<Mutex<Widths>>) {
    let buses = Buses { ports: Arc::default(), mmio: Arc::default() };
    let device = Arc::new(Mutex::new(Widths::default()));
    buses.ports.insert("widths", 0x100, 8, device.clone()).unwrap();
    buses.mmio.insert("widths", 0xd000_0000, 0x1000, device.clone()).unwrap();
    let (control, counters) = (Control::default(), SharedCounters::default());
    (ExitHandler { buses, control, counters }, device)
}

#[test]
fn repeated_port_accesses_keep_their_width() {
    let (mut handler, device) = handler();
    let mut data = [0; 8];
    handler.port_read(0x101, 2, &mut data);
    assert_eq!(data, [2; 8]);
    handler.port_read(0x101, 4, &mut data[..4]);
    assert_eq!(data[..4], [4; 4]);
    handler.port_write(0x103, 1, &[7, 8]);
    assert_eq!(device.lock().unwrap().0, [(3, vec![7]), (3, vec![8])]);
}

#[test]
fn where_no_device_is_reads_are_all_ones_and_writes_are_lost() {
    let (mut handler, _) = handler();
    let mut data = [0; 4];
    handler.port_read(0x200, 4, &mut data);
    assert_eq!(data, [0xff; 4]);
    handler.port_write(0x200, 4, &data);
    handler.mmio_read(0xe000_0000, &mut data);
    assert_eq!(data, [0xff; 4]);
    for offset in 0..100 {
        handler.mmio_write(0xe000_0000 + offset, &data);
    }
    let stats = crate::stats::Stats::collect([handler.counters.snapshot()]);
    assert_eq!((stats.exits, stats.accesses.len()), (103, 4));
}

#[test]
fn mmio_reaches_its_device() {
    let (mut handler, device) = handler();
    let mut data = [0; 8];
    handler.mmio_read(0xd000_0010, &mut data);
    assert_eq!(data, [8; 8]);
    handler.mmio_write(0xd000_0010, &[1, 2, 3, 4]);
    assert_eq!(device.lock().unwrap().0, [(0x10, vec![1, 2, 3, 4])]);
}

#[test]
fn interruptions_are_not_faults_and_other_errors_are() {
    let (mut handler, _) = handler();
    for errno in [libc::EINTR, libc::EAGAIN] {
        assert!(handler.handle_error(kvm_ioctls::Error::new(errno)).is_ok());
    }
    let fault = handler.handle_error(kvm_ioctls::Error::new(libc::EFAULT)).unwrap_err();
    assert!(fault.to_string().starts_with("KVM_RUN failed"));
}
