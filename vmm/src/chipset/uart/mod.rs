//! Serial ports: PC16550D UARTs ([`registers`]) on the port bus.

mod registers;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use self::registers::{Registers, offset};
use crate::backend::output::Output;
use crate::bus::BusDevice;
use crate::irq::IrqLine;
use crate::poison::unpoisoned;

/// Where a serial port is.
pub struct ComPort {
    /// Name in statistics.
    pub name: &'static str,
    /// First of its 8 I/O ports.
    pub port: u16,
    /// ISA interrupt; COM1 shares with COM3 and COM2 with COM4, as on a PC.
    pub irq: u32,
}

/// COM1 to COM4.
pub const COM: [ComPort; 4] = [
    ComPort { name: "com1", port: 0x3f8, irq: 4 },
    ComPort { name: "com2", port: 0x2f8, irq: 3 },
    ComPort { name: "com3", port: 0x3e8, irq: 4 },
    ComPort { name: "com4", port: 0x2e8, irq: 3 },
];

/// I/O ports that each has.
pub const PORTS: u64 = 8;

/// How long a vCPU that asks whether the transmitter is empty is held while it is not. Linux's
/// console and firmware ask in a loop and drop what they have after some thousand times, which an
/// answer at once would spend in milliseconds. The guest's interrupts wait meanwhile.
const POLL_TIMEOUT: Duration = Duration::from_millis(1);

/// A serial port as the bus sees it.
pub struct Uart {
    registers: Registers,
    output: Output,
    line: IrqLine,
    asserted: bool,
    /// Wakes the thread that waits for room in the receive FIFO.
    input_drained: EventFd,
}

impl Uart {
    /// A port that sends to `output`. It writes to `input_drained` when [`Uart::receive`] has room
    /// again.
    pub fn new(output: Output, line: IrqLine, input_drained: EventFd) -> Arc<Mutex<Self>> {
        let registers = Registers::default();
        let uart = Self { registers, output, line, asserted: false, input_drained };
        let uart = Arc::new(Mutex::new(uart));
        let waiting = Arc::downgrade(&uart);
        lock(&uart).output.on_room(move || {
            if let Some(uart) = waiting.upgrade() {
                lock(&uart).access(|_, _| ());
            }
        });
        uart
    }

    /// How many bytes [`Uart::receive`] would take now.
    pub fn room(&self) -> usize {
        self.registers.room()
    }

    /// Puts bytes into the receive FIFO and returns how many fit: none in loopback mode, or while
    /// nobody in the guest listens.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = self.registers.receive(bytes);
        self.drive_line();
        taken
    }

    fn drive_line(&mut self) {
        let interrupts = self.registers.interrupts();
        if interrupts != self.asserted {
            self.asserted = interrupts;
            self.line.set(interrupts);
        }
    }

    /// Lets `access` at the registers, and tells whoever has to know what changed.
    fn access<T>(&mut self, access: impl FnOnce(&mut Registers, &Output) -> T) -> T {
        if self.registers.is_transmitter_held() && self.output.has_room() {
            self.registers.release_transmitter();
        }
        let had_room = self.registers.room() > 0 && self.registers.is_drained();
        let result = access(&mut self.registers, &self.output);
        if !had_room && self.registers.room() > 0 && self.registers.is_drained() {
            let _ = self.input_drained.write(1); // Fails only when it is readable anyway.
        }
        self.drive_line();
        result
    }

    fn read(&mut self, at: u64) -> u8 {
        self.access(|registers, _| registers.read(at))
    }

    fn write(&mut self, at: u64, value: u8) {
        self.access(|registers, output| {
            let Some(byte) = registers.write(at, value) else { return };
            let (_, room) = output.push(&[byte]);
            if !room {
                registers.hold_transmitter();
            }
        });
    }
}

fn lock(uart: &Mutex<Uart>) -> MutexGuard<'_, Uart> {
    unpoisoned(uart.lock())
}

/// The eight ports of a [`Uart`].
pub struct UartPorts(pub Arc<Mutex<Uart>>);

impl UartPorts {
    /// Holds a vCPU that polls, without the UART's lock.
    fn wait_for_transmitter(&self) {
        let held = {
            let uart = lock(&self.0);
            uart.registers.is_transmitter_held().then(|| uart.output.clone())
        };
        if let Some(output) = held {
            output.wait_for_room(POLL_TIMEOUT);
        }
    }
}

impl BusDevice for UartPorts {
    fn read(&mut self, at: u64, data: &mut [u8]) {
        if let [value] = data {
            if at == offset::LINE_STATUS {
                self.wait_for_transmitter();
            }
            *value = lock(&self.0).read(at);
        }
    }

