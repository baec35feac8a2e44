//! `linux.sysctl`: which are a container's own, and where they are written.

use std::ffi::CString;

use nix::sched::CloneFlags;
use oci_spec::runtime::Linux;

use crate::error::{Error, Result};
use crate::namespaces::Namespaces;

/// (path below /proc/sys of the host, value), for those of a namespace that the container has to itself: all others are
/// the host's.
pub(crate) fn plan(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(CString, CString)>> {
    let one = |(key, value): (&String, &String)| {
        let invalid = |problem: &str| Error::invalid(format!("linux.sysctl {key}"), problem);
        let owner = owner(key).ok_or_else(|| invalid("is not namespaced"))?;
        if !namespaces.has(owner) {
            return Err(invalid("would change the host: the namespace is not the container's own"));
        }
        let path = path(key);
        if path.split('/').any(|part| part == "..") {
            return Err(invalid("must not contain `..`"));
        }
        let text = |text: &str| CString::new(text).map_err(|_| invalid("contains a NUL byte"));
        Ok((text(&path)?, text(value)?))
    };
    linux.sysctl().iter().flatten().map(one).collect()
}

fn path(key: &str) -> String {
    format!("/proc/sys/{}", sysctl_path(key))
}

/// The file of a kernel parameter, below /proc/sys; sysctl(8): dots separate, and slashes stand for dots in names, or the
/// other way round, which the first separator tells.
pub fn sysctl_path(key: &str) -> String {
    let slashes_separate = key.find(['.', '/']).is_some_and(|at| key[at..].starts_with('/'));
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        c => c,
    };
    if slashes_separate { key.to_owned() } else { key.chars().map(swap).collect() }
}

/// The kind of namespace that has its own value; None: the value is the whole host's.
fn owner(key: &str) -> Option<CloneFlags> {
    let key = key.replace('/', ".");
    let ipc = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    if key.starts_with("net.") {
        Some(CloneFlags::CLONE_NEWNET)
    } else if ipc.contains(&key.as_str()) || key.starts_with("fs.mqueue.") {
        Some(CloneFlags::CLONE_NEWIPC)
    } else if key == "kernel.domainname" || key == "kernel.hostname" {
        Some(CloneFlags::CLONE_NEWUTS)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaced_sysctls() {
        assert_eq!(owner("net.ipv4.ip_forward"), Some(CloneFlags::CLONE_NEWNET));
        assert_eq!(owner("net/ipv4/ip_forward"), Some(CloneFlags::CLONE_NEWNET));
        assert_eq!(owner("kernel.shmmax"), Some(CloneFlags::CLONE_NEWIPC));
        assert_eq!(owner("kernel.panic"), None);
        assert_eq!(owner("vm.swappiness"), None);
    }

    #[test]
    fn both_ways_of_writing_a_key_lead_to_one_file() {
        let forwarding = "/proc/sys/net/ipv4/conf/eth0.5/forwarding";
        assert_eq!(path("net/ipv4/conf/eth0.5/forwarding"), forwarding);
        assert_eq!(path("net.ipv4.conf.eth0/5.forwarding"), forwarding);
    }
}
