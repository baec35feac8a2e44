//! SMBIOS tables (DMTF DSP0134, version 2.8) for firmware to pass on: without them SeaBIOS writes
//! its own, which name another machine.

/// The entry point structure (5.2.1), of which firmware fills in address and checksums.
const ENTRY_POINT_LENGTH: u8 = 31;
const MANUFACTURER: &str = "isolab";

/// One structure: formatted area, then strings.
struct Structure {
    kind: u8,
    formatted: Vec<u8>,
    strings: Vec<String>,
}

impl Structure {
    fn new(kind: u8) -> Self {
        Self { kind, formatted: Vec::new(), strings: Vec::new() }
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.formatted.extend_from_slice(bytes);
        self
    }

    /// A string's number; the string itself goes behind the formatted area.
    fn text(mut self, text: &str) -> Self {
        self.strings.push(text.to_owned());
        self.formatted.push(self.strings.len() as u8);
        self
    }

    fn finish(self, handle: u16, table: &mut Vec<u8>) {
        table.extend_from_slice(&[self.kind, self.formatted.len() as u8 + 4]);
        table.extend_from_slice(&handle.to_le_bytes());
        table.extend_from_slice(&self.formatted);
        for text in &self.strings {
            table.extend_from_slice(text.as_bytes());
            table.push(0);
        }
        // An empty set of strings is two NULs, otherwise one follows the last (6.1.3).
        table.extend_from_slice(if self.strings.is_empty() { &[0, 0] } else { &[0] });
    }
}

/// Entry point and structure table of a machine with `memory` bytes and `cpus` processors.
pub fn tables(memory: u64, cpus: u32) -> (Vec<u8>, Vec<u8>) {
    let version = env!("CARGO_PKG_VERSION");
    let mut table = Vec::new();
    let mut largest = 0;
    let mut count: u16 = 0;
    let mut add = |structure: Structure, handle: u16| {
        let before = table.len();
        structure.finish(handle, &mut table);
        largest = largest.max((table.len() - before) as u16);
        count += 1;
    };

    // Type 0: vendor, version, segment 0xf000, date, 64 KiB; PCI, and targeted content (7.1).
    let bios = Structure::new(0).text(MANUFACTURER).text(version).bytes(&[0x00, 0xf0]);
    let bios = bios.text("01/01/2026").bytes(&[0]).bytes(&(1u64 << 7).to_le_bytes());
    add(bios.bytes(&[0, 0x04, 0, 0, 0xff, 0xff]), 0x000);
    // Type 1: manufacturer, product, version, no serial, no UUID, power switch (7.2).
    let system = Structure::new(1).text(MANUFACTURER).text("PC (i440FX, PIIX3)").text(version);
    let system = system.bytes(&[0]).bytes(&[0; 16]).bytes(&[6, 0, 0]);
    add(system, 0x100);
    // Type 3: manufacturer, other enclosure, states safe (7.4).
    let chassis = Structure::new(3).text(MANUFACTURER).bytes(&[1, 0, 0, 0, 3, 3, 3, 2]);
    add(chassis.bytes(&[0, 0, 0, 0, 0, 0, 0, 0]), 0x300);
    // Type 4, one per processor: socket, central processor, enabled (7.5).
    for cpu in 0..cpus.min(0xff) as u16 {
        let socket = Structure::new(4).text(&format!("CPU {cpu}")).bytes(&[3, 1]);
        let processor = socket.text(MANUFACTURER).bytes(&[0; 8]).text(version);
        let processor = processor.bytes(&[0, 0, 0, 0, 0, 0, 0, 0x41, 1]);
        let caches = [0xff; 6];
        add(processor.bytes(&caches).bytes(&[0, 0, 0, 1, 1, 1, 0, 0, 1, 0]), 0x400 + cpu);
    }
    // Type 16: system board, system memory, no correction, extended capacity, one device (7.17).
    let array = Structure::new(16).bytes(&[3, 3, 3]).bytes(&0x8000_0000u32.to_le_bytes());
    add(array.bytes(&[0xfe, 0xff, 1, 0]).bytes(&memory.to_le_bytes()), 0x1000);
    // Type 17: the device, in an array, of RAM, with its size in MiB (7.18).
    let mib = u32::try_from(memory >> 20).unwrap_or(0x7fff_ffff);
    let (size, extended) = if mib < 0x7fff { (mib as u16, 0) } else { (0x7fff, mib) };
    let device = Structure::new(17).bytes(&[0x00, 0x10, 0xfe, 0xff, 64, 0, 64, 0]);
    let device = device.bytes(&size.to_le_bytes()).bytes(&[9, 0]).text("DIMM 0").bytes(&[0]);
    let device = device.bytes(&[7, 2, 0, 0, 0]).text(MANUFACTURER).bytes(&[0, 0, 0, 0]);
    add(device.bytes(&extended.to_le_bytes()).bytes(&[0; 8]), 0x1100);
    // Type 32: no boot problems (7.33). Type 127: the end (7.45).
    add(Structure::new(32).bytes(&[0; 7]), 0x2000);
    add(Structure::new(127), 0x7f00);

    (entry_point(table.len() as u16, largest, count), table)
}

fn entry_point(length: u16, largest: u16, count: u16) -> Vec<u8> {
    let mut entry = b"_SM_\0".to_vec();
    entry.extend_from_slice(&[ENTRY_POINT_LENGTH, 2, 8]);
    entry.extend_from_slice(&largest.to_le_bytes());
    entry.extend_from_slice(&[0; 6]); // revision, formatted area
    entry.extend_from_slice(b"_DMI_\0");
    entry.extend_from_slice(&length.to_le_bytes());
    entry.extend_from_slice(&[0; 4]); // address
    entry.extend_from_slice(&count.to_le_bytes());
    entry.push(0x28); // version 2.8
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_follow_each_other_to_the_last() {
        let (entry, table) = tables(64 << 30, 2);
        assert_eq!(entry.len(), usize::from(ENTRY_POINT_LENGTH));
        assert_eq!(usize::from(u16::from_le_bytes([entry[22], entry[23]])), table.len());
        let (mut at, mut kinds) = (0, Vec::new());
        while at < table.len() {
            let (kind, length) = (table[at], usize::from(table[at + 1]));
            kinds.push((kind, length));
            let strings = at + length;
            let end = table[strings..].windows(2).position(|w| w == [0, 0]).unwrap();
            at = strings + end + 2;
        }
        // The lengths that version 2.8 gives these types.
        let lengths = [(0, 24), (1, 27), (3, 21), (4, 42), (4, 42), (16, 23), (17, 40), (32, 11)];
        assert_eq!(kinds[..8], lengths);
        assert_eq!(kinds[8..], [(127, 4)]);
        assert_eq!(usize::from(u16::from_le_bytes([entry[28], entry[29]])), kinds.len());
    }
}
