//! The host bridge: Intel 82441FX (data sheet 290549). What matters of it is shadow RAM: the
//! programmable attribute map (PAM, 3.2.14) says for each area below 1 MiB whether reads and
//! writes reach RAM or the ROM behind it.

use crate::pci::{ConfigSpace, Identity, PciFunction};

/// PAM0 to PAM6.
const PAM: u8 = 0x59;
const PAM_COUNT: u8 = 7;
/// Reads reach RAM.
const READ_ENABLE: u8 = 1;
/// Writes reach RAM.
const WRITE_ENABLE: u8 = 2;
/// SMRAM control; there is no system management mode, so it only remembers.
const SMRAM: u8 = 0x72;

/// How accesses to an area below 1 MiB are to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowArea {
    /// Guest-physical start.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Reads reach RAM; otherwise ROM.
    pub read_ram: bool,
    /// Writes reach RAM; otherwise they are lost.
    pub write_ram: bool,
}

/// Puts RAM and ROM where the guest wants them. Called from vCPU threads, with the configuration
/// space locked; when it returns, the vCPU's next access sees the change.
pub trait PamMapper: Send {
    /// Serves one area anew.
    fn map(&mut self, area: ShadowArea);
}

/// For machines that start without firmware: there is RAM, and no ROM behind it.
pub struct RamOnly;

impl PamMapper for RamOnly {
    fn map(&mut self, _area: ShadowArea) {}
}

/// The areas of one PAM register's low and high nibble; PAM0 has only the high one.
fn areas(index: u8) -> [Option<(u64, u64)>; 2] {
    match index {
        0 => [None, Some((0xf_0000, 0x1_0000))],
        index => {
            let start = 0xc_0000 + u64::from(index - 1) * 0x8000;
            [Some((start, 0x4000)), Some((start + 0x4000, 0x4000))]
        }
    }
}

/// The 440FX's host bridge, PCI function 00:00.0.
pub struct HostBridge {
    config: ConfigSpace,
    mapper: Box<dyn PamMapper>,
}

impl HostBridge {
    /// A bridge after reset: ROM everywhere below 1 MiB.
    pub fn new(mapper: Box<dyn PamMapper>) -> Self {
        let mut config = ConfigSpace::new(&Identity {
            vendor: 0x8086,
            device: 0x1237,
            revision: 2,
            class: 0x06,
            // SeaBIOS finds out by these ids that fw_cfg is there (src/fw/paravirt.c).
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            ..Identity::default()
        });
        let mut writable = [0x33; PAM_COUNT as usize];
        writable[0] = 0x30;
        config.set_writable(PAM, &writable);
        config.set(SMRAM, &[0x02]);
        config.set_writable(SMRAM, &[0x78]);
        Self { config, mapper }
    }

    /// All RAM, as firmware leaves it.
    pub fn enable_ram(&mut self) {
        for index in 0..PAM_COUNT {
            self.config.write(u16::from(PAM + index), &[0x33]);
            self.apply(index);
        }
    }

    fn apply(&mut self, index: u8) {
        let register = self.config.u8_at(PAM + index);
        for (nibble, area) in [register & 0xf, register >> 4].into_iter().zip(areas(index)) {
            if let Some((start, length)) = area {
                let read_ram = nibble & READ_ENABLE != 0;
                let write_ram = nibble & WRITE_ENABLE != 0;
                self.mapper.map(ShadowArea { start, length, read_ram, write_ram });
            }
        }
    }
}

impl PciFunction for HostBridge {
    fn name(&self) -> &'static str {
        "host-bridge"
    }

    fn config(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        let pam = |config: &ConfigSpace| -> Vec<u8> {
            (PAM..PAM + PAM_COUNT).map(|at| config.u8_at(at)).collect()
        };
        let before = pam(&self.config);
        self.config.write(offset, data);
        let after = pam(&self.config);
        for index in 0..PAM_COUNT {
            if before[usize::from(index)] != after[usize::from(index)] {
                self.apply(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    struct Record(Arc<Mutex<Vec<ShadowArea>>>);

    impl PamMapper for Record {
        fn map(&mut self, area: ShadowArea) {
            self.0.lock().unwrap().push(area);
        }
    }

    #[test]
    fn attributes_change_the_areas_they_name() {
        let areas = Arc::new(Mutex::new(Vec::new()));
        let mut bridge = HostBridge::new(Box::new(Record(Arc::clone(&areas))));
        bridge.write_config(0x59, &[0x30]);
        let area =
            |start, length, read_ram, write_ram| ShadowArea { start, length, read_ram, write_ram };
        assert_eq!(
            std::mem::take(&mut *areas.lock().unwrap()),
            [area(0xf_0000, 0x1_0000, true, true)]
        );
        bridge.write_config(0x5e, &[0x12, 0xff]);
        assert_eq!(
            std::mem::take(&mut *areas.lock().unwrap()),
            [
                area(0xe_0000, 0x4000, false, true),
                area(0xe_4000, 0x4000, true, false),
                area(0xe_8000, 0x4000, true, true),
                area(0xe_c000, 0x4000, true, true),
            ]
        );
        bridge.write_config(0x5e, &[0x12]);
        assert!(areas.lock().unwrap().is_empty(), "nothing changed");
        bridge.enable_ram();
        assert_eq!(areas.lock().unwrap().len(), 13);
    }
}
