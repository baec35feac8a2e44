//! Which cgroup hierarchies this host has, and where we are in them.

use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::geteuid;
use procfs::process::Process;

use super::{CgroupError, files};

/// Where systems mount the cgroup tree.
const USUAL_MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The hierarchies of this host.
#[derive(Debug)]
pub(crate) enum Hierarchies {
    /// Version 2 alone. `base`: the cgroup, relative to the mount point, below which the caller makes others.
    V2 { mount_point: PathBuf, base: PathBuf },
    /// Version 1, perhaps with an empty or partial version 2 beside it ("hybrid").
    V1(Vec<Hierarchy>),
    /// No cgroup filesystem is mounted.
    None,
}

/// One hierarchy of a version 1 or hybrid host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// Its controllers, or `name=…`; empty for the version 2 part.
    pub controllers: Vec<String>,
    pub mount_point: PathBuf,
    /// The caller's cgroup in it, relative to the mount point.
    pub own: PathBuf,
}

impl Hierarchy {
    pub(crate) fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether this version 1 hierarchy is that controller's.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|known| known == controller)
    }

    /// Whether this is the version 2 hierarchy, and has that controller.
    pub(super) fn offers(&self, controller: &str) -> bool {
        let offered = || files::read(&self.mount_point, "cgroup.controllers").unwrap_or_default();
        self.is_v2() && offered().split_whitespace().any(|known| known == controller)
    }
}

impl Hierarchies {
    pub(crate) fn detect() -> Result<Self, CgroupError> {
        let unified_only =
            statfs(USUAL_MOUNT_POINT).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
        if unified_only && geteuid().is_root() {
            // The common case, without reading anything.
            return Ok(Hierarchies::V2 {
                mount_point: USUAL_MOUNT_POINT.into(),
                base: PathBuf::new(),
            });
        }
        let process = Process::myself().map_err(unreadable)?;
        let own = process.cgroups().map_err(unreadable)?.0;
        let mut found: Vec<Hierarchy> = Vec::new();
        for mount in process.mountinfo().map_err(unreadable)? {
            let group = match mount.fs_type.as_str() {
                "cgroup2" => own.iter().find(|group| group.hierarchy == 0),
                "cgroup" => own.iter().find(|group| {
                    group.hierarchy != 0
                        && group
                            .controllers
                            .iter()
                            .all(|name| mount.super_options.contains_key(name_key(name)))
                }),
                _ => None,
            };
            let Some(group) = group else { continue };
            let controllers: Vec<String> =
                if group.hierarchy == 0 { Vec::new() } else { group.controllers.clone() };
            if found.iter().any(|known| known.controllers == controllers) {
                continue;
            }
            let own = relative(&group.pathname, &mount.root);
            found.push(Hierarchy { controllers, mount_point: mount.mount_point, own });
        }
        Ok(match found.as_slice() {
            [] => Hierarchies::None,
            [only] if only.is_v2() => {
                Hierarchies::V2 { mount_point: only.mount_point.clone(), base: base(&only.own) }
            }
            _ => Hierarchies::V1(found),
        })
    }
}

/// Root owns the top of the version 2 tree; another user only what was delegated, in which it is itself.
pub(super) fn base(own: &Path) -> PathBuf {
    if geteuid().is_root() { PathBuf::new() } else { own.to_path_buf() }
}

/// A named hierarchy reads `name=systemd` in /proc/self/cgroup and `name` → `systemd` among the mount's options.
fn name_key(controller: &str) -> &str {
    controller.split('=').next().unwrap_or(controller)
}

/// `path` below `root`, the part of the hierarchy that is mounted; the mount point itself if it is elsewhere.
fn relative(path: &str, root: &str) -> PathBuf {
    let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
    below.strip_prefix("/").unwrap_or(below).to_path_buf()
}

fn unreadable(error: procfs::ProcError) -> CgroupError {
    let source = io::Error::other(error);
    CgroupError::Io {
        attempt: "read our own cgroups and mounts from",
        path: "/proc/self".into(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_paths_are_relative_to_what_is_mounted() {
        assert_eq!(relative("/a/b", "/"), Path::new("a/b"));
        assert_eq!(relative("/docker/x/y", "/docker/x"), Path::new("y"));
        assert_eq!(relative("/", "/"), Path::new(""));
        assert_eq!(relative("/elsewhere", "/docker"), Path::new(""));
    }

    #[test]
    fn this_host_has_cgroups_and_we_are_in_them() {
        let hierarchies = match Hierarchies::detect().unwrap() {
            Hierarchies::V1(hierarchies) => hierarchies,
            Hierarchies::V2 { mount_point, base } => {
                assert!(mount_point.join(base).join("cgroup.controllers").exists());
                return;
            }
            Hierarchies::None => panic!("this test needs a mounted cgroup filesystem"),
        };
        for hierarchy in hierarchies {
            let procs = hierarchy.mount_point.join(&hierarchy.own).join("cgroup.procs");
            let pids = std::fs::read_to_string(&procs).unwrap();
            assert!(
                pids.lines().any(|pid| pid == std::process::id().to_string()),
                "{}",
                procs.display()
            );
        }
    }
}
