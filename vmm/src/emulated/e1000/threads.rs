//! The controller as the buses see it, and its two threads.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};
use vmm_sys_util::timerfd::TimerFd;

use super::rx::Receiver;
use super::state::{Effects, Registers};
use super::tx::Transmitter;
use crate::backend::net::NetBackend;
use crate::bus::BusDevice;
use crate::eintr::retry;
use crate::irq::IrqLine;
use crate::memory::GuestRam;
use crate::poison::unpoisoned;

/// `TUN_F_CSUM` (linux/if_tun.h): packets from the host may come without their checksum, which
/// we complete while copying. The host's stack segments: this controller merges nothing.
const TUN_F_CSUM: u32 = 1;

struct Shared {
    registers: Mutex<Registers>,
    transmitter: Mutex<Transmitter>,
    receiver: Mutex<Receiver>,
    transmit_work: Condvar,
    receive_work: EventFd,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    unpoisoned(mutex.lock())
}

impl Shared {
    fn read(&self, at: u32) -> u32 {
        lock(&self.registers).read(at)
    }

    fn write(&self, at: u32, value: u32) {
        let mut registers = lock(&self.registers);
        if registers.needs_quiet(at, value) {
            drop(registers);
            let mut transmitter = lock(&self.transmitter);
            let mut receiver = lock(&self.receiver);
            registers = lock(&self.registers);
            transmitter.reset();
            receiver.reset();
        }
        let effects = registers.write(at, value);
        drop(registers);
        self.wake(effects);
    }

    fn wake(&self, effects: Effects) {
        if effects.wake_transmitter {
            self.transmit_work.notify_one();
        }
        if effects.wake_receiver {
            // Fails only when the counter is full, and then the thread is awake.
            let _ = self.receive_work.write(1);
        }
    }

    /// The transmitter's thread: one batch after the other until the ring is empty.
    fn transmit(&self, memory: &GuestRam) {
        loop {
            let mut transmitter = lock(&self.transmitter);
            let view = lock(&self.registers).transmit_view();
            if let Some(view) = view {
                let report = transmitter.run(memory, view);
                lock(&self.registers).transmitted(report);
                continue;
            }
            drop(transmitter);
            let mut registers = lock(&self.registers);
            while registers.transmit_view().is_none() && !registers.stop {
                registers.transmitter_idle = true;
                registers = unpoisoned(self.transmit_work.wait(registers));
            }
            registers.transmitter_idle = false;
            if registers.stop {
                return;
            }
        }
    }

    /// The receiver's thread, which also keeps the interrupt timers.
    fn receive(&self, memory: &GuestRam, timer: RawFd) {
        let mut filter = lock(&self.registers).filter();
        let host = lock(&self.receiver).event();
        let mut look_at_host = true;
        loop {
            let ready = match wait(host, look_at_host, self.receive_work.as_raw_fd(), timer) {
                Ok(ready) => ready,
                Err(_) => return,
            };
            if ready.work {
                // Only clears the counter; an empty one is no news.
                let _ = self.receive_work.read();
            }
            let mut registers = lock(&self.registers);
            if registers.stop {
                return;
            }
            if ready.timer {
                registers.tick();
            }
            drop(registers);
            if ready.host || ready.work {
                match self.receive_all(memory, &mut filter) {
                    Host::Alive { starved } => look_at_host = !starved,
                    Host::Dead => look_at_host = false,
                }
            }
        }
    }

    /// Batches until the host has no frame or the driver no descriptor.
    fn receive_all(&self, memory: &GuestRam, filter: &mut (u64, super::filter::Filter)) -> Host {
        loop {
            let mut receiver = lock(&self.receiver);
            let registers = lock(&self.registers);
            if registers.stop {
                return Host::Alive { starved: false };
            }
            let view = registers.receive_view().filter(|_| registers.receiving());
            registers.refresh_filter(filter);
            drop(registers);
            let report = match view {
                Some(view) => {
                    let report = receiver.run(memory, &filter.1, view);
                    lock(&self.registers).received(report)
                }
                None => {
                    let report = receiver.discard();
                    lock(&self.registers).count_received_total(&report);
                    report
                }
            };
            if report.dead {
                return Host::Dead;
            }
            if !report.more {
                return Host::Alive { starved: report.starved };
            }
        }
    }
}

enum Host {
    Alive { starved: bool },
    Dead,
}

struct Ready {
    host: bool,
    work: bool,
    timer: bool,
}

