//! Which received frames are for us (manual 3.2.1, 13.5).

use super::registers::{RAH_AV, Store, offset, rctl};

const BROADCAST: [u8; 6] = [0xff; 6];

/// How a frame passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    /// By its address, or because everything passes.
    Exact,
    /// By the multicast table, which other groups may share.
    Inexact,
}

/// A copy of the filter registers, taken when they change.
#[derive(Clone, Debug)]
pub struct Filter {
    control: u32,
    addresses: Vec<[u8; 6]>,
    multicast: [u32; 128],
    vlans: [u32; 128],
}

impl Filter {
    /// What the registers say now.
    pub fn from_registers(store: &Store) -> Self {
        let mut multicast = [0; 128];
        let mut vlans = [0; 128];
        for (index, (multicast, vlan)) in multicast.iter_mut().zip(&mut vlans).enumerate() {
            *multicast = store.get(offset::MTA + 4 * index as u32);
            *vlan = store.get(offset::VFTA + 4 * index as u32);
        }
        let addresses = (offset::RAL..offset::RA_END)
            .step_by(8)
            .map(|at| (store.get(at), store.get(at + 4)))
            .filter(|(_, high)| high & RAH_AV != 0)
            .map(|(low, high)| {
                let [a, b, c, d] = low.to_le_bytes();
                let [e, f, ..] = high.to_le_bytes();
                [a, b, c, d, e, f]
            })
            .collect();
        Self { control: store.get(offset::RCTL), addresses, multicast, vlans }
    }

    /// Whether, and how, a frame to `destination`, with this VLAN tag if it has one, passes.
    pub fn accepts(&self, destination: [u8; 6], vlan: Option<u16>) -> Option<Match> {
        if self.control & rctl::VFE != 0
            && let Some(id) = vlan.map(|tag| usize::from(tag & 0xfff))
            && self.vlans[id / 32] >> (id % 32) & 1 == 0
        {
            return None;
        }
        let multicast = destination[0] & 1 != 0;
        if self.addresses.contains(&destination) {
            return Some(Match::Exact);
        }
        if self.control & rctl::UPE != 0 && !multicast
            || self.control & rctl::MPE != 0 && multicast
            || self.control & rctl::BAM != 0 && destination == BROADCAST
        {
            return Some(Match::Exact);
        }
        (multicast && self.in_table(destination)).then_some(Match::Inexact)
    }

    /// The 4096-bit table is indexed by 12 of the upper 16 address bits; MO chooses which.
    fn in_table(&self, destination: [u8; 6]) -> bool {
        let upper = u16::from_le_bytes([destination[4], destination[5]]);
        let shift = [4, 3, 2, 0][(self.control >> rctl::MO_SHIFT & 3) as usize];
        let index = usize::from(upper >> shift & 0xfff);
        self.multicast[index / 32] >> (index % 32) & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_pass_by_address_table_and_mode() {
        let mut store = Store::new();
        store.write_plain(offset::RAL, 0x1200_5452);
        store.write_plain(offset::RAL + 4, RAH_AV | 0x5634);
        let ours = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let other = [0x52, 0x54, 0, 0x12, 0x34, 0x57];
        let group = [0x01, 0, 0x5e, 0, 0, 0xfb];
        let filter = Filter::from_registers(&store);
        assert_eq!(filter.accepts(ours, None), Some(Match::Exact));
        assert_eq!(filter.accepts(other, None), None);
        assert_eq!(filter.accepts(BROADCAST, None).or(filter.accepts(group, None)), None);

        // 0xfb00 >> 4 & 0xfff = 0xfb0: word 125, bit 16.
        store.write_plain(offset::MTA + 125 * 4, 1 << 16);
        store.write_plain(offset::RCTL, rctl::BAM);
        let filter = Filter::from_registers(&store);
        assert_eq!(filter.accepts(group, None), Some(Match::Inexact));
        assert_eq!(filter.accepts(BROADCAST, None), Some(Match::Exact));

        store.write_plain(offset::RCTL, rctl::UPE | rctl::MPE | rctl::VFE);
        store.write_plain(offset::VFTA + 4, 1 << 1);
        let filter = Filter::from_registers(&store);
        assert_eq!(filter.accepts(other, None), Some(Match::Exact));
        assert_eq!(filter.accepts(BROADCAST, Some(0x2021)), Some(Match::Exact));
        assert_eq!(filter.accepts(ours, Some(34)).or(filter.accepts(ours, Some(0xfff))), None);
    }
}
