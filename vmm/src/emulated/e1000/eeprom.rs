//! The serial EEPROM: 64 words behind a Microwire bus that drivers clock bit by bit, and behind
//! the EERD register (manual 5.3 to 5.6, 13.4.3 and 13.4.4).

/// EEPROM control/data register.
mod eecd {
    pub const SK: u32 = 1 << 0;
    pub const CS: u32 = 1 << 1;
    pub const DI: u32 = 1 << 2;
    pub const DO: u32 = 1 << 3;
    pub const REQUEST: u32 = 1 << 6;
    pub const GRANT: u32 = 1 << 7;
    pub const PRESENT: u32 = 1 << 8;
    pub const WRITABLE: u32 = SK | CS | DI | REQUEST;
}

const WORDS: usize = 64;
/// The sum of all words (manual 5.6.23).
const CHECKSUM: u16 = 0xbaba;
/// Start bit and opcode of READ, the one instruction that is obeyed.
const READ: u16 = 0b110;

/// Content and bus state.
#[derive(Clone, Debug)]
pub struct Eeprom {
    words: [u16; WORDS],
    control: u32,
    /// Bits clocked in since chip select, from the start bit on.
    shifted: u16,
    bits: u8,
    /// The word that is being clocked out and the bits left of it.
    reading: Option<(usize, u8)>,
    output: bool,
}

impl Eeprom {
    /// The content that a board with this MAC address carries.
    pub fn new(mac: [u8; 6]) -> Self {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(mac.chunks_exact(2)) {
            *word = u16::from_le_bytes([bytes[0], bytes[1]]);
        }
        words[0x08] = 0xffff; // no printed board assembly number
        words[0x09] = 0xffff;
        // Initialization control 1: signature 01b, load the ids below into configuration space.
        words[0x0a] = 0x4003;
        words[0x0b] = super::DEVICE_ID; // subsystem
        words[0x0c] = super::VENDOR_ID;
        words[0x0d] = super::DEVICE_ID;
        words[0x0e] = super::VENDOR_ID;
        words[0x0f] = 0x3040; // initialization control 2
        let sum = words.iter().fold(0u16, |sum, word| sum.wrapping_add(*word));
        words[WORDS - 1] = CHECKSUM.wrapping_sub(sum);
        Self { words, control: 0, shifted: 0, bits: 0, reading: None, output: true }
    }

    /// The word at `address`, of which the low six bits count.
    pub fn word(&self, address: usize) -> u16 {
        self.words[address % WORDS]
    }

    /// The MAC address in it.
    pub fn mac(&self) -> [u8; 6] {
        let [a, b, c] = [0, 1, 2].map(|i| self.words[i].to_le_bytes());
        [a[0], a[1], b[0], b[1], c[0], c[1]]
    }

    /// EECD as the driver reads it.
    pub fn read_control(&self) -> u32 {
        let grant = if self.control & eecd::REQUEST != 0 { eecd::GRANT } else { 0 };
        let output = if self.output { eecd::DO } else { 0 };
        self.control | grant | output | eecd::PRESENT
    }

    /// The driver wiggles the pins.
    pub fn write_control(&mut self, value: u32) {
        let before = std::mem::replace(&mut self.control, value & eecd::WRITABLE);
        if value & eecd::CS == 0 {
            self.bits = 0;
            self.shifted = 0;
            self.reading = None;
            self.output = true;
        } else if value & !before & eecd::SK != 0 {
            self.clock(value & eecd::DI != 0);
        }
    }

    /// A rising edge of the clock.
    fn clock(&mut self, input: bool) {
        if let Some((address, left)) = &mut self.reading {
            if *left == 0 {
                *address = (*address + 1) % WORDS; // sequential read
                *left = 16;
            }
            *left -= 1;
            self.output = self.words[*address] >> *left & 1 != 0;
            return;
        }
        if self.bits == 0 && !input {
            return; // before the start bit
        }
        if self.bits < 9 {
            self.shifted = self.shifted << 1 | u16::from(input);
            self.bits += 1;
        }
        if self.bits == 9 && self.shifted >> 6 == READ {
            self.reading = Some((usize::from(self.shifted & 0x3f), 16));
            self.output = false; // the dummy bit
        }
    }

    /// What EERD reads back after `value` was written to it.
    pub fn read_register(&self, value: u32) -> u32 {
        const START: u32 = 1 << 0;
        const DONE: u32 = 1 << 4;
        if value & START == 0 {
            return value & !(DONE | 0xffff_0000);
        }
        let word = self.word((value >> 8 & 0xff) as usize);
        u32::from(word) << 16 | value & 0xff00 | DONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    fn clock(eeprom: &mut Eeprom, bit: bool) -> bool {
        let pins = eecd::CS | eecd::REQUEST | if bit { eecd::DI } else { 0 };
        eeprom.write_control(pins);
        eeprom.write_control(pins | eecd::SK);
        let output = eeprom.read_control() & eecd::DO != 0;
        eeprom.write_control(pins);
        output
    }

    fn read_by_bits(eeprom: &mut Eeprom, address: u16) -> u16 {
        for bit in (0..9).rev() {
            clock(eeprom, (READ << 6 | address) >> bit & 1 != 0);
        }
        let word = (0..16).fold(0, |word, _| word << 1 | u16::from(clock(eeprom, false)));
        eeprom.write_control(0);
        word
    }

    #[test]
    fn all_words_come_bit_by_bit_and_sum_up() {
        let mut eeprom = Eeprom::new(MAC);
        let mut sum = 0u16;
        for address in 0..64 {
            let word = read_by_bits(&mut eeprom, address);
            assert_eq!(word, eeprom.word(usize::from(address)));
            assert_eq!(eeprom.read_register(u32::from(address) << 8 | 1) >> 16, u32::from(word));
            sum = sum.wrapping_add(word);
        }
        assert_eq!(sum, CHECKSUM);
        assert_eq!(eeprom.mac(), MAC);
    }

    #[test]
    fn the_bus_is_granted_on_request_and_other_instructions_do_nothing() {
        let mut eeprom = Eeprom::new(MAC);
        assert_eq!(eeprom.read_control() & eecd::GRANT, 0);
        eeprom.write_control(eecd::REQUEST);
        assert_eq!(eeprom.read_control() & eecd::GRANT, eecd::GRANT);
        for bit in (0..25).rev() {
            clock(&mut eeprom, 0b101_0000_0000_0000_0000_0000_0000u32 >> bit & 1 != 0);
        }
        eeprom.write_control(0);
        assert_eq!(eeprom.mac(), MAC);
    }
}