/// Blocks until the host has a frame (if that matters), there is work, or the timer expired.
fn wait(host: RawFd, look_at_host: bool, work: RawFd, timer: RawFd) -> io::Result<Ready> {
    // poll(2) ignores negative descriptors.
    let fds = [if look_at_host { host } else { -1 }, work, timer];
    let mut polls = fds.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    retry(|| {
        // SAFETY: `polls` is a valid, exclusively borrowed array of the length passed.
        match unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, -1) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    })?;
    let [host, work, timer] = polls.map(|p| p.revents != 0);
    Ok(Ready { host, work, timer })
}

/// One controller; its threads end when this is dropped.
pub struct E1000 {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl E1000 {
    /// A controller with the address `mac` on a back end that is given twice, as each thread has
    /// its own handle: `transmit` and `receive` are the same queue. `line` is its INTx.
    ///
    /// # Errors
    /// The host has no descriptors or threads left, or refuses the offload.
    pub fn new(
        memory: &GuestRam,
        mac: [u8; 6],
        transmit: Box<dyn NetBackend>,
        mut receive: Box<dyn NetBackend>,
        line: IrqLine,
    ) -> io::Result<Self> {
        receive.set_offloads(TUN_F_CSUM)?;
        let timer = TimerFd::new().map_err(io::Error::from)?;
        let timer_fd = timer.as_raw_fd();
        let shared = Arc::new(Shared {
            registers: Mutex::new(Registers::new(mac, line, Some(timer))),
            transmitter: Mutex::new(Transmitter::new(transmit)),
            receiver: Mutex::new(Receiver::new(receive)),
            transmit_work: Condvar::new(),
            receive_work: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        });
        let mut controller = Self { shared, threads: Vec::new() };
        let (shared, ram) = (Arc::clone(&controller.shared), memory.clone());
        controller.spawn("e1000-tx", move || shared.transmit(&ram))?;
        let (shared, ram) = (Arc::clone(&controller.shared), memory.clone());
        controller.spawn("e1000-rx", move || shared.receive(&ram, timer_fd))?;
        Ok(controller)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let batched = || {
            crate::threads::WakeUps::InTurn.choose();
            run();
        };
        self.threads.push(crate::threads::builder(name).spawn(batched)?);
        Ok(())
    }

    /// The registers in memory space (BAR 0).
    pub fn memory_registers(&self) -> MemoryRegisters {
        MemoryRegisters(Arc::clone(&self.shared))
    }

    /// The window in I/O space (BAR 1).
    pub fn io_ports(&self) -> IoPorts {
        IoPorts { shared: Arc::clone(&self.shared), address: 0 }
    }

    /// Plugs the cable in or out.
    pub fn set_carrier(&self, carrier: bool) {
        let effects = lock(&self.shared.registers).set_carrier(carrier);
        self.shared.wake(effects);
    }

    /// What a reset of the machine does. Returns once no thread touches guest memory.
    pub fn reset(&self) {
        let mut transmitter = lock(&self.shared.transmitter);
        let mut receiver = lock(&self.shared.receiver);
        transmitter.reset();
        receiver.reset();
        lock(&self.shared.registers).power_on();
    }
}

impl Drop for E1000 {
    fn drop(&mut self) {
        lock(&self.shared.registers).stop = true;
        self.shared.transmit_work.notify_all();
        // As in `Shared::wake`.
        let _ = self.shared.receive_work.write(1);
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; there is nothing left to save here.
            let _ = thread.join();
        }
    }
}

/// The registers in memory space. They are 32 bits wide and are to be accessed as such (13.2);
/// narrower writes are ignored.
pub struct MemoryRegisters(Arc<Shared>);

impl BusDevice for MemoryRegisters {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let mut at = offset;
        let mut data = data;
        while !data.is_empty() {
            let register = self.0.read((at & !3) as u32).to_le_bytes();
            let bytes = &register[(at & 3) as usize..];
            let length = bytes.len().min(data.len());
            let (now, later) = data.split_at_mut(length);
            now.copy_from_slice(&bytes[..length]);
            data = later;
            at += length as u64;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) {
            return;
        }
        for (index, bytes) in data.chunks_exact(4).enumerate() {
            let value = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            self.0.write(offset as u32 + 4 * index as u32, value);
        }
    }
}

/// IOADDR and IODATA (13.2.2): the same registers through I/O ports.
pub struct IoPorts {
    shared: Arc<Shared>,
    address: u32,
}

impl BusDevice for IoPorts {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let value = match offset {
            0 => self.address,
            4 => self.shared.read(self.address & !3),
            _ => 0,
        };
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return };
        let value = u32::from_le_bytes(bytes);
        match offset {
            // Addresses beyond the registers are not kept (13.2.2.1).
            0 if u64::from(value) < super::MEMORY_LENGTH => self.address = value,
            4 => self.shared.write(self.address & !3, value),
            _ => {}
        }
    }
}
