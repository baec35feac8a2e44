//! External programs that parts of isolab, its benchmarks and its scripts use.

use std::env;
use std::path::PathBuf;

use super::Fact;

const TOOLS: [(&str, &str); 11] = [
    ("qemu-system-x86_64", "emulated KVM host; peer"),
    ("runc", "peer"),
    ("crun", "peer"),
    ("firecracker", "peer"),
    ("cloud-hypervisor", "peer"),
    ("mke2fs", "paravirt, fullvirt"),
    ("mkfs.erofs", "paravirt, fullvirt"),
    ("mmdebstrap", "images from Debian packages"),
    ("ip", "networks"),
    ("nft", "networks"),
    ("newuidmap", "users in containers without root"),
];

/// The programs that make the disks of the VM levels, and the Debian packages they are in.
const DISK_TOOLS: [(&str, &str); 2] = [("mke2fs", "e2fsprogs"), ("mkfs.erofs", "erofs-utils")];

/// Why the VM levels would have no disks, and the hint.
pub(super) fn no_disks() -> Option<(String, String)> {
    let (tool, package) = DISK_TOOLS.into_iter().find(|(tool, _)| find_on_path(tool).is_none())?;
    Some((format!("{tool} is not on PATH"), format!("install Debian's package {package}")))
}

/// One fact a tool. Only those of [`no_disks`] decide about a level.
pub(super) fn inspect() -> Vec<Fact> {
    let find = |(tool, used_for): (&str, &str)| {
        let result = match find_on_path(tool) {
            Some(path) => Ok(path.display().to_string()),
            None => Err(format!("not on PATH (used for: {used_for})")),
        };
        Fact::new(format!("tool {tool}"), result)
    };
    TOOLS.into_iter().map(find).collect()
}

fn find_on_path(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|dir| dir.join(tool)).find(|file| file.is_file())
}
