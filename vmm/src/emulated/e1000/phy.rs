//! The transceiver behind MDIC: an M88E1011 whose link comes up as soon as it may
//! (manual 8.2 and 8.5, 13.4.6; IEEE 802.3 clause 22).

/// MDI control register.
mod mdic {
    pub const REGISTER_SHIFT: u32 = 16;
    pub const PHY_SHIFT: u32 = 21;
    pub const OPERATION: u32 = 3 << 26;
    pub const WRITE: u32 = 1 << 26;
    pub const READ: u32 = 2 << 26;
    pub const READY: u32 = 1 << 28;
    pub const INTERRUPT: u32 = 1 << 29;
    pub const ERROR: u32 = 1 << 30;
}

/// The internal transceiver answers at this address.
const ADDRESS: u32 = 1;

const CONTROL: usize = 0;
const STATUS: usize = 1;
const SPECIFIC_STATUS: usize = 17;

const CONTROL_RESET: u16 = 1 << 15;
const CONTROL_POWER_DOWN: u16 = 1 << 11;
const CONTROL_RESTART: u16 = 1 << 9;
const STATUS_LINK: u16 = 1 << 2;
const STATUS_NEGOTIATED: u16 = 1 << 5;
/// 1000 Mb/s, full duplex, resolved, real-time link.
const SPECIFIC_LINKED: u16 = 0xac00;

/// The 32 registers, and whether the cable is in.
#[derive(Clone, Debug)]
pub struct Phy {
    registers: [u16; 32],
    carrier: bool,
}

impl Phy {
    /// After power-on, with a cable.
    pub fn new() -> Self {
        let mut phy = Self { registers: [0; 32], carrier: true };
        phy.reset();
        phy
    }

    /// Initial values of the registers; the cable stays as it is.
    pub fn reset(&mut self) {
        self.registers = [0; 32];
        self.registers[CONTROL] = 0x1140;
        self.registers[STATUS] = 0x7949;
        self.registers[2] = 0x0141; // M88E1011 I
        self.registers[3] = 0x0c20;
        self.registers[4] = 0x0de1; // advertisement: 10 and 100, pause
        self.registers[5] = 0xcde1; // the partner's
        self.registers[6] = 0x0005;
        self.registers[9] = 0x0e00; // 1000BASE-T
        self.registers[10] = 0x3c00;
        self.registers[15] = 0x3000;
        self.registers[16] = 0x0068;
        self.registers[20] = 0x0d60;
    }

    /// Whether the link is up.
    pub fn link(&self) -> bool {
        self.carrier && self.registers[CONTROL] & CONTROL_POWER_DOWN == 0
    }

    /// Plugs the cable in or out.
    pub fn set_carrier(&mut self, carrier: bool) {
        self.carrier = carrier;
    }

    /// Carries out what was written to MDIC; returns what it reads then, and whether the driver
    /// asked for an interrupt.
    pub fn access(&mut self, value: u32) -> (u32, bool) {
        let register = (value >> mdic::REGISTER_SHIFT & 0x1f) as usize;
        let kept = value & !(mdic::READY | mdic::ERROR);
        let wants_interrupt = value & mdic::INTERRUPT != 0;
        if value >> mdic::PHY_SHIFT & 0x1f != ADDRESS {
            return (kept | mdic::READY | mdic::ERROR, wants_interrupt);
        }
        let result = match value & mdic::OPERATION {
            mdic::READ => kept & !0xffff | u32::from(self.read(register)),
            mdic::WRITE => {
                self.write(register, value as u16);
                kept
            }
            _ => kept | mdic::ERROR,
        };
        (result | mdic::READY, wants_interrupt)
    }

    fn read(&self, register: usize) -> u16 {
        let link = self.link();
        match register {
            STATUS if link => self.registers[STATUS] | STATUS_LINK | STATUS_NEGOTIATED,
            SPECIFIC_STATUS if link => SPECIFIC_LINKED,
            SPECIFIC_STATUS => 0,
            5 | 10 if !link => 0,
            _ => self.registers[register],
        }
    }

    fn write(&mut self, register: usize, value: u16) {
        match register {
            CONTROL if value & CONTROL_RESET != 0 => self.reset(),
            // Negotiation ends at once, so its restart bit never reads as set.
            CONTROL => self.registers[CONTROL] = value & !CONTROL_RESTART,
            4 | 7 | 9 | 16 | 18 | 20 | 24 | 26 | 29 | 30 => self.registers[register] = value,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(phy: &mut Phy, register: u32) -> u16 {
        let (value, _) = phy.access(mdic::READ | 1 << 21 | register << 16);
        assert_eq!(value & (mdic::READY | mdic::ERROR), mdic::READY);
        value as u16
    }

    #[test]
    fn the_transceiver_is_known_and_its_link_follows_the_cable() {
        let mut phy = Phy::new();
        assert_eq!((read(&mut phy, 2), read(&mut phy, 3)), (0x0141, 0x0c20));
        assert_eq!(read(&mut phy, 1) & 0x24, 0x24);
        assert_eq!(read(&mut phy, 17), 0xac00);
        phy.set_carrier(false);
        assert_eq!((read(&mut phy, 1) & 0x24, read(&mut phy, 17)), (0, 0));
        phy.set_carrier(true);
        phy.access(mdic::WRITE | 1 << 21 | 0x1940);
        assert!(!phy.link(), "powered down");
        phy.access(mdic::WRITE | 1 << 21 | 0x9140);
        assert!(phy.link() && read(&mut phy, 0) == 0x1140, "reset");
    }

    #[test]
    fn other_addresses_and_operations_are_errors() {
        let mut phy = Phy::new();
        for value in [mdic::READ | 2 << 21, 1 << 21, 3 << 26 | 1 << 21] {
            assert_eq!(phy.access(value).0 & mdic::ERROR, mdic::ERROR);
        }
        assert!(phy.access(mdic::READ | 1 << 21 | mdic::INTERRUPT).1);
    }
}
