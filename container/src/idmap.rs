//! User and group id maps of a user namespace.

use std::fs;

use nix::unistd::Pid;
use oci_spec::runtime::LinuxIdMapping;

use crate::error::{Error, Result};

/// The maps, in the format of `/proc/PID/uid_map`.
#[derive(Debug)]
pub(crate) struct IdMaps {
    uid: String,
    gid: String,
    /// The caller may not map more than itself, and only with setgroups denied (user_namespaces(7)).
    unprivileged: bool,
}

impl IdMaps {
    pub(crate) fn new(
        uid: &[LinuxIdMapping],
        gid: &[LinuxIdMapping],
        unprivileged: bool,
    ) -> Result<Self> {
        if uid.is_empty() || gid.is_empty() {
            let problem = "a new user namespace needs linux.uidMappings and linux.gidMappings";
            return Err(Error::invalid("linux.uidMappings", problem));
        }
        Ok(IdMaps { uid: format(uid), gid: format(gid), unprivileged })
    }

    pub(crate) fn denies_setgroups(&self) -> bool {
        self.unprivileged
    }

    /// Writes the maps of a process that waits in its new user namespace.
    pub(crate) fn write(&self, pid: Pid) -> Result<()> {
        let write = |file: &str, text: &str| {
            let path = format!("/proc/{pid}/{file}");
            let hint = "an unprivileged caller may map only its own uid and gid";
            fs::write(&path, text)
                .map_err(|source| Error::host(format!("write {text:?} to {path} ({hint})"), source))
        };
        if self.unprivileged {
            write("setgroups", "deny")?;
        }
        write("uid_map", &self.uid)?;
        write("gid_map", &self.gid)
    }
}

fn format(mappings: &[LinuxIdMapping]) -> String {
    let line =
        |map: &LinuxIdMapping| format!("{} {} {}\n", map.container_id(), map.host_id(), map.size());
    mappings.iter().map(line).collect()
}
