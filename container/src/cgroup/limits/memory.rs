//! `linux.resources.memory`.

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::{CgroupError, Setting, Settings, or_max, set};

/// memory.rst of version 1. `kernel` is read by no runtime any more: kernels since 5.16 have no such limit.
pub(super) fn version_1(resources: &LinuxResources) -> Settings {
    let Some(memory) = resources.memory() else { return Ok(Vec::new()) };
    let mut settings = Vec::new();
    let mut add = |field, file: &str, value: Option<i64>| {
        settings.extend(value.map(|value| Setting::new(field, file, value)));
    };
    add("memory.limit", "memory.limit_in_bytes", set(memory.limit()));
    add("memory.reservation", "memory.soft_limit_in_bytes", set(memory.reservation()));
    add("memory.kernelTCP", "memory.kmem.tcp.limit_in_bytes", set(memory.kernel_tcp()));
    let swappiness = memory.swappiness().map(|value| i64::try_from(value).unwrap_or(i64::MAX));
    add("memory.swappiness", "memory.swappiness", swappiness);
    let disabled = (memory.disable_oom_killer() == Some(true)).then_some(1);
    add("memory.disableOOMKiller", "memory.oom_control", disabled);
    if let Some(swap) = total(memory) {
        // A kernel without swap accounting cannot keep the promise "no swap" on a host that swaps; neither can we
        // there, and every runtime accepts that.
        let promise = memory.limit() == Some(swap);
        let setting = Setting::new("memory.swap", "memory.memsw.limit_in_bytes", swap);
        settings.push(setting.optional(promise));
    }
    refuse_flat(memory)?;
    Ok(settings)
}

/// cgroup-v2.rst, "Memory".
pub(super) fn version_2(resources: &LinuxResources) -> Settings {
    let Some(memory) = resources.memory() else { return Ok(Vec::new()) };
    for (field, asked) in [
        ("memory.kernelTCP", set(memory.kernel_tcp()).is_some()),
        ("memory.swappiness", memory.swappiness().is_some()),
        ("memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
    ] {
        if asked {
            return Err(CgroupError::Unsupported { field, on: "on cgroup v2" });
        }
    }
    refuse_flat(memory)?;
    let mut settings = Vec::new();
    if let Some(limit) = set(memory.limit()) {
        let mut setting = Setting::new("memory.limit", "memory.max", or_max(limit));
        // Version 1 refuses by itself; version 2 would kill.
        setting.at_least = (memory.check_before_update() == Some(true)).then_some("memory.current");
        settings.push(setting);
    }
    if let Some(reservation) = set(memory.reservation()) {
        settings.push(Setting::new("memory.reservation", "memory.low", or_max(reservation)));
    }
    if let Some(total) = total(memory) {
        let swap = swap_max(total, set(memory.limit()))?;
        // A kernel without swap has no such file, and no swap to limit.
        let none = swap == "0" || swap == "max";
        settings.push(Setting::new("memory.swap", "memory.swap.max", swap).optional(none));
    }
    Ok(settings)
}

/// Memory and swap together. As runc documents it, who has memory without limit has swap without limit.
fn total(memory: &LinuxMemory) -> Option<i64> {
    set(memory.swap()).or_else(|| memory.limit().filter(|limit| *limit < 0))
}

/// The `swap` of a configuration is memory and swap together, as in version 1; `memory.swap.max` is swap alone.
fn swap_max(total: i64, memory: Option<i64>) -> Result<String, CgroupError> {
    let invalid = |problem| CgroupError::Invalid { field: "memory.swap", problem };
    match memory {
        _ if total < 0 => Ok("max".to_owned()),
        Some(memory) if memory > total => Err(invalid("less than memory.limit, which it includes")),
        Some(memory) if memory > 0 => Ok((total - memory).to_string()),
        _ => Err(invalid("needs memory.limit, which it includes")),
    }
}

/// Since Linux 5.11 a cgroup's limit is for all below it, whatever is asked.
fn refuse_flat(memory: &LinuxMemory) -> Result<(), CgroupError> {
    match memory.use_hierarchy() {
        Some(false) => Err(CgroupError::Unsupported {
            field: "memory.useHierarchy",
            on: "but as true by kernels since 5.11",
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Version::{One, Two};
    use super::super::tests::written;
    use serde_json::json;

    #[test]
    fn swap_is_what_remains_above_memory() {
        for (memory, expected) in [
            (json!({"limit": 100, "swap": 100}), "memory.max=100 memory.swap.max=0"),
            (json!({"limit": 100, "swap": 150}), "memory.max=100 memory.swap.max=50"),
            (json!({"limit": 100, "swap": -1}), "memory.max=100 memory.swap.max=max"),
            (json!({"limit": 100}), "memory.max=100"),
            (json!({"limit": -1}), "memory.max=max memory.swap.max=max"),
            (json!({"reservation": 7, "swap": 0}), "memory.low=7"),
        ] {
            assert_eq!(written(Two, json!({"memory": memory})).unwrap().join(" "), expected);
        }
        for memory in [json!({"limit": 100, "swap": 99}), json!({"swap": 100})] {
            let error = written(Two, json!({"memory": memory})).unwrap_err();
            assert!(error.contains("memory.swap"), "{error}");
        }
    }

    #[test]
    fn version_1_takes_swap_as_it_is_and_more_besides() {
        let memory = json!({
            "limit": 100, "swap": 150, "reservation": 50, "swappiness": 0, "kernelTCP": 9,
            "disableOOMKiller": true, "kernel": 3,
        });
        let expected = [
            "memory.limit_in_bytes=100",
            "memory.soft_limit_in_bytes=50",
            "memory.kmem.tcp.limit_in_bytes=9",
            "memory.swappiness=0",
            "memory.oom_control=1",
            "memory.memsw.limit_in_bytes=150",
        ];
        assert_eq!(written(One, json!({"memory": memory})).unwrap(), expected);
        for field in ["swappiness", "kernelTCP"] {
            let error = written(Two, json!({"memory": {field: 5}})).unwrap_err();
            assert!(error.contains(&format!("memory.{field} is not supported on cgroup v2")));
        }
    }
}
