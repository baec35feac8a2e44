//! From INTx pins to interrupt inputs: the PIIX3's PIRQ route control (data sheet 290550, 2.2.10).

use std::sync::{Arc, Mutex, MutexGuard};

use crate::irq::{InterruptLine, IrqLine};
use crate::pci::InterruptPin;
use crate::poison::unpoisoned;

/// PIRQA# to PIRQD#.
pub const PIRQS: usize = 4;
/// Route control: not routed.
const DISABLED: u8 = 0x80;
/// The ISA interrupts a PIRQ can be routed to.
const ROUTABLE: [u8; 11] = [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15];

/// The PIRQ that `pin` of `device` is wired to on the board. Firmware knows the wiring, so this is
/// the usual one: pins rotate from slot to slot, and device 1's A is PIRQA.
pub fn pirq(device: u8, pin: InterruptPin) -> usize {
    (usize::from(device) + PIRQS - 1 + pin as usize - 1) % PIRQS
}

/// Leads PIRQs to ISA interrupts, as the ISA bridge's registers say.
#[derive(Clone)]
pub struct PirqRouter(Arc<Router>);

struct Router {
    /// By ISA interrupt; `None` for those that PCI cannot use.
    lines: [Option<IrqLine>; 16],
    state: Mutex<State>,
}

struct State {
    /// Each input's PIRQ and level.
    inputs: Vec<(usize, bool)>,
    /// The route control registers.
    routes: [u8; PIRQS],
    /// Interrupts that are asserted, by bit.
    driven: u16,
}

impl PirqRouter {
    /// A router that routes nothing; `line` makes the wire to an ISA interrupt, which serves PIC
    /// and IOAPIC alike.
    pub fn new(line: impl Fn(u8) -> IrqLine) -> Self {
        let lines =
            std::array::from_fn(|irq| ROUTABLE.contains(&(irq as u8)).then(|| line(irq as u8)));
        let state = State { inputs: Vec::new(), routes: [DISABLED; PIRQS], driven: 0 };
        Self(Arc::new(Router { lines, state: Mutex::new(state) }))
    }

    /// The wire for `pin` of `device`.
    pub fn input(&self, device: u8, pin: InterruptPin) -> IrqLine {
        let mut state = self.0.lock();
        state.inputs.push((pirq(device, pin), false));
        let index = state.inputs.len() - 1;
        Arc::new(Input { router: Arc::clone(&self.0), index })
    }

    /// Sets route control of PIRQ `pirq`.
    pub fn route(&self, pirq: usize, register: u8) {
        let mut state = self.0.lock();
        if let Some(route) = state.routes.get_mut(pirq) {
            *route = register;
        }
        self.0.drive(&mut state);
    }
}

impl Router {
    fn lock(&self) -> MutexGuard<'_, State> {
        unpoisoned(self.state.lock())
    }

    /// Brings the lines in line with inputs and routes, under the lock, so that two devices cannot
    /// overtake each other.
    fn drive(&self, state: &mut State) {
        let mut wanted: u16 = 0;
        for &(pirq, asserted) in &state.inputs {
            let route = state.routes[pirq];
            if asserted && route & DISABLED == 0 {
                wanted |= 1 << (route & 0xf);
            }
        }
        let changed = wanted ^ state.driven;
        state.driven = wanted;
        for (irq, line) in self.lines.iter().enumerate() {
            if let Some(line) = line.as_ref().filter(|_| changed >> irq & 1 != 0) {
                line.set(wanted >> irq & 1 != 0);
            }
        }
    }
}

struct Input {
    router: Arc<Router>,
    index: usize,
}

impl InterruptLine for Input {
    fn set(&self, asserted: bool) {
        let mut state = self.router.lock();
        if state.inputs[self.index].1 != asserted {
            state.inputs[self.index].1 = asserted;
            self.router.drive(&mut state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulated::testing::Wire;

    #[test]
    fn an_interrupt_is_asserted_while_any_of_its_pins_is() {
        let wires: [Arc<Wire>; 16] = std::array::from_fn(|_| Wire::new());
        let router = PirqRouter::new(|irq| wires[usize::from(irq)].clone());
        let first = router.input(3, InterruptPin::A);
        let other = router.input(4, InterruptPin::A);
        assert_eq!((pirq(1, InterruptPin::A), pirq(3, InterruptPin::A)), (0, 2));
        first.set(true);
        assert!(wires.iter().all(|w| !w.is_high()), "not routed");
        router.route(2, 11);
        assert!(wires[11].is_high(), "an asserted pin shows when it is routed");
        router.route(3, 11);
        other.set(true);
        first.set(false);
        assert!(wires[11].is_high(), "shared");
        other.set(false);
        assert!(!wires[11].is_high());
        assert_eq!(wires[11].rises(), 1);
        other.set(true);
        router.route(3, 10);
        assert!(wires[10].is_high() && !wires[11].is_high());
        for register in [DISABLED | 10, 0, 1, 2, 8, 13] {
            router.route(3, register);
            assert!(wires.iter().all(|w| !w.is_high()), "{register:#x} is no route");
        }
    }
}
