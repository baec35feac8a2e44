//! The registers and the receive FIFO of a PC16550D (National Semiconductor, June 1995; section
//! numbers are its own), without the world around them.
//!
//! The line is infinitely fast: what is written has been sent at once, so the transmit FIFO is
//! empty, and what is received below the trigger level times out at once (8.4). Only when the other
//! end takes no more for a while is the transmitter held ([`Registers::hold_transmitter`]).

use std::collections::VecDeque;

/// Depth of the receive FIFO.
pub const FIFO: usize = 16;

/// Register offsets (8.0, table II).
pub mod offset {
    /// Receiver buffer and transmitter holding register, or the divisor latch's low byte.
    pub const DATA: u64 = 0;
    /// Interrupt enable, or the divisor latch's high byte.
    pub const INTERRUPT_ENABLE: u64 = 1;
    /// Interrupt identification (read) and FIFO control (write).
    pub const INTERRUPT_ID: u64 = 2;
    /// FIFO control.
    pub const FIFO_CONTROL: u64 = 2;
    /// Line control.
    pub const LINE_CONTROL: u64 = 3;
    /// Modem control.
    pub const MODEM_CONTROL: u64 = 4;
    /// Line status.
    pub const LINE_STATUS: u64 = 5;
    /// Modem status.
    pub const MODEM_STATUS: u64 = 6;
    /// Scratch.
    pub const SCRATCH: u64 = 7;
}

/// Interrupt enable bits (8.7).
mod enable {
    pub const RECEIVED: u8 = 0x01;
    pub const TRANSMITTER_EMPTY: u8 = 0x02;
    pub const LINE_STATUS: u8 = 0x04;
    pub const MODEM_STATUS: u8 = 0x08;
    pub const ALL: u8 = 0x0f;
}

/// Interrupt identification (8.6, table V), from the highest priority to the lowest.
mod identification {
    pub const LINE_STATUS: u8 = 0x06;
    pub const RECEIVED: u8 = 0x04;
    pub const TIMEOUT: u8 = 0x0c;
    pub const TRANSMITTER_EMPTY: u8 = 0x02;
    pub const MODEM_STATUS: u8 = 0x00;
    pub const NONE: u8 = 0x01;
    pub const FIFOS_ENABLED: u8 = 0xc0;
}

/// FIFO control bits (8.5).
mod fifo_control {
    pub const ENABLE: u8 = 0x01;
    pub const CLEAR_RECEIVER: u8 = 0x02;
    pub const TRIGGER_SHIFT: u8 = 6;
}

/// Line control: offsets 0 and 1 are the divisor latch (8.2).
const DIVISOR_LATCH: u8 = 0x80;

/// Modem control bits (8.8).
mod modem_control {
    pub const DTR: u8 = 0x01;
    pub const RTS: u8 = 0x02;
    pub const OUT1: u8 = 0x04;
    /// PCs let the interrupt through only while this is on.
    pub const OUT2: u8 = 0x08;
    pub const LOOP: u8 = 0x10;
    pub const ALL: u8 = 0x1f;
}

/// Line status bits (8.3).
mod line_status {
    pub const DATA_READY: u8 = 0x01;
    pub const OVERRUN: u8 = 0x02;
    pub const TRANSMITTER_EMPTY: u8 = 0x60;
}

/// Modem status bits (8.9).
mod modem_status {
    pub const CTS: u8 = 0x10;
    pub const DSR: u8 = 0x20;
    pub const RI: u8 = 0x40;
    pub const DCD: u8 = 0x80;
    pub const LEVELS: u8 = 0xf0;
}

/// Looks at the line status with nothing sent in between that show a driver that waits for input.
/// One that sends looks once or twice for each byte, and Linux seven times when it opens a port.
const POLLS: u8 = 16;

/// What is at the other end is always ready.
const CONNECTED: u8 = modem_status::CTS | modem_status::DSR | modem_status::DCD;

/// The registers and FIFOs of a 16550A.
#[derive(Debug)]
pub struct Registers {
    receive: VecDeque<u8>,
    fifos: bool,
    /// Bytes in the FIFO from which on there is an interrupt without waiting for more.
    trigger: usize,
    enabled: u8,
    line_control: u8,
    modem_control: u8,
    overrun: bool,
    /// Looks at the line status since something was sent or the modem lines were set, not counting
    /// those that wait for a held transmitter; at [`POLLS`] it stays.
    polls: u8,
    /// Changes of the modem lines that were not read, bits 3:0 of the modem status.
    modem_changes: u8,
    /// The transmitter ran empty and the interrupt for it has not been taken.
    transmitter_emptied: bool,
    /// What was sent cannot leave: the transmitter is not empty.
    transmitter_held: bool,
    divisor: [u8; 2],
    scratch: u8,
}

