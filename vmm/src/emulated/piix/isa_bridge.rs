//! The ISA bridge: PIIX3 function 0 (data sheet 290550, 2.2). ELCR and the interrupt controllers
//! behind it are KVM's.

use super::pirq::{PIRQS, PirqRouter};
use crate::pci::{ConfigSpace, Identity, PciFunction};

/// `PIRQRC[A:D]`.
const ROUTE_CONTROL: u8 = 0x60;
/// Where firmware routes PIRQA to PIRQD by custom: two each on interrupts 10 and 11.
pub const USUAL_ROUTES: [u8; PIRQS] = [10, 10, 11, 11];

/// The PIIX3's ISA bridge, with the registers that route PIRQs.
pub struct IsaBridge {
    config: ConfigSpace,
    router: PirqRouter,
}

impl IsaBridge {
    /// A bridge after reset: no interrupt is routed.
    pub fn new(router: PirqRouter) -> Self {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 0x8086,
            device: 0x7000,
            class: 0x06,
            subclass: 0x01,
            ..Identity::default()
        });
        config.set_multifunction();
        config.set(0x04, &[0x07, 0x00, 0x00, 0x02]); // always decodes; medium DEVSEL timing
        config.set_writable(0x04, &[0, 0]);
        config.set(0x4c, &[0x4d, 0x00, 0x03, 0x00]); // I/O recovery timers, X-bus chip selects
        config.set_writable(0x4c, &[0xff, 0x00, 0xff, 0x01]);
        config.set(ROUTE_CONTROL, &[0x80; PIRQS]);
        config.set_writable(ROUTE_CONTROL, &[0x8f; PIRQS]);
        config.set(0x69, &[0x02]); // top of memory
        config.set_writable(0x69, &[0xfe]);
        config.set(0x70, &[0x80]); // motherboard interrupt
        config.set_writable(0x70, &[0xef]);
        Self { config, router }
    }

    /// Routes interrupts as firmware does by custom.
    pub fn set_usual_routes(&mut self) {
        self.write_config(ROUTE_CONTROL.into(), &USUAL_ROUTES);
    }
}

impl PciFunction for IsaBridge {
    fn name(&self) -> &'static str {
        "isa-bridge"
    }

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        for pirq in 0..PIRQS {
            let register = ROUTE_CONTROL + pirq as u8;
            if (offset..offset + data.len() as u16).contains(&u16::from(register)) {
                self.router.route(pirq, self.config.u8_at(register));
            }
        }
    }
}
