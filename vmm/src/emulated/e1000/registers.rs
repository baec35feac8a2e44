//! Register offsets and bits of the 82540EM (Intel PCI/PCI-X Family of Gigabit Ethernet Controllers
//! Software Developer's Manual, 317453-005, chapter 13), and the plain store behind them.

/// Offsets in the register space.
pub mod offset {
    pub const CTRL: u32 = 0x0000;
    pub const STATUS: u32 = 0x0008;
    pub const EECD: u32 = 0x0010;
    pub const EERD: u32 = 0x0014;
    pub const CTRL_EXT: u32 = 0x0018;
    pub const MDIC: u32 = 0x0020;
    pub const FCAL: u32 = 0x0028;
    pub const FCAH: u32 = 0x002c;
    pub const FCT: u32 = 0x0030;
    pub const VET: u32 = 0x0038;
    pub const ICR: u32 = 0x00c0;
    pub const ITR: u32 = 0x00c4;
    pub const ICS: u32 = 0x00c8;
    pub const IMS: u32 = 0x00d0;
    pub const IMC: u32 = 0x00d8;
    pub const RCTL: u32 = 0x0100;
    pub const FCTTV: u32 = 0x0170;
    pub const TXCW: u32 = 0x0178;
    pub const RXCW: u32 = 0x0180;
    pub const TCTL: u32 = 0x0400;
    pub const TIPG: u32 = 0x0410;
    pub const AIT: u32 = 0x0458;
    pub const LEDCTL: u32 = 0x0e00;
    pub const PBA: u32 = 0x1000;
    pub const FCRTL: u32 = 0x2160;
    pub const FCRTH: u32 = 0x2168;
    pub const RDBAL: u32 = 0x2800;
    pub const RDBAH: u32 = 0x2804;
    pub const RDLEN: u32 = 0x2808;
    pub const RDH: u32 = 0x2810;
    pub const RDT: u32 = 0x2818;
    pub const RDTR: u32 = 0x2820;
    pub const RXDCTL: u32 = 0x2828;
    pub const RADV: u32 = 0x282c;
    pub const RSRPD: u32 = 0x2c00;
    pub const TDBAL: u32 = 0x3800;
    pub const TDBAH: u32 = 0x3804;
    pub const TDLEN: u32 = 0x3808;
    pub const TDH: u32 = 0x3810;
    pub const TDT: u32 = 0x3818;
    pub const TIDV: u32 = 0x3820;
    pub const TXDCTL: u32 = 0x3828;
    pub const TADV: u32 = 0x382c;
    pub const TSPMT: u32 = 0x3830;
    pub const STATISTICS: u32 = 0x4000;
    pub const STATISTICS_END: u32 = 0x4100;
    pub const RXCSUM: u32 = 0x5000;
    pub const MTA: u32 = 0x5200;
    pub const RAL: u32 = 0x5400;
    pub const RA_END: u32 = 0x5480;
    pub const VFTA: u32 = 0x5600;
    pub const VFTA_END: u32 = 0x5800;
    pub const WUC: u32 = 0x5800;
    pub const WUFC: u32 = 0x5808;
    pub const WUS: u32 = 0x5810;
    pub const MANC: u32 = 0x5820;
    pub const END: u32 = 0x6000;
}

/// Device control, 13.4.1.
pub mod ctrl {
    pub const FD: u32 = 1 << 0;
    pub const SLU: u32 = 1 << 6;
    pub const SPEED_1000: u32 = 2 << 8;
    pub const RST: u32 = 1 << 26;
    pub const VME: u32 = 1 << 30;
    pub const PHY_RST: u32 = 1 << 31;
}

/// Device status, 13.4.2.
pub mod status {
    pub const FD: u32 = 1 << 0;
    pub const LU: u32 = 1 << 1;
    pub const SPEED_1000: u32 = 2 << 6;
    pub const ASDV_1000: u32 = 2 << 8;
}

/// Interrupt causes, 13.4.17.
pub mod cause {
    pub const TXDW: u32 = 1 << 0;
    pub const TXQE: u32 = 1 << 1;
    pub const LSC: u32 = 1 << 2;
    pub const RXDMT0: u32 = 1 << 4;
    pub const RXT0: u32 = 1 << 7;
    pub const MDAC: u32 = 1 << 9;
    /// All that the 82540EM has.
    pub const ALL: u32 = 0x0001_82ff | MDAC | 1 << 10;
}

