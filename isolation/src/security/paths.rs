//! Paths of /proc and /sys that are hidden or read-only, and how much /dev/shm holds.

use std::path::Path;

use oci_spec::runtime::{Mount, Spec};

use super::Security;

/// What podman unmasks everything by.
const ALL: &str = "ALL";

pub(super) fn apply(asked: &Security, spec: &mut Spec) {
    let privileged = asked.privileged;
    if let Some(linux) = spec.linux_mut() {
        let is_kept = |path: &String| {
            !privileged && !asked.unmask.iter().any(|pattern| matches(pattern, path))
        };
        linux.masked_paths_mut().get_or_insert_default().retain(is_kept);
        linux.readonly_paths_mut().get_or_insert_default().retain(is_kept);
        linux.masked_paths_mut().get_or_insert_default().extend(asked.mask.iter().cloned());
    }
    for mount in spec.mounts_mut().iter_mut().flatten().filter(|_| privileged) {
        if mount.destination().starts_with("/sys")
            && let Some(options) = mount.options_mut()
        {
            options.retain(|option| option != "ro");
        }
    }
    set_shm_size(asked, spec);
}

/// On the mount of /dev/shm.
pub(super) fn set_shm_size(asked: &Security, spec: &mut Spec) {
    let Some(size) = asked.shm_size else { return };
    let mounts = spec.mounts_mut().iter_mut().flatten();
    for options in mounts.filter(is_shm).filter_map(|mount| mount.options_mut().as_mut()) {
        options.retain(|option| !option.starts_with(SIZE));
        options.push(format!("{SIZE}{size}"));
    }
}

/// A guest's /dev/shm holds what its kernel says, unless it is asked for.
pub(super) fn forget_shm_size(spec: &mut Spec) {
    let mounts = spec.mounts_mut().iter_mut().flatten();
    for options in mounts.filter(is_shm).filter_map(|mount| mount.options_mut().as_mut()) {
        options.retain(|option| !option.starts_with(SIZE));
    }
}

/// What [`set_shm_size`] set.
pub(super) fn shm_size(spec: &Spec) -> Option<u64> {
    let shm = spec.mounts().iter().flatten().find(|it| it.destination() == Path::new(SHM))?;
    let size = shm.options().iter().flatten().find_map(|option| option.strip_prefix(SIZE))?;
    size.parse().ok()
}

const SHM: &str = "/dev/shm";
const SIZE: &str = "size=";

fn is_shm(mount: &&mut Mount) -> bool {
    mount.destination() == Path::new(SHM)
}

/// `ALL`, the path itself, or `/FOLDER/*` for what is right below that folder.
fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(folder) => path.strip_prefix(folder).is_some_and(|rest| !rest.contains('/')),
        None => pattern == ALL || pattern == path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        assert!(matches("ALL", "/proc/keys") && matches("/proc/keys", "/proc/keys"));
        assert!(matches("/proc/*", "/proc/keys") && !matches("/proc/*", "/proc/sys/kernel"));
        assert!(!matches("/proc", "/proc/keys") && !matches("/sys/*", "/proc/keys"));
    }
}
