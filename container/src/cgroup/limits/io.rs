//! `linux.resources.blockIO`: the controller blkio of version 1, io of version 2.

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice};

use super::{CgroupError, Setting, Settings};

/// blkio-controller.rst. The files of BFQ where the kernel has it, those of CFQ (before Linux 5.0) where not.
pub(super) fn version_1(resources: &LinuxResources) -> Settings {
    let Some(io) = resources.block_io() else { return Ok(Vec::new()) };
    let mut settings = Vec::new();
    if let Some(weight) = set(io.weight()) {
        let setting = Setting::new("blockIO.weight", "blkio.bfq.weight", weight);
        settings.push(setting.or("blkio.weight", weight));
    }
    if let Some(weight) = set(io.leaf_weight()) {
        settings.push(Setting::new("blockIO.leafWeight", "blkio.leaf_weight", weight));
    }
    for device in io.weight_device().iter().flatten() {
        if let Some(value) = of_device(device, device.weight()) {
            let file = "blkio.bfq.weight_device";
            let setting = Setting::new("blockIO.weightDevice", file, &value);
            settings.push(setting.or("blkio.weight_device", &value));
        }
        if let Some(value) = of_device(device, device.leaf_weight()) {
            settings.push(Setting::new("blockIO.weightDevice", "blkio.leaf_weight_device", value));
        }
    }
    for (field, [file, _], devices) in throttles(io) {
        let value = |device: &LinuxThrottleDevice| {
            format!("{}:{} {}", device.major(), device.minor(), device.rate())
        };
        let file = format!("blkio.throttle.{file}_device");
        settings.extend(devices.iter().map(|device| Setting::new(field, &file, value(device))));
    }
    Ok(settings)
}

/// cgroup-v2.rst, "IO". BFQ's weight has version 1's range; the controller's own is converted.
pub(super) fn version_2(resources: &LinuxResources) -> Settings {
    let Some(io) = resources.block_io() else { return Ok(Vec::new()) };
    let leaf = |device: &LinuxWeightDevice| set(device.leaf_weight()).is_some();
    if set(io.leaf_weight()).is_some() || io.weight_device().iter().flatten().any(leaf) {
        return Err(CgroupError::Unsupported { field: "blockIO.leafWeight", on: "on cgroup v2" });
    }
    let mut settings = Vec::new();
    if let Some(weight) = set(io.weight()) {
        let setting = Setting::new("blockIO.weight", "io.bfq.weight", weight);
        settings.push(setting.or("io.weight", format!("default {}", converted(weight))));
    }
    for device in io.weight_device().iter().flatten() {
        let of = |weight| of_device(device, weight).unwrap_or_default();
        if let Some(weight) = set(device.weight()) {
            let value = of(Some(weight));
            let setting = Setting::new("blockIO.weightDevice", "io.bfq.weight", value);
            settings.push(setting.or("io.weight", of(Some(converted(weight)))));
        }
    }
    for (field, [_, key], devices) in throttles(io) {
        // Zero is none in version 1.
        let rate = |device: &LinuxThrottleDevice| match device.rate() {
            0 => "max".to_owned(),
            rate => rate.to_string(),
        };
        let value = |device: &LinuxThrottleDevice| {
            format!("{}:{} {key}={}", device.major(), device.minor(), rate(device))
        };
        settings.extend(devices.iter().map(|device| Setting::new(field, "io.max", value(device))));
    }
    Ok(settings)
}

/// Field, [version 1's name, version 2's], devices.
type Throttle<'a> = (&'static str, [&'static str; 2], &'a [LinuxThrottleDevice]);

fn throttles(io: &LinuxBlockIo) -> [Throttle<'_>; 4] {
    [
        (
            "blockIO.throttleReadBpsDevice",
            ["read_bps", "rbps"],
            slice(io.throttle_read_bps_device()),
        ),
        (
            "blockIO.throttleWriteBpsDevice",
            ["write_bps", "wbps"],
            slice(io.throttle_write_bps_device()),
        ),
        (
            "blockIO.throttleReadIOPSDevice",
            ["read_iops", "riops"],
            slice(io.throttle_read_iops_device()),
        ),
        (
            "blockIO.throttleWriteIOPSDevice",
            ["write_iops", "wiops"],
            slice(io.throttle_write_iops_device()),
        ),
    ]
}

fn slice(devices: &Option<Vec<LinuxThrottleDevice>>) -> &[LinuxThrottleDevice] {
    devices.as_deref().unwrap_or_default()
}

fn of_device(device: &LinuxWeightDevice, weight: Option<u16>) -> Option<String> {
    set(weight).map(|weight| format!("{}:{} {weight}", device.major(), device.minor()))
}

/// [10, 1000] onto [1, 10000], as runc documents it.
fn converted(weight: u16) -> u16 {
    let weight = u32::from(weight.clamp(10, 1000));
    // At most 10000.
    (1 + (weight - 10) * 9999 / 990) as u16
}

fn set(weight: Option<u16>) -> Option<u16> {
    weight.filter(|weight| *weight != 0)
}

#[cfg(test)]
mod tests {
    use super::super::Version::{One, Two};
    use super::super::tests::written;
    use super::*;
    use serde_json::json;

    #[test]
    fn weights_are_converted() {
        assert_eq!([10, 500, 1000, 1].map(converted), [1, 4950, 10_000, 1]);
    }

    #[test]
    fn devices_have_their_own() {
        let io = json!({"blockIO": {
            "weight": 100,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 1000}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
        }});
        let expected = [
            "blkio.bfq.weight=100 or blkio.weight=100",
            "blkio.bfq.weight_device=8:0 500 or blkio.weight_device=8:0 500",
            "blkio.throttle.read_bps_device=8:16 1000",
            "blkio.throttle.write_iops_device=8:16 0",
        ];
        assert_eq!(written(One, io.clone()).unwrap(), expected);
        let expected = [
            "io.bfq.weight=100 or io.weight=default 910",
            "io.bfq.weight=8:0 500 or io.weight=8:0 4950",
            "io.max=8:16 rbps=1000",
            "io.max=8:16 wiops=max",
        ];
        assert_eq!(written(Two, io).unwrap(), expected);
        let leaf = json!({"blockIO": {"leafWeight": 100}});
        assert!(written(Two, leaf).unwrap_err().contains("blockIO.leafWeight"));
    }
}