/// Receive control, 13.4.22.
pub mod rctl {
    pub const EN: u32 = 1 << 1;
    pub const UPE: u32 = 1 << 3;
    pub const MPE: u32 = 1 << 4;
    pub const LPE: u32 = 1 << 5;
    pub const RDMTS_SHIFT: u32 = 8;
    pub const MO_SHIFT: u32 = 12;
    pub const BAM: u32 = 1 << 15;
    pub const BSIZE_SHIFT: u32 = 16;
    pub const VFE: u32 = 1 << 18;
    pub const BSEX: u32 = 1 << 25;
    pub const SECRC: u32 = 1 << 26;
}

/// Transmit control, 13.4.33.
pub mod tctl {
    pub const EN: u32 = 1 << 1;
    pub const PSP: u32 = 1 << 3;
}

/// Receive checksum control, 13.4.46.
pub mod rxcsum {
    pub const IPOFL: u32 = 1 << 8;
    pub const TUOFL: u32 = 1 << 9;
}

/// RAH: the address is valid.
pub const RAH_AV: u32 = 1 << 31;
/// Bits of RDLEN and TDLEN that hold: multiples of 128 bytes below 1 MiB.
const RING_LENGTH_BITS: u32 = 0x000f_ff80;

/// The plain registers: those that only remember what was written.
pub struct Store(Box<[u32]>);

impl Store {
    /// Values after a reset (13.4, "initial value"); the caller fills in what the EEPROM loads.
    pub fn new() -> Self {
        let mut store = Self(vec![0; (offset::END / 4) as usize].into_boxed_slice());
        store.set(offset::CTRL, ctrl::FD | ctrl::SLU | ctrl::SPEED_1000);
        store.set(offset::VET, 0x8100);
        store.set(offset::LEDCTL, 0x0706_8302);
        store.set(offset::PBA, 0x0010_0030);
        store.set(offset::TXCW, 0);
        store
    }

    /// The register at `offset`, which is below [`offset::END`].
    pub fn get(&self, offset: u32) -> u32 {
        self.0.get((offset / 4) as usize).copied().unwrap_or(0)
    }

    /// Sets the register at `offset`.
    pub fn set(&mut self, offset: u32, value: u32) {
        if let Some(register) = self.0.get_mut((offset / 4) as usize) {
            *register = value;
        }
    }

    /// Adds to a statistics counter, which stops at its maximum (13.7).
    pub fn count(&mut self, offset: u32, amount: u32) {
        self.set(offset, self.get(offset).saturating_add(amount));
    }

    /// Adds to a 64-bit statistics counter, the low half at `offset`.
    pub fn count_octets(&mut self, offset: u32, amount: u64) {
        let value = u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32;
        let value = value.saturating_add(amount);
        self.set(offset, value as u32);
        self.set(offset + 4, (value >> 32) as u32);
    }

    /// Reads a statistics register, which clears it (13.7); of the 64-bit ones the upper half
    /// clears both.
    pub fn take_statistic(&mut self, offset: u32) -> u32 {
        let value = self.get(offset);
        match offset {
            0x4088 | 0x4090 | 0x40c0 | 0x40c8 => {}
            0x408c | 0x4094 | 0x40c4 | 0x40cc => {
                self.set(offset - 4, 0);
                self.set(offset, 0);
            }
            _ => self.set(offset, 0),
        }
        value
    }

    /// Writes a register that has no effect beyond its value, with the bits that exist.
    /// Offsets where there is no such register are ignored.
    pub fn write_plain(&mut self, at: u32, value: u32) {
        let bits = match at {
            offset::RDLEN | offset::TDLEN => RING_LENGTH_BITS,
            offset::RDBAL | offset::TDBAL => !0xf,
            offset::RDH | offset::RDT | offset::TDH | offset::TDT => 0xffff,
            offset::RDTR | offset::RADV | offset::TIDV | offset::TADV | offset::ITR => 0xffff,
            offset::FCAH | offset::FCT | offset::VET | offset::FCTTV | offset::AIT => 0xffff,
            offset::CTRL_EXT
            | offset::FCAL
            | offset::RCTL
            | offset::TXCW
            | offset::TCTL
            | offset::TIPG
            | offset::LEDCTL
            | offset::PBA
            | offset::FCRTL
            | offset::FCRTH
            | offset::RDBAH
            | offset::RXDCTL
            | offset::RSRPD
            | offset::TDBAH
            | offset::TXDCTL
            | offset::TSPMT
            | offset::RXCSUM
            | offset::WUC
            | offset::WUFC
            | offset::WUS
            | offset::MANC => !0,
            offset::MTA..offset::RA_END | offset::VFTA..offset::VFTA_END => !0,
            _ => return,
        };
        self.set(at, value & bits);
    }
}
