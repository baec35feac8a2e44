//! Keyboard controller with a keyboard and no mouse, after IBM's PC AT Technical Reference
//! (1985) and the Intel 8042 data sheet.
//!
//! Linux polls a controller that does not answer for half a second at a time, so every command
//! that Linux or SeaBIOS sends is answered at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::bus::BusDevice;
use crate::control::{Control, EndReason};
use crate::irq::IrqLine;
use crate::poison::unpoisoned;

/// Data port: what the keyboard and the controller say, and what they are told.
pub const DATA_PORT: u16 = 0x60;
/// Status (read) and command (write).
pub const COMMAND_PORT: u16 = 0x64;
/// ISA interrupt of the keyboard.
pub const IRQ: u32 = 1;

const STATUS_OUTPUT_FULL: u8 = 0x01;
const STATUS_SYSTEM: u8 = 0x04;
const STATUS_COMMAND: u8 = 0x08;
const STATUS_UNLOCKED: u8 = 0x10;

const CONFIG_KEYBOARD_INTERRUPT: u8 = 0x01;
const CONFIG_SYSTEM: u8 = 0x04;
const CONFIG_KEYBOARD_DISABLED: u8 = 0x10;
const CONFIG_MOUSE_DISABLED: u8 = 0x20;
const CONFIG_TRANSLATE: u8 = 0x40;

const ACK: u8 = 0xfa;
/// The keyboard's second byte of a reset: self-test passed.
const SELF_TEST_PASSED: u8 = 0xaa;

/// Answers waiting; beyond it the guest is not reading, and the hardware would drop bytes too.
const OUTPUT_LIMIT: usize = 16;

/// Which byte the data port expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// A command for the keyboard.
    KeyboardCommand,
    /// The argument of a keyboard command (LEDs, repeat rate, scan code set).
    KeyboardArgument { scan_code_set: bool },
    /// Argument of command 0x60.
    Configuration,
    /// Argument of command 0xd1.
    OutputPort,
    /// Argument of commands 0xd2 (as if from the keyboard) and 0xd3 (as if from a mouse).
    Echo,
    /// Argument of command 0xd4: there is no mouse to take it.
    Mouse,
}

/// The controller, with a keyboard that nobody types on.
pub struct I8042 {
    configuration: u8,
    output: VecDeque<u8>,
    expect: Expect,
    last_was_command: bool,
    line: IrqLine,
    control: Control,
}

impl I8042 {
    /// A controller as firmware leaves it, with the keyboard's interrupt.
    pub fn new(line: IrqLine, control: Control) -> Self {
        Self {
            configuration: CONFIG_KEYBOARD_INTERRUPT
                | CONFIG_SYSTEM
                | CONFIG_MOUSE_DISABLED
                | CONFIG_TRANSLATE,
            output: VecDeque::new(),
            expect: Expect::KeyboardCommand,
            last_was_command: false,
            line,
            control,
        }
    }

    fn status(&self) -> u8 {
        let full = if self.output.is_empty() { 0 } else { STATUS_OUTPUT_FULL };
        let command = if self.last_was_command { STATUS_COMMAND } else { 0 };
        STATUS_SYSTEM | STATUS_UNLOCKED | full | command
    }

    fn answer(&mut self, bytes: &[u8]) {
        let room = OUTPUT_LIMIT - self.output.len().min(OUTPUT_LIMIT);
        self.output.extend(bytes.iter().take(room));
        self.interrupt();
    }

    /// The interrupt follows the output buffer: one edge per byte.
    fn interrupt(&self) {
        if !self.output.is_empty() && self.configuration & CONFIG_KEYBOARD_INTERRUPT != 0 {
            self.line.pulse();
        }
    }

