//! How often, and why, the guest left for user space.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use crate::poison::unpoisoned;
use crate::virtio::stats::{DeviceStats, QueueStats};

/// What kind of access reached a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// An `in` or `ins` of the guest.
    PortRead,
    /// An `out` or `outs` of the guest.
    PortWrite,
    /// A load from an address that is not RAM.
    MmioRead,
    /// A store to one.
    MmioWrite,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::PortRead => "port read",
            Self::PortWrite => "port write",
            Self::MmioRead => "mmio read",
            Self::MmioWrite => "mmio write",
        })
    }
}

/// The name under which accesses that no device answers are counted.
pub const NO_DEVICE: &str = "none";

/// Addresses that a vCPU counts one by one, several times what Linux and firmware touch. A guest has
/// terabytes of them to choose from, and BARs to move about: what is beyond these is added up for
/// each device, lest the host's memory grows as the guest wanders.
pub const MAX_ADDRESSES: usize = 2048;

/// How often one vCPU left for us, by reason.
#[derive(Clone, Debug, Default)]
pub struct ExitCounters {
    /// At most [`MAX_ADDRESSES`].
    accesses: HashMap<(&'static str, Access, u64), u64>,
    /// Accesses of further addresses. Names are few: one a device, and [`NO_DEVICE`].
    further: HashMap<(&'static str, Access), u64>,
    others: HashMap<&'static str, u64>,
}

impl ExitCounters {
    /// Counts an exit for an access of `device` at `address`.
    pub fn access(&mut self, device: &'static str, access: Access, address: u64) {
        let full = self.accesses.len() >= MAX_ADDRESSES;
        let count = match self.accesses.entry((device, access, address)) {
            Entry::Vacant(_) if full => self.further.entry((device, access)).or_default(),
            entry => entry.or_default(),
        };
        *count += 1;
    }

    /// Counts an exit for another reason.
    pub fn other(&mut self, reason: &'static str) {
        *self.others.entry(reason).or_default() += 1;
    }
}

/// One vCPU's counters, counted by its thread and read by anyone. The lock is next to never
/// contended, and cheap beside the exit that is counted.
#[derive(Clone, Debug, Default)]
pub struct SharedCounters(Arc<Mutex<ExitCounters>>);

impl SharedCounters {
    /// See [`ExitCounters::access`].
    pub fn access(&self, device: &'static str, access: Access, address: u64) {
        self.lock().access(device, access, address);
    }

    /// See [`ExitCounters::other`].
    pub fn other(&self, reason: &'static str) {
        self.lock().other(reason);
    }

    /// The values now.
    pub fn snapshot(&self) -> ExitCounters {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, ExitCounters> {
        unpoisoned(self.0.lock())
    }
}

/// How often one address of a device was accessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessCount {
    /// The device's name, or [`NO_DEVICE`].
    pub device: String,
    /// See [`Access`].
    pub access: Access,
    /// The port, or the guest-physical address; none for the sum over all addresses beyond
    /// [`MAX_ADDRESSES`].
    pub address: Option<u64>,
    /// How often that was.
    pub count: u64,
}

/// The sum over all vCPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// All exits to user space.
    pub exits: u64,
    /// Exits that are not accesses, by KVM's reason.
    pub reasons: BTreeMap<String, u64>,
    /// Exits for accesses, most frequent first.
    pub accesses: Vec<AccessCount>,
    /// What the virtio devices did.
    pub devices: Vec<DeviceStats>,
}

impl Stats {
    /// Adds up the counters of all vCPUs.
    pub fn collect(counters: impl IntoIterator<Item = ExitCounters>) -> Self {
        let mut stats = Self::default();
        let mut accesses = BTreeMap::<_, u64>::new();
        for vcpu in counters {
            let single = vcpu.accesses.into_iter();
            let single = single.map(|((device, access, at), n)| ((device, access, Some(at)), n));
            let further = vcpu.further.into_iter();
            let further = further.map(|((device, access), n)| ((device, access, None), n));
            for (key, count) in single.chain(further) {
                *accesses.entry(key).or_default() += count;
            }
            for (reason, count) in vcpu.others {
                *stats.reasons.entry(reason.to_owned()).or_default() += count;
            }
        }
        stats.accesses = accesses
            .into_iter()
            .map(|((device, access, address), count)| AccessCount {
                device: device.to_owned(),
                access,
                address,
                count,
            })
            .collect();
        stats
            .accesses
            .sort_unstable_by(|a, b| b.count.cmp(&a.count).then(a.address.cmp(&b.address)));
        stats.exits = stats.reasons.values().sum::<u64>()
            + stats.accesses.iter().map(|a| a.count).sum::<u64>();
        stats
    }

