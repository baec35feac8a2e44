//! `linux.resources`: pids, hugepageLimits, rdma, network.

use oci_spec::runtime::LinuxResources;

use super::{CgroupError, Setting, Settings, or_max, set};

/// pids.rst; the same in both versions.
pub(super) fn pids(resources: &LinuxResources) -> Settings {
    let limit = resources.pids().as_ref().and_then(|pids| set(Some(pids.limit())));
    Ok(limit.map(|limit| Setting::new("pids", "pids.max", or_max(limit))).into_iter().collect())
}

/// hugetlb.rst.
pub(super) fn huge_pages_1(resources: &LinuxResources) -> Settings {
    huge_pages(resources, "limit_in_bytes")
}

/// cgroup-v2.rst, "HugeTLB".
pub(super) fn huge_pages_2(resources: &LinuxResources) -> Settings {
    huge_pages(resources, "max")
}

/// What is reserved counts as well, where the kernel counts it (5.7 and newer): a mapping beyond the limit fails at
/// mmap, and does not end in SIGBUS.
fn huge_pages(resources: &LinuxResources, file: &str) -> Settings {
    let mut settings = Vec::new();
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, value) = (limit.page_size(), limit.limit());
        // It becomes a part of a file's name.
        if !size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let problem = "a page size is a number and its unit, as in 2MB";
            return Err(CgroupError::Invalid { field: "hugepageLimits", problem });
        }
        let setting =
            |name: &str| Setting::new("hugepageLimits", format!("hugetlb.{size}.{name}"), value);
        settings.push(setting(file));
        settings.push(setting(&format!("rsvd.{file}")).optional(true));
    }
    Ok(settings)
}

/// rdma.rst; the same in both versions.
pub(super) fn rdma(resources: &LinuxResources) -> Settings {
    let mut settings = Vec::new();
    for (device, limits) in resources.rdma().iter().flatten() {
        let words = [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())];
        let words = words.iter().filter_map(|(key, limit)| Some(format!(" {key}={}", (*limit)?)));
        let value = format!("{device}{}", words.collect::<String>());
        settings.push(Setting::new("rdma", "rdma.max", value));
    }
    Ok(settings)
}

/// net_cls.rst.
pub(super) fn network_class(resources: &LinuxResources) -> Settings {
    let class = resources.network().as_ref().and_then(|network| network.class_id());
    let class = class.filter(|class| *class != 0);
    let setting = |class| Setting::new("network.classID", "net_cls.classid", class);
    Ok(class.map(setting).into_iter().collect())
}

/// net_prio.rst.
pub(super) fn network_priorities(resources: &LinuxResources) -> Settings {
    let network = resources.network().as_ref();
    let priorities = network.and_then(|network| network.priorities().as_deref());
    let setting = |one: &oci_spec::runtime::LinuxInterfacePriority| {
        let value = format!("{} {}", one.name(), one.priority());
        Setting::new("network.priorities", "net_prio.ifpriomap", value)
    };
    Ok(priorities.unwrap_or_default().iter().map(setting).collect())
}

pub(super) fn no_network_class(resources: &LinuxResources) -> Settings {
    refuse(network_class(resources)?)
}

pub(super) fn no_network_priorities(resources: &LinuxResources) -> Settings {
    refuse(network_priorities(resources)?)
}

fn refuse(settings: Vec<Setting>) -> Settings {
    match settings.first() {
        Some(Setting { field, .. }) => Err(CgroupError::Unsupported {
            field,
            on: "on cgroup v2, where firewalls match cgroups",
        }),
        None => Ok(settings),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Version::{One, Two};
    use super::super::tests::written;
    use serde_json::json;

    #[test]
    fn each_version_has_its_words() {
        let resources = json!({
            "pids": {"limit": -1},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4096}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}},
        });
        let expected = [
            "pids.max=max",
            "hugetlb.2MB.limit_in_bytes=4096",
            "hugetlb.2MB.rsvd.limit_in_bytes=4096",
            "rdma.max=mlx5_1 hca_handle=3 hca_object=10",
        ];
        assert_eq!(written(One, resources.clone()).unwrap(), expected);
        let expected = expected.map(|line| line.replace("limit_in_bytes", "max"));
        assert_eq!(written(Two, resources).unwrap(), expected);
        let path = json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]});
        assert!(written(Two, path).unwrap_err().contains("hugepageLimits"));
        let network =
            json!({"network": {"classID": 7, "priorities": [{"name": "lo", "priority": 2}]}});
        let expected = ["net_cls.classid=7", "net_prio.ifpriomap=lo 2"];
        assert_eq!(written(One, network.clone()).unwrap(), expected);
        assert!(written(Two, network).unwrap_err().contains("network.classID"));
    }
}