    fn command(&mut self, command: u8) {
        self.last_was_command = true;
        self.expect = Expect::KeyboardCommand;
        match command {
            0x20 => self.answer(&[self.configuration]),
            0x60 => self.expect = Expect::Configuration,
            0xa7 => self.configuration |= CONFIG_MOUSE_DISABLED,
            0xa8 => self.configuration &= !CONFIG_MOUSE_DISABLED,
            0xa9 => self.answer(&[0x01]), // Mouse interface: clock stuck low, so nothing there.
            0xaa => self.answer(&[0x55]), // Controller self-test passed.
            0xab => self.answer(&[0x00]), // Keyboard interface works.
            0xad => self.configuration |= CONFIG_KEYBOARD_DISABLED,
            0xae => self.configuration &= !CONFIG_KEYBOARD_DISABLED,
            0xc0 => self.answer(&[0x80]), // Input port: not locked.
            0xd0 => self.answer(&[0x03]), // Output port: A20 on, not in reset.
            0xd1 => self.expect = Expect::OutputPort,
            0xd2 | 0xd3 => self.expect = Expect::Echo,
            0xd4 => self.expect = Expect::Mouse,
            // Pulse output lines that are low in bits 3:0; line 0 is the CPU's reset.
            0xf0..=0xff if command & 1 == 0 => self.control.end(Ok(EndReason::Reset)),
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        self.last_was_command = false;
        match std::mem::replace(&mut self.expect, Expect::KeyboardCommand) {
            Expect::KeyboardCommand => self.keyboard(value),
            Expect::KeyboardArgument { scan_code_set: true } if value == 0 => {
                self.answer(&[ACK, 0x02]); // Set 2, which the controller translates to set 1.
            }
            Expect::KeyboardArgument { .. } => self.answer(&[ACK]),
            Expect::Configuration => {
                self.configuration = value;
                self.interrupt();
            }
            Expect::OutputPort if value & 1 == 0 => self.control.end(Ok(EndReason::Reset)),
            Expect::OutputPort => {}
            // Without the mouse flag in the status: Linux then knows that there is no mouse.
            Expect::Echo => self.answer(&[value]),
            Expect::Mouse => self.answer(&[0xfe]), // Resend: what a missing device comes to.
        }
    }

    fn keyboard(&mut self, command: u8) {
        match command {
            0xed | 0xf3 => {
                self.answer(&[ACK]);
                self.expect = Expect::KeyboardArgument { scan_code_set: false };
            }
            0xf0 => {
                self.answer(&[ACK]);
                self.expect = Expect::KeyboardArgument { scan_code_set: true };
            }
            0xee => self.answer(&[0xee]),
            0xf2 => self.answer(&[ACK, 0xab, 0x83]), // An MF2 keyboard.
            0xff => self.answer(&[ACK, SELF_TEST_PASSED]),
            _ => self.answer(&[ACK]),
        }
    }
}

/// Port 0x60.
impl BusDevice for I8042 {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        let value = self.output.pop_front().unwrap_or(0);
        self.interrupt();
        if let Some(first) = data.first_mut() {
            *first = value;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let Some(&value) = data.first() {
            self.data(value);
        }
    }
}

/// Port 0x64.
pub struct CommandPort(pub Arc<Mutex<I8042>>);

impl BusDevice for CommandPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        let status = unpoisoned(self.0.lock()).status();
        if let Some(first) = data.first_mut() {
            *first = status;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if let Some(&command) = data.first() {
            unpoisoned(self.0.lock()).command(command);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::irq::InterruptLine;

    #[derive(Default)]
    struct Edges(AtomicU32);

    impl InterruptLine for Edges {
        fn set(&self, asserted: bool) {
            self.0.fetch_add(asserted.into(), Ordering::Relaxed);
        }
    }

    struct Bench {
        data: Arc<Mutex<I8042>>,
        command: CommandPort,
        edges: Arc<Edges>,
        control: Control,
    }

    impl Bench {
        fn new() -> Self {
            let edges = Arc::new(Edges::default());
            let control = Control::default();
            let data = Arc::new(Mutex::new(I8042::new(edges.clone(), control.clone())));
            Self { command: CommandPort(data.clone()), data, edges, control }
        }

        fn drain(&mut self) -> Vec<u8> {
            let mut all = Vec::new();
            loop {
                let mut byte = [0];
                self.command.read(0, &mut byte);
                if byte[0] & STATUS_OUTPUT_FULL == 0 {
                    return all;
                }
                self.data.lock().unwrap().read(0, &mut byte);
                all.push(byte[0]);
            }
        }

        fn command(&mut self, command: u8) -> Vec<u8> {
            self.command.write(0, &[command]);
            self.drain()
        }

        fn data(&mut self, value: u8) -> Vec<u8> {
            self.data.lock().unwrap().write(0, &[value]);
            self.drain()
        }
    }

    #[test]
    fn the_probe_of_a_driver_is_answered() {
        let mut bench = Bench::new();
        assert_eq!(bench.command(0xaa), [0x55]);
        assert_eq!(bench.command(0xab), [0x00]);
        let configuration = bench.command(0x20)[0];
        assert!(bench.command(0x60).is_empty());
        bench.data(configuration & !CONFIG_KEYBOARD_INTERRUPT);
        assert_eq!(bench.command(0x20), [configuration & !CONFIG_KEYBOARD_INTERRUPT]);
        assert!(bench.command(0xd3).is_empty());
        assert_eq!(bench.data(0x5a), [0x5a]);
        assert_eq!(bench.command(0xa9), [0x01]);
    }

    #[test]
    fn the_keyboard_answers_with_one_interrupt_per_byte() {
        let mut bench = Bench::new();
        let before = bench.edges.0.load(Ordering::Relaxed);
        assert_eq!(bench.data(0xf2), [ACK, 0xab, 0x83]);
        assert_eq!(bench.edges.0.load(Ordering::Relaxed) - before, 3);
        assert_eq!(bench.data(0xff), [ACK, SELF_TEST_PASSED]);
        assert_eq!(bench.data(0xed), [ACK]);
        assert_eq!(bench.data(0x07), [ACK]);
        assert_eq!(bench.data(0xf0), [ACK]);
        assert_eq!(bench.data(0x00), [ACK, 0x02]);
    }

    #[test]
    fn only_pulsing_line_0_resets() {
        let mut bench = Bench::new();
        bench.command(0xff);
        bench.command(0xd1);
        bench.data(0x03);
        assert!(!bench.control.has_ended());
        bench.command(0xfe);
        assert_eq!(bench.control.wait().unwrap(), EndReason::Reset);
    }

    #[test]
    fn a_guest_that_never_reads_fills_no_memory() {
        let mut bench = Bench::new();
        for _ in 0..1000 {
            bench.data.lock().unwrap().write(0, &[0xf2]);
        }
        assert_eq!(bench.drain().len(), OUTPUT_LIMIT);
    }
}