    /// Exits for accesses, by the name of the device that answered, or [`NO_DEVICE`].
    pub fn exits_by_device(&self) -> BTreeMap<String, u64> {
        let mut devices = BTreeMap::new();
        for AccessCount { device, count, .. } in &self.accesses {
            *devices.entry(device.clone()).or_default() += count;
        }
        devices
    }
}

impl fmt::Display for Stats {
    /// A table for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10}  exits to user space", self.exits)?;
        for (reason, count) in &self.reasons {
            writeln!(f, "{count:>10}  {reason}")?;
        }
        for AccessCount { device, access, address, count } in &self.accesses {
            match address {
                Some(at) => writeln!(f, "{count:>10}  {access:<10}  {at:>#10x}  {device}")?,
                None => writeln!(f, "{count:>10}  {access:<10}  {:>10}  {device}", "further")?,
            }
        }
        if !self.devices.is_empty() {
            writeln!(f, "  requests         bytes  notifications  interrupts  errors  queue")?;
        }
        for device in &self.devices {
            for (number, queue) in device.queues.iter().enumerate() {
                let QueueStats { requests, bytes, errors, notifications, interrupts } = queue;
                writeln!(
                    f,
                    "{requests:>10}  {bytes:>12}  {notifications:>13}  {interrupts:>10}  \
                     {errors:>6}  {} queue {number}",
                    device.device
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_all_vcpus_are_added() {
        let mut first = ExitCounters::default();
        let mut second = ExitCounters::default();
        first.access("com1", Access::PortWrite, 0x3f8);
        first.access("rtc", Access::PortRead, 0x71);
        second.access("rtc", Access::PortRead, 0x71);
        second.other("interrupted");
        let stats = Stats::collect([first, second]);
        assert_eq!(stats.exits, 4);
        assert_eq!(stats.reasons["interrupted"], 1);
        let devices = [("com1".to_owned(), 1), ("rtc".to_owned(), 2)];
        assert_eq!(stats.exits_by_device(), BTreeMap::from(devices));
        assert_eq!((stats.accesses[0].address, stats.accesses[0].count), (Some(0x71), 2));
        let table = stats.to_string();
        assert!(table.contains("port read"), "{table}");
        assert!(table.contains("0x3f8  com1"), "{table}");
        assert!(serde_json::to_string(&stats).unwrap().contains(r#""access":"port_read""#));
    }

    /// A guest that touches every page of the hole, or moves a BAR about, fills no memory.
    #[test]
    fn what_a_guest_makes_us_remember_is_bounded_and_nothing_goes_uncounted() {
        let mut counters = ExitCounters::default();
        let devices = [NO_DEVICE, "virtio-net"];
        let kinds = [Access::MmioRead, Access::MmioWrite];
        let mut exits = 0;
        for address in (0..100_000).map(|page| page << 12) {
            for (device, kind) in devices.into_iter().zip(kinds) {
                counters.access(device, kind, address);
                exits += 1;
            }
        }
        assert_eq!((counters.accesses.len(), counters.further.len()), (MAX_ADDRESSES, 2));
        // What was known goes on being counted by itself.
        counters.access(NO_DEVICE, Access::MmioRead, 0);
        let stats = Stats::collect([counters]);
        assert_eq!(stats.exits, exits + 1);
        let sums = stats.accesses.iter().filter(|a| a.address.is_none());
        assert_eq!(sums.map(|a| a.count).sum::<u64>(), exits - MAX_ADDRESSES as u64);
        let known = |a: &&AccessCount| a.address == Some(0) && a.access == Access::MmioRead;
        assert_eq!(stats.accesses.iter().find(known).unwrap().count, 2);
        assert!(stats.to_string().contains("further  virtio-net"), "{stats}");
    }
}
