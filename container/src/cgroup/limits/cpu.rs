//! `linux.resources.cpu`: the controllers cpu and cpuset.

use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::{CgroupError, Setting, Settings, or_max};
use crate::cgroup::CPU_PERIOD_MICROSECONDS;

/// sched-bwc.rst, sched-rt-group.rst.
pub(super) fn version_1(resources: &LinuxResources) -> Settings {
    let Some(cpu) = resources.cpu() else { return Ok(Vec::new()) };
    let mut settings = Vec::new();
    let mut add = |field, file: &str, value: Option<String>| {
        settings.extend(value.map(|value| Setting::new(field, file, value)));
    };
    let text = |value: Option<u64>| value.filter(|value| *value != 0).map(|v| v.to_string());
    let signed = |value: Option<i64>| value.filter(|value| *value != 0).map(|v| v.to_string());
    add("cpu.shares", "cpu.shares", shares(cpu).map(|shares| shares.to_string()));
    add("cpu.idle", "cpu.idle", idle(cpu));
    add("cpu.period", "cpu.cfs_period_us", text(cpu.period()));
    add("cpu.quota", "cpu.cfs_quota_us", signed(cpu.quota()));
    add("cpu.burst", "cpu.cfs_burst_us", cpu.burst().map(|burst| burst.to_string()));
    add("cpu.realtimePeriod", "cpu.rt_period_us", text(cpu.realtime_period()));
    add("cpu.realtimeRuntime", "cpu.rt_runtime_us", signed(cpu.realtime_runtime()));
    Ok(settings)
}

/// cgroup-v2.rst, "CPU".
pub(super) fn version_2(resources: &LinuxResources) -> Settings {
    let Some(cpu) = resources.cpu() else { return Ok(Vec::new()) };
    for (field, asked) in [
        ("cpu.realtimeRuntime", cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)),
        ("cpu.realtimePeriod", cpu.realtime_period().is_some_and(|period| period != 0)),
    ] {
        if asked {
            return Err(CgroupError::Unsupported { field, on: "on cgroup v2" });
        }
    }
    let mut settings = Vec::new();
    if let Some(shares) = shares(cpu) {
        settings.push(Setting::new("cpu.shares", "cpu.weight", weight_from_shares(shares)));
    }
    if let Some(idle) = idle(cpu) {
        settings.push(Setting::new("cpu.idle", "cpu.idle", idle));
    }
    let (quota, period) = (cpu.quota().unwrap_or(0), cpu.period().unwrap_or(0));
    if (quota, period) != (0, 0) {
        let field = if quota == 0 { "cpu.period" } else { "cpu.quota" };
        let quota = if quota == 0 { "max".to_owned() } else { or_max(quota) };
        let period = if period == 0 { CPU_PERIOD_MICROSECONDS } else { period };
        settings.push(Setting::new(field, "cpu.max", format!("{quota} {period}")));
    }
    if let Some(burst) = cpu.burst() {
        settings.push(Setting::new("cpu.burst", "cpu.max.burst", burst));
    }
    Ok(settings)
}

/// The same in both versions.
pub(super) fn sets(resources: &LinuxResources) -> Settings {
    let Some(cpu) = resources.cpu() else { return Ok(Vec::new()) };
    let set = |field, file: &str, value: &Option<String>| {
        let value = value.as_ref().filter(|value| !value.is_empty())?;
        Some(Setting::new(field, file, value))
    };
    let sets =
        [set("cpu.cpus", "cpuset.cpus", cpu.cpus()), set("cpu.mems", "cpuset.mems", cpu.mems())];
    Ok(sets.into_iter().flatten().collect())
}

/// A group that runs only when nobody else does has no share, and the kernel refuses one.
fn shares(cpu: &LinuxCpu) -> Option<u64> {
    cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1))
}

fn idle(cpu: &LinuxCpu) -> Option<String> {
    cpu.idle().map(|idle| idle.to_string())
}

/// Shares of CPU time, [2, 262144], as version 2's weight, [1, 10000]: the conversion of the OCI specification
/// (config-linux.md, "CPU").
pub fn weight_from_shares(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::super::Version::{One, Two};
    use super::super::tests::written;
    use super::*;
    use serde_json::json;

    #[test]
    fn shares_become_weights() {
        assert_eq!(
            [2, 1024, 262_144, 0, u64::MAX].map(weight_from_shares),
            [1, 39, 10_000, 1, 10_000]
        );
    }

    #[test]
    fn each_version_has_its_words() {
        let cpu = json!({"shares": 512, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "0-1"});
        let both = [One, Two].map(|version| written(version, json!({"cpu": cpu.clone()})).unwrap());
        let [one, two] = both.map(|lines| lines.join(" "));
        assert_eq!(
            one,
            "cpu.shares=512 cpu.cfs_period_us=100000 cpu.cfs_quota_us=50000 cpu.cfs_burst_us=10000 cpuset.cpus=0-1"
        );
        assert_eq!(two, "cpu.weight=20 cpu.max=50000 100000 cpu.max.burst=10000 cpuset.cpus=0-1");
        for (cpu, expected) in [
            (json!({"quota": -1}), "cpu.max=max 100000"),
            (json!({"period": 5000}), "cpu.max=max 5000"),
            (json!({"quota": 1000}), "cpu.max=1000 100000"),
            (json!({"idle": 1, "shares": 7}), "cpu.idle=1"),
        ] {
            assert_eq!(written(Two, json!({"cpu": cpu})).unwrap().join(" "), expected);
        }
        let realtime = json!({"cpu": {"realtimeRuntime": 95_000, "realtimePeriod": 100_000}});
        let expected = ["cpu.rt_period_us=100000", "cpu.rt_runtime_us=95000"];
        assert_eq!(written(One, realtime.clone()).unwrap(), expected);
        assert!(written(Two, realtime).unwrap_err().contains("cpu.realtimeRuntime"));
    }
}