impl Default for Registers {
    /// As a reset leaves them (8.1, table III); 9600 baud.
    fn default() -> Self {
        Self {
            receive: VecDeque::with_capacity(FIFO),
            fifos: false,
            trigger: 1,
            enabled: 0,
            line_control: 0,
            modem_control: 0,
            overrun: false,
            polls: 0,
            modem_changes: 0,
            transmitter_emptied: false,
            transmitter_held: false,
            divisor: [12, 0],
            scratch: 0,
        }
    }
}

impl Registers {
    /// Whether the interrupt line is up.
    pub fn interrupts(&self) -> bool {
        self.gate_is_open() && self.identify() != identification::NONE
    }

    fn gate_is_open(&self) -> bool {
        let gate = self.modem_control & (modem_control::OUT2 | modem_control::LOOP);
        gate == modem_control::OUT2
    }

    /// How many bytes [`Registers::receive`] would take now. All that came before a driver set up
    /// its FIFO would be lost, so nothing comes before somebody listens.
    pub fn room(&self) -> usize {
        if self.is_loop() || !self.is_listened_to() {
            return 0;
        }
        self.depth().saturating_sub(self.receive.len())
    }

    /// Linux raises "request to send" once it listens. Firmware (SeaBIOS) never touches it and looks
    /// at the line status again and again; other systems just take the interrupt, which Linux enables
    /// for a moment while it probes, but not through OUT2.
    fn is_listened_to(&self) -> bool {
        let takes_interrupts = self.gate_is_open() && self.enabled & enable::RECEIVED != 0;
        self.modem_control & modem_control::RTS != 0 || takes_interrupts || self.polls >= POLLS
    }

    /// Bytes come in from the line; how many fit.
    pub fn receive(&mut self, bytes: &[u8]) -> usize {
        let taken = self.room().min(bytes.len());
        self.receive.extend(&bytes[..taken]);
        taken
    }

    /// The other end takes no more: the guest sees a transmitter that is not empty, and no
    /// interrupt of it, until it is let go. Bytes that it sends all the same are lost, as in a
    /// transmitter that is written to while it is full.
    pub fn hold_transmitter(&mut self) {
        self.transmitter_held = true;
        self.transmitter_emptied = false;
    }

    /// The other end takes bytes again; the transmitter has just run empty.
    pub fn release_transmitter(&mut self) {
        if std::mem::take(&mut self.transmitter_held) {
            self.transmitter_emptied = true;
        }
    }

    /// Whether [`Registers::hold_transmitter`] is in force.
    pub fn is_transmitter_held(&self) -> bool {
        self.transmitter_held
    }

    /// Whether no byte waits to be read.
    pub fn is_drained(&self) -> bool {
        self.receive.is_empty()
    }

    fn depth(&self) -> usize {
        if self.fifos { FIFO } else { 1 }
    }

    fn is_loop(&self) -> bool {
        self.modem_control & modem_control::LOOP != 0
    }

    fn is_latch(&self) -> bool {
        self.line_control & DIVISOR_LATCH != 0
    }

    /// The pending interrupt of the highest priority.
    fn identify(&self) -> u8 {
        let is = |source: u8| self.enabled & source != 0;
        if is(enable::LINE_STATUS) && self.overrun {
            identification::LINE_STATUS
        } else if is(enable::RECEIVED) && !self.receive.is_empty() {
            let below = self.fifos && self.receive.len() < self.trigger;
            if below { identification::TIMEOUT } else { identification::RECEIVED }
        } else if is(enable::TRANSMITTER_EMPTY) && self.transmitter_emptied {
            identification::TRANSMITTER_EMPTY
        } else if is(enable::MODEM_STATUS) && self.modem_changes != 0 {
            identification::MODEM_STATUS
        } else {
            identification::NONE
        }
    }

    /// The guest reads the register at `offset` 0 to 7.
    pub fn read(&mut self, offset: u64) -> u8 {
        match offset {
            offset::DATA if self.is_latch() => self.divisor[0],
            offset::INTERRUPT_ENABLE if self.is_latch() => self.divisor[1],
            offset::DATA => self.receive.pop_front().unwrap_or(0),
            offset::INTERRUPT_ENABLE => self.enabled,
            offset::INTERRUPT_ID => self.read_identification(),
            offset::LINE_CONTROL => self.line_control,
            offset::MODEM_CONTROL => self.modem_control,
            offset::LINE_STATUS => self.read_line_status(),
            offset::MODEM_STATUS => self.modem_levels() | std::mem::take(&mut self.modem_changes),
            _ => self.scratch,
        }
    }

