//! Serial ports: PC16550D UARTs ([`registers`]) on the port bus, with output gathered into lines
//! ([`gather`]).

mod gather;
mod registers;

use std::io::Write;

use vmm_sys_util::eventfd::EventFd;

use crate::bus::BusDevice;
use crate::control::Control;
use crate::irq::IrqLine;

use gather::Gatherer;
use registers::Registers;

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

/// One serial port.
pub struct Uart {
    registers: Registers,
    output: Gatherer,
    line: IrqLine,
    asserted: bool,
    /// Wakes the thread that waits for room in the receive FIFO.
    input_drained: EventFd,
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
        let output = Gatherer::new(output, gather, output_waits, control);
        Self { registers: Registers::default(), output, line, asserted: false, input_drained }
    }

    /// Passes on what has been gathered.
    pub fn flush(&mut self) {
        self.output.pass_on();
    }

    /// How many bytes [`Uart::receive`] would take now.
    pub fn room(&self) -> usize {
        self.registers.room()
    }

    /// Puts bytes into the receive FIFO and returns how many fit: none in loopback mode, or while
    /// the guest does not raise RTS.
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
    fn access<T>(&mut self, access: impl FnOnce(&mut Registers) -> T) -> T {
        let had_room = self.registers.room() > 0 && self.registers.is_drained();
        let result = access(&mut self.registers);
        if !had_room && self.registers.room() > 0 && self.registers.is_drained() {
            let _ = self.input_drained.write(1); // Fails only when it is readable anyway.
        }
        self.drive_line();
        result
    }
}

impl BusDevice for Uart {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let [value] = data {
            *value = self.access(|registers| registers.read(offset));
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let &[value] = data
            && let Some(byte) = self.access(|registers| registers.write(offset, value))
        {
            self.output.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::gather::GATHER;
    use super::registers::FIFO;
    use super::registers::offset::*;
    use super::*;
    use crate::irq::InterruptLine;
    use std::io;
    use std::sync::{Arc, Mutex};

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
        for (register, value) in [(MODEM_CONTROL, 0x0a), (FIFO_CONTROL, 1), (INTERRUPT_ENABLE, 1)] {
            uart.write(register, &[value]);
        }
        let _ = drained.read();
        let room = uart.room();
        assert_eq!(room, FIFO);
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
