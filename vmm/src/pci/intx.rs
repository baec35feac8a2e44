//! INTx: level-triggered, shared lines (PCI Local Bus 3.0, 2.2.6).

use std::sync::{Arc, Mutex};

use super::config_space::InterruptPin;
use crate::irq::{InterruptLine, IrqLine};

/// The first IOAPIC input that PCI uses; below are the ISA interrupts.
pub const FIRST_GSI: u32 = 16;
/// Inputs that PCI uses: the rest of the 24.
pub const GSIS: u32 = 8;

/// The IOAPIC input that `pin` of `device` is wired to in the paravirtual machine. The DSDT's
/// _PRT must say the same.
pub const fn gsi(device: u8, pin: InterruptPin) -> u32 {
    FIRST_GSI + (device as u32 + pin as u32 - 1) % GSIS
}

/// Several devices on one wire: it is asserted while any of them asserts it.
pub struct SharedLine(Arc<Wire>);

struct Wire {
    line: IrqLine,
    inputs: Mutex<Vec<bool>>,
}

struct Input {
    wire: Arc<Wire>,
    index: usize,
}

impl SharedLine {
    /// Shares `line`, which nothing else may drive.
    pub fn new(line: IrqLine) -> Self {
        Self(Arc::new(Wire { line, inputs: Mutex::default() }))
    }

    /// A line for one more device.
    pub fn input(&self) -> IrqLine {
        let mut inputs = self.0.inputs.lock().unwrap_or_else(|e| e.into_inner());
        inputs.push(false);
        Arc::new(Input { wire: Arc::clone(&self.0), index: inputs.len() - 1 })
    }
}

impl InterruptLine for Input {
    fn set(&self, asserted: bool) {
        // The wire is driven under the lock, so that two devices cannot overtake each other.
        let mut inputs = self.wire.inputs.lock().unwrap_or_else(|e| e.into_inner());
        let before = inputs.contains(&true);
        inputs[self.index] = asserted;
        let after = inputs.contains(&true);
        if before != after {
            self.wire.line.set(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Log(Mutex<Vec<bool>>);

    impl InterruptLine for Log {
        fn set(&self, asserted: bool) {
            self.0.lock().unwrap().push(asserted);
        }
    }

    #[test]
    fn pins_are_spread_over_the_upper_inputs() {
        assert_eq!(gsi(0, InterruptPin::A), 16);
        assert_eq!(gsi(7, InterruptPin::A), 23);
        assert_eq!(gsi(7, InterruptPin::B), 16);
        assert!((0..32).all(|d| (16..24).contains(&gsi(d, InterruptPin::D))));
    }

    #[test]
    fn a_shared_wire_stays_asserted_until_the_last_lets_go() {
        let log = Arc::new(Log::default());
        let wire = SharedLine::new(log.clone());
        let (a, b) = (wire.input(), wire.input());
        a.set(true);
        a.set(true);
        b.set(true);
        a.set(false);
        assert_eq!(*log.0.lock().unwrap(), [true]);
        b.set(false);
        b.set(false);
        assert_eq!(*log.0.lock().unwrap(), [true, false]);
    }
}
