//! External programs that parts of isolab, its benchmarks and its scripts use.

use std::env;
use std::path::PathBuf;

use super::Fact;

const TOOLS: [(&str, &str); 10] = [
    ("qemu-system-x86_64", "emulated KVM host; peer"),
    ("runc", "peer"),
    ("crun", "peer"),
    ("firecracker", "peer"),
    ("cloud-hypervisor", "peer"),
    ("mke2fs", "disk images"),
    ("mkfs.erofs", "disk images"),
    ("mmdebstrap", "images from Debian packages"),
    ("ip", "networks"),
    ("nft", "networks"),
];

/// One fact a tool. None is needed for `isolab run`, so none decides about a level.
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
