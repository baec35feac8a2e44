//! How often, and why, the guest left for user space.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::virtio::stats::{DeviceStats, QueueStats};

/// What kind of access reached a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// `in`.
    PortRead,
    /// `out`.
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

/// One vCPU's counters.
#[derive(Clone, Debug, Default)]
pub struct ExitCounters {
    accesses: HashMap<(&'static str, Access, u64), u64>,
    others: HashMap<&'static str, u64>,
}

impl ExitCounters {
    /// Counts an exit for an access of `device` at `address`.
    pub fn access(&mut self, device: &'static str, access: Access, address: u64) {
        *self.accesses.entry((device, access, address)).or_default() += 1;
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
        // Plain values are never left half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often one address of a device was accessed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessCount {
    /// The device's name, or [`NO_DEVICE`].
    pub device: String,
    /// See [`Access`].
    pub access: Access,
    /// The port, or the guest-physical address.
    pub address: u64,
    /// Exits.
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
            for (key, count) in vcpu.accesses {
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
        stats.accesses.sort_by(|a, b| b.count.cmp(&a.count).then(a.address.cmp(&b.address)));
        stats.exits = stats.reasons.values().sum::<u64>()
            + stats.accesses.iter().map(|a| a.count).sum::<u64>();
        stats
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
            writeln!(f, "{count:>10}  {access:<10}  {address:>#10x}  {device}")?;
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
        assert_eq!((stats.accesses[0].address, stats.accesses[0].count), (0x71, 2));
        let table = stats.to_string();
        assert!(table.contains("port read"), "{table}");
        assert!(table.contains("0x3f8  com1"), "{table}");
        assert!(serde_json::to_string(&stats).unwrap().contains(r#""access":"port_read""#));
    }
}
