//! 16550A serial port: vm-superio's model on our bus, with output gathered into lines.
//!
//! A write(2) per byte would double the cost of every byte the guest prints, so output is passed
//! on at line ends, when [`GATHER`] bytes have come together, and by [`super::serial_io`] shortly
//! after the first byte otherwise (a prompt).

use std::io::{self, Write};

use vm_superio::Trigger;
use vm_superio::serial::{Serial, SerialEvents};
use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;
use crate::control::Control;
use crate::irq::IrqLine;

/// Where a serial port is.
pub struct ComPort {
    /// Name in statistics.
    pub name: &'static str,
    /// First port.
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

/// Ports of each.
pub const PORTS: u64 = 8;

const GATHER: usize = 256;

/// The interrupt, as vm-superio wants it.
struct Interrupt(IrqLine);

impl Trigger for Interrupt {
    type E = std::convert::Infallible;

    fn trigger(&self) -> Result<(), Self::E> {
        self.0.pulse();
        Ok(())
    }
}

/// Wakes the thread that waits for room in the receive FIFO.
struct Drained(EventFd);

impl SerialEvents for Drained {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        let _ = self.0.write(1); // Fails only when the counter is full: it is readable then.
    }
}

/// Gathers bytes; see the module.
struct Gatherer {
    output: Box<dyn Write + Send>,
    /// Whether to gather at all.
    gather: bool,
    pending: Vec<u8>,
    /// Told when the first byte of what is gathered waits.
    waiting: EventFd,
    control: Control,
}

impl Gatherer {
    /// Hands everything gathered to the host. Bytes that the host refuses are lost, as on a real
    /// line with nothing at the other end.
    fn pass_on(&mut self) {
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                // The kick that ends the machine: the reader may never come back.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {
                    if self.control.has_ended() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        self.pending.clear();
        let _ = self.output.flush();
    }
}

impl Write for Gatherer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let was_empty = self.pending.is_empty();
        self.pending.extend_from_slice(bytes);
        if !self.gather || self.pending.len() >= GATHER || bytes.contains(&b'\n') {
            self.pass_on();
        } else if was_empty {
            let _ = self.waiting.write(1); // As above.
        }
        Ok(bytes.len())
    }

    // vm-superio flushes after every byte, which is what the gathering is there to avoid.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One serial port.
pub struct Uart {
    serial: Serial<Interrupt, Drained, Gatherer>,
}

impl Uart {
    /// A port that sends to `output`, gathered or byte by byte. It writes to `output_waits` when
    /// there is something for
    /// [`Uart::flush`], and to `input_drained` when [`Uart::receive`] has room again.
    pub fn new(
        output: Box<dyn Write + Send>,
        gather: bool,
        line: IrqLine,
        control: Control,
        output_waits: EventFd,
        input_drained: EventFd,
    ) -> Self {
        let output =
            Gatherer { output, gather, pending: Vec::new(), waiting: output_waits, control };
        Self { serial: Serial::with_events(Interrupt(line), Drained(input_drained), output) }
    }

    /// Passes on what has been gathered.
    pub fn flush(&mut self) {
        self.serial.writer_mut().pass_on();
    }

    /// How many bytes [`Uart::receive`] would take now.
    pub fn room(&self) -> usize {
        self.serial.fifo_capacity()
    }

    /// Puts bytes into the receive FIFO and returns how many fit (none in loopback mode).
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        self.serial.enqueue_raw_bytes(bytes).unwrap_or(0)
    }
}

impl BusDevice for Uart {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [value] = data {
            *value = self.serial.read(offset as u8);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let &[value] = data {
            let _ = self.serial.write(offset as u8, value); // Our output and interrupt never fail.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::irq::InterruptLine;
    use std::sync::{Arc, Mutex};

    const DATA: u64 = 0;
    const INTERRUPT_ENABLE: u64 = 1;
    const LINE_STATUS: u64 = 5;

    #[derive(Default)]
    struct Edges(Mutex<u32>);

    impl InterruptLine for Edges {
        fn set(&self, asserted: bool) {
            *self.0.lock().unwrap() += u32::from(asserted);
        }
    }

    /// Remembers each write that reached the host.
    #[derive(Clone, Default)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(bytes.to_vec());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn uart(writes: &Writes) -> (Uart, Arc<Edges>, EventFd, EventFd) {
        let edges = Arc::new(Edges::default());
        let waits = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let drained = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        let uart = Uart::new(
            Box::new(writes.clone()),
            true,
            edges.clone(),
            Control::default(),
            waits.try_clone().unwrap(),
            drained.try_clone().unwrap(),
        );
        (uart, edges, waits, drained)
    }

    fn get(uart: &mut Uart, offset: u64) -> u8 {
        let mut value = [0];
        uart.read(offset, &mut value);
        value[0]
    }

    #[test]
    fn output_is_passed_on_by_lines() {
        let writes = Writes::default();
        let (mut uart, _, waits, _) = uart(&writes);
        for byte in b"one\ntwo" {
            uart.write(DATA, &[*byte]);
        }
        assert_eq!(*writes.0.lock().unwrap(), [b"one\n"]);
        assert!(waits.read().is_ok());
        uart.flush();
        assert_eq!(*writes.0.lock().unwrap(), [b"one\n".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn a_line_without_end_is_passed_on_too() {
        let writes = Writes::default();
        let (mut uart, ..) = uart(&writes);
        for _ in 0..GATHER + 1 {
            uart.write(DATA, b"x");
        }
        assert_eq!(writes.0.lock().unwrap().len(), 1);
    }

    #[test]
    fn input_fills_the_fifo_interrupts_and_reports_when_it_is_drained() {
        let (mut uart, edges, _, drained) = uart(&Writes::default());
        uart.write(INTERRUPT_ENABLE, &[1]);
        let room = uart.room();
        assert_eq!(uart.receive(&vec![b'a'; room + 5]), room);
        assert_eq!(uart.receive(b"b"), 0);
        assert_eq!(*edges.0.lock().unwrap(), 1);
        for _ in 0..room {
            assert_eq!(get(&mut uart, LINE_STATUS) & 1, 1);
            assert_eq!(get(&mut uart, DATA), b'a');
        }
        assert_eq!(get(&mut uart, LINE_STATUS) & 1, 0);
        assert!(drained.read().is_ok());
    }

    #[test]
    fn wide_accesses_are_ignored() {
        let (mut uart, ..) = uart(&Writes::default());
        let mut data = [0xff; 4];
        uart.read(DATA, &mut data);
        assert_eq!(data, [0xff; 4]);
        uart.write(DATA, b"abcd");
    }
}