    fn write(&mut self, at: u64, data: &[u8]) {
        if let &[value] = data {
            lock(&self.0).write(at, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::registers::FIFO;
    use super::registers::offset::*;
    use super::*;
    use crate::backend::output::{CAPACITY, RESERVE};
    use crate::irq::InterruptLine;

    /// The level of the line, and how often it rose.
    #[derive(Default)]
    struct Edges(Mutex<(bool, u32)>);

    impl InterruptLine for Edges {
        fn set(&self, asserted: bool) {
            let mut state = self.0.lock().unwrap();
            state.0 = asserted;
            state.1 += u32::from(asserted);
        }
    }

    /// A host that takes output while nobody holds the lock, and tells when it is offered some.
    struct Host {
        offered: Sender<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Host {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.offered.send(());
            self.taken.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Rig {
        ports: UartPorts,
        edges: Arc<Edges>,
        drained: EventFd,
        offered: Receiver<()>,
        taken: Arc<Mutex<Vec<u8>>>,
    }

    impl Rig {
        fn new() -> Self {
            let (sender, offered) = channel();
            let taken = Arc::<Mutex<Vec<u8>>>::default();
            let host = Host { offered: sender, taken: Arc::clone(&taken) };
            let output = Output::new("test", Box::new(host), true).unwrap();
            let edges = Arc::new(Edges::default());
            let drained = EventFd::new(libc::EFD_NONBLOCK).unwrap();
            let uart = Uart::new(output, edges.clone(), drained.try_clone().unwrap());
            Self { ports: UartPorts(uart), edges, drained, offered, taken }
        }

        fn get(&mut self, register: u64) -> u8 {
            let mut value = [0];
            self.ports.read(register, &mut value);
            value[0]
        }

        fn put(&mut self, register: u64, value: u8) {
            self.ports.write(register, &[value]);
        }

        fn edges(&self) -> u32 {
            self.edges.0.lock().unwrap().1
        }
    }

    #[test]
    fn what_is_sent_reaches_the_host() {
        let mut rig = Rig::new();
        for byte in b"one\ntwo" {
            rig.put(DATA, *byte);
        }
        assert!(lock(&rig.ports.0).output.drain(|| false));
        assert_eq!(*rig.taken.lock().unwrap(), b"one\ntwo");
    }

    /// The machine goes on, no lock is held, and nothing is lost by a driver that asks first.
    #[test]
    fn a_host_that_does_not_read_shows_as_a_transmitter_that_is_not_empty() {
        const THRE: u8 = 0x20;
        let mut rig = Rig::new();
        for (register, value) in [(MODEM_CONTROL, 0x08), (FIFO_CONTROL, 1), (INTERRUPT_ENABLE, 2)] {
            rig.put(register, value);
        }
        let taken = Arc::clone(&rig.taken);
        let host = taken.lock().unwrap();
        rig.put(DATA, b'\n');
        rig.offered.recv().unwrap();
        // As Linux: a FIFO's worth whenever the transmitter is empty.
        let mut sent = 0;
        while rig.get(LINE_STATUS) & THRE != 0 {
            for _ in 0..FIFO {
                rig.put(DATA, (sent % 251) as u8);
                sent += 1;
            }
        }
        assert!((CAPACITY - RESERVE..=CAPACITY).contains(&sent), "{sent}");
        for _ in 0..3 {
            assert_eq!(rig.get(INTERRUPT_ID) & 0x0f, 1, "no interrupt is pending");
            assert_eq!(rig.get(LINE_STATUS) & THRE, 0);
        }
        // The driver may switch its interrupt off and on: it still waits.
        rig.put(INTERRUPT_ENABLE, 0);
        rig.put(INTERRUPT_ENABLE, 2);
        assert!(!rig.edges.0.lock().unwrap().0);

        // Somebody comes to read: the interrupt says so, and everything is there.
        let edges = rig.edges();
        drop(host);
        while rig.edges() == edges {
            std::thread::yield_now();
        }
        assert_eq!(rig.get(INTERRUPT_ID) & 0x0f, 2);
        assert_eq!(rig.get(LINE_STATUS) & THRE, THRE);
        assert!(lock(&rig.ports.0).output.drain(|| false));
        let taken = taken.lock().unwrap();
        assert_eq!(taken.len(), 1 + sent);
        assert!(taken[1..].iter().enumerate().all(|(at, byte)| *byte == (at % 251) as u8));
    }

    #[test]
    fn input_fills_the_fifo_interrupts_and_reports_when_it_is_drained() {
        let mut rig = Rig::new();
        for (register, value) in [(MODEM_CONTROL, 0x0a), (FIFO_CONTROL, 1), (INTERRUPT_ENABLE, 1)] {
            rig.put(register, value);
        }
        let _ = rig.drained.read();
        let uart = Arc::clone(&rig.ports.0);
        let room = lock(&uart).room();
        assert_eq!(room, FIFO);
        assert_eq!(lock(&uart).receive(&vec![b'a'; room + 5]), room);
        assert_eq!(lock(&uart).receive(b"b"), 0);
        assert_eq!(rig.edges(), 1);
        for _ in 0..room {
            assert_eq!(rig.get(LINE_STATUS) & 1, 1);
            assert_eq!(rig.get(DATA), b'a');
        }
        assert_eq!(rig.get(LINE_STATUS) & 1, 0);
        assert!(rig.drained.read().is_ok());
    }

    #[test]
    fn wide_accesses_are_ignored() {
        let mut rig = Rig::new();
        let mut data = [0xff; 4];
        rig.ports.read(DATA, &mut data);
        assert_eq!(data, [0xff; 4]);
        rig.ports.write(DATA, b"abcd");
    }
}