    fn read_identification(&mut self) -> u8 {
        let pending = self.identify();
        if pending == identification::TRANSMITTER_EMPTY {
            self.transmitter_emptied = false;
        }
        pending | if self.fifos { identification::FIFOS_ENABLED } else { 0 }
    }

    fn read_line_status(&mut self) -> u8 {
        if !self.transmitter_held {
            self.polls = self.polls.saturating_add(1);
        }
        let ready = if self.receive.is_empty() { 0 } else { line_status::DATA_READY };
        let overrun = std::mem::take(&mut self.overrun);
        let overrun = if overrun { line_status::OVERRUN } else { 0 };
        let empty = if self.transmitter_held { 0 } else { line_status::TRANSMITTER_EMPTY };
        empty | ready | overrun
    }

    /// The guest writes the register at `offset` 0 to 7. Returns what goes out on the line.
    pub fn write(&mut self, offset: u64, value: u8) -> Option<u8> {
        match offset {
            offset::DATA if self.is_latch() => self.divisor[0] = value,
            offset::INTERRUPT_ENABLE if self.is_latch() => self.divisor[1] = value,
            offset::DATA => return self.transmit(value),
            offset::INTERRUPT_ENABLE => self.write_enable(value),
            offset::FIFO_CONTROL => self.write_fifo_control(value),
            offset::LINE_CONTROL => self.line_control = value,
            offset::MODEM_CONTROL => self.write_modem_control(value),
            offset::SCRATCH => self.scratch = value,
            _ => {} // Status registers; writing them is for factory tests (8.3).
        }
        None
    }

    fn transmit(&mut self, value: u8) -> Option<u8> {
        self.transmitter_emptied = self.is_loop() || !self.transmitter_held;
        if self.polls < POLLS {
            self.polls = 0;
        }
        if !self.is_loop() {
            return Some(value);
        }
        if self.receive.len() < self.depth() {
            self.receive.push_back(value);
        } else {
            self.overrun = true;
            if !self.fifos {
                // Without FIFOs the new byte takes the place of the unread one (8.3).
                self.receive[0] = value;
            }
        }
        None
    }

    fn write_enable(&mut self, value: u8) {
        let value = value & enable::ALL;
        // The transmitter is empty already: enabling its interrupt raises it (8.6).
        let raises = value & !self.enabled & enable::TRANSMITTER_EMPTY != 0;
        self.transmitter_emptied |= raises && !self.transmitter_held;
        self.enabled = value;
    }

    fn write_fifo_control(&mut self, value: u8) {
        let fifos = value & fifo_control::ENABLE != 0;
        // A change of mode clears the FIFOs, and bits 7:1 count only with bit 0 (8.5).
        if fifos != self.fifos || fifos && value & fifo_control::CLEAR_RECEIVER != 0 {
            self.receive.clear();
        }
        self.fifos = fifos;
        if fifos {
            self.trigger = [1, 4, 8, 14][usize::from(value >> fifo_control::TRIGGER_SHIFT)];
        }
    }

    fn write_modem_control(&mut self, value: u8) {
        let before = self.modem_levels();
        // A driver that sets them says by RTS when it listens.
        self.polls = 0;
        self.modem_control = value & modem_control::ALL;
        let after = self.modem_levels();
        let changed = (before ^ after) & !modem_status::RI;
        // The ring indicator counts when it ends (8.9).
        let rang = before & !after & modem_status::RI;
        self.modem_changes |= (changed | rang) >> 4;
    }

    /// The modem's lines; in a loop, our own (8.8).
    fn modem_levels(&self) -> u8 {
        if !self.is_loop() {
            return CONNECTED;
        }
        let pairs = [
            (modem_control::RTS, modem_status::CTS),
            (modem_control::DTR, modem_status::DSR),
            (modem_control::OUT1, modem_status::RI),
            (modem_control::OUT2, modem_status::DCD),
        ];
        let on = pairs.iter().filter(|(output, _)| self.modem_control & output != 0);
        on.fold(0, |levels, (_, input)| levels | input) & modem_status::LEVELS
    }
}

#[cfg(test)]
mod tests;
