//! `linux.resources` in systemd's words (systemd.resource-control(5)), so that it sets nothing else when it next writes
//! the control files. The runtime writes them itself, all of them and exactly.

use isolab_container::oci::{LinuxCpu, LinuxMemory, LinuxResources};
use isolab_container::weight_from_shares;

use super::wire::Value;

/// What systemd calls infinity.
const NO_LIMIT: u64 = u64::MAX;
/// CPU time is set in microseconds of a second, and kept by systemd in percent of one.
const SECOND: u64 = 1_000_000;
const PERCENT: u64 = SECOND / 100;

pub type Properties = Vec<(&'static str, Value)>;

/// `version_2`: of cgroups.
pub fn properties(resources: &LinuxResources, version_2: bool) -> Properties {
    let mut all = Properties::new();
    if let Some(memory) = resources.memory() {
        all.extend(memory_limits(memory, version_2));
    }
    if let Some(cpu) = resources.cpu() {
        all.extend(cpu_limits(cpu, version_2));
    }
    let pids = resources.pids().as_ref().map(|pids| pids.limit()).filter(|limit| *limit != 0);
    all.extend(pids.map(|limit| ("TasksMax", Value::Number(or_infinity(limit)))));
    all
}

fn memory_limits(memory: &LinuxMemory, version_2: bool) -> Properties {
    let set = |limit: Option<i64>| limit.filter(|limit| *limit != 0);
    let number = |limit: i64| Value::Number(or_infinity(limit));
    let name = if version_2 { "MemoryMax" } else { "MemoryLimit" };
    let mut all: Properties =
        set(memory.limit()).map(|limit| (name, number(limit))).into_iter().collect();
    if version_2 {
        all.extend(set(memory.reservation()).map(|limit| ("MemoryLow", number(limit))));
        // Swap alone, where the configuration has memory and swap.
        let swap = match (set(memory.swap()), set(memory.limit())) {
            (Some(swap), Some(limit)) if swap >= limit && limit > 0 => Some(swap - limit),
            (Some(swap), _) if swap < 0 => Some(swap),
            _ => None,
        };
        all.extend(swap.map(|limit| ("MemorySwapMax", number(limit))));
    }
    all
}

fn cpu_limits(cpu: &LinuxCpu, version_2: bool) -> Properties {
    let mut all = Properties::new();
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0) {
        all.push(match version_2 {
            true => ("CPUWeight", Value::Number(weight_from_shares(shares))),
            false => ("CPUShares", Value::Number(shares)),
        });
    }
    let period = cpu.period().filter(|period| *period != 0);
    if let Some(period) = period {
        all.push(("CPUQuotaPeriodUSec", Value::Number(period)));
    }
    if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
        let a_second = match u64::try_from(quota) {
            // Up to a whole percent: less than what is asked for would hold a cgroup below it.
            Ok(quota) => quota
                .saturating_mul(SECOND)
                .div_ceil(period.unwrap_or(isolab_container::CPU_PERIOD_MICROSECONDS))
                .next_multiple_of(PERCENT),
            Err(_) => NO_LIMIT,
        };
        all.push(("CPUQuotaPerSecUSec", Value::Number(a_second)));
    }
    if version_2 {
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            let bits = list.as_deref().filter(|list| !list.is_empty()).and_then(bits);
            all.extend(bits.map(|bits| (name, Value::Bytes(bits))));
        }
    }
    all
}

fn or_infinity(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(NO_LIMIT)
}

/// A list as in `0-2,7` as a bit for each number. None: it is none, of which the kernel will tell.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        for number in first..=last {
            let byte = usize::from(number / 8);
            bits.resize(bits.len().max(byte + 1), 0);
            bits[byte] |= 1 << (number % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_version_has_its_names() {
        let resources: LinuxResources = serde_json::from_value(json!({
            "memory": {"limit": 1000, "swap": 1500, "reservation": 500},
            "cpu": {"shares": 1024, "quota": 15_500, "period": 100_000, "cpus": "0-2,9"},
            "pids": {"limit": -1},
        }))
        .unwrap();
        let number = |number| Value::Number(number);
        let expected = [
            ("MemoryMax", number(1000)),
            ("MemoryLow", number(500)),
            ("MemorySwapMax", number(500)),
            ("CPUWeight", number(39)),
            ("CPUQuotaPeriodUSec", number(100_000)),
            ("CPUQuotaPerSecUSec", number(160_000)),
            ("AllowedCPUs", Value::Bytes(vec![7, 2])),
            ("TasksMax", number(u64::MAX)),
        ];
        assert_eq!(properties(&resources, true), expected);
        let names: Vec<_> =
            properties(&resources, false).into_iter().map(|(name, _)| name).collect();
        let expected =
            ["MemoryLimit", "CPUShares", "CPUQuotaPeriodUSec", "CPUQuotaPerSecUSec", "TasksMax"];
        assert_eq!(names, expected);
        assert_eq!(properties(&serde_json::from_value(json!({})).unwrap(), true), []);
    }
}
