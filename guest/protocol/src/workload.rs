//! The OCI process that init starts.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// The part of the OCI runtime specification's `process` object that holds inside a machine of
/// its own, under the specification's names, and what that machine needs around it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// The command; the first is looked up in PATH as execvp does.
    pub args: Vec<String>,
    /// `NAME=value`, the whole environment.
    pub env: Vec<String>,
    /// Absolute working directory.
    pub cwd: String,
    /// The user, group and supplementary groups that the workload runs as.
    pub user: User,
    /// The guest's host name.
    pub hostname: String,
    /// Kernel modules to load first, as paths in the initramfs, in this order.
    pub modules: Vec<String>,
    /// The root file system.
    pub root: RootDisks,
    /// How the network controller is set up, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Interface>,
    /// Files of /etc that are this instance's own, whatever the image has.
    #[serde(default)]
    pub name_files: Vec<NameFile>,
    /// Whether the host sends standard input; otherwise it is at its end from the start.
    pub stdin: bool,
}

/// The disks that make up the root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootDisks {
    /// What the two disks may be called in this guest. Drivers that probe in parallel name them in
    /// any order; their file systems tell which is which.
    pub devices: Vec<String>,
    /// The file system of the disk that holds the image, mounted read-only.
    pub image: String,
    /// The file system of the disk that takes the workload's writes.
    pub scratch: String,
}

/// A file that says what names mean, such as /etc/hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFile {
    /// Its name in /etc.
    pub name: String,
    /// What is in it.
    pub content: String,
}

/// The guest's end of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The guest's address.
    pub address: Ipv4Addr,
    /// How many of its bits are the network's, 0 to 32.
    pub prefix: u8,
    /// Where what is not for this network goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}

impl Interface {
    /// The prefix as a mask.
    pub fn netmask(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0))
    }
}

/// `process.user` of the OCI runtime specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    #[serde(default)]
    pub additional_gids: Vec<u32>,
    /// File mode creation mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
}

impl User {
    /// Whether an id is -1, which to setresuid(2) and setresgid(2) means that nothing changes.
    pub fn is_unset(&self) -> bool {
        [self.uid, self.gid].iter().chain(&self.additional_gids).any(|id| *id == u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_minus_one_is_found_wherever_it_is() {
        let user = |uid, gid, additional_gids| User { uid, gid, additional_gids, umask: None };
        assert!(!user(u32::MAX - 1, 0, vec![5]).is_unset());
        assert!(user(u32::MAX, 0, vec![]).is_unset());
        assert!(user(0, u32::MAX, vec![]).is_unset());
        assert!(user(0, 0, vec![5, u32::MAX]).is_unset());
    }
}
