//! Whom isolab is measured beside: a file each, and one table of them.

mod cloud_hypervisor;
mod crosvm;
mod crun;
pub(super) mod firecracker;
mod kata;
mod kvmtool;
pub mod podman;
pub mod qemu;
mod runc;
mod youki;

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::machine::Machine;

/// All that there are, in the order of the tables.
static ALL: [&Adapter; 11] = [
    &runc::RUNC,
    &crun::CRUN,
    &youki::YOUKI,
    &podman::PODMAN,
    &kata::KATA,
    &qemu::QEMU,
    &qemu::TCG,
    &firecracker::FIRECRACKER,
    &cloud_hypervisor::CLOUD_HYPERVISOR,
    &kvmtool::KVMTOOL,
    &crosvm::CROSVM,
];

/// How a peer is found and used.
#[derive(Debug)]
struct Adapter {
    name: &'static str,
    /// Its executable, by any of these names, on PATH.
    programs: &'static [&'static str],
    role: Role,
}

/// What a peer is.
#[derive(Debug)]
enum Role {
    /// A container runtime with runc's command line.
    Runtime,
    /// A container engine with a store of images.
    Engine,
    /// A shim of containerd's, which has a machine for each container.
    Shim(&'static Shim),
    /// A virtual machine monitor. The first of its machines is the one that starts the quickest.
    Machines(&'static [&'static Machine]),
}

/// How containerd reaches a runtime.
#[derive(Debug)]
pub struct Shim {
    /// containerd's name for it.
    pub runtime: &'static str,
    /// What tells it how many MiB of RAM a guest has: annotations, each a name and its value.
    pub memory: fn(u64) -> Vec<String>,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Peer(&'static Adapter);

/// All peers.
pub fn all() -> impl Iterator<Item = Peer> {
    ALL.into_iter().map(Peer)
}

impl Peer {
    /// What the operator calls it.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Whether it is a container runtime with runc's command line.
    pub fn is_runtime(self) -> bool {
        matches!(self.0.role, Role::Runtime)
    }

    /// Whether it is a container engine with a store of images.
    pub fn is_engine(self) -> bool {
        matches!(self.0.role, Role::Engine)
    }

    /// How containerd reaches it, where it is a shim of containerd's.
    pub fn shim(self) -> Option<&'static Shim> {
        match self.0.role {
            Role::Shim(shim) => Some(shim),
            Role::Runtime | Role::Engine | Role::Machines(_) => None,
        }
    }

    /// Its machines, the quickest first; none where it is no virtual machine monitor.
    pub fn machines(self) -> &'static [&'static Machine] {
        match self.0.role {
            Role::Machines(machines) => machines,
            Role::Runtime | Role::Engine | Role::Shim(_) => &[],
        }
    }

    /// The machine that starts the quickest.
    pub fn lightest(self) -> Option<&'static Machine> {
        self.machines().first().copied()
    }

    /// Where its executable is.
    ///
    /// # Errors
    /// It is nowhere on PATH.
    pub fn program(self) -> Result<PathBuf, String> {
        let found = find(&env::var_os("PATH").unwrap_or_default(), self.0.programs);
        found.ok_or_else(|| format!("no {} on PATH", self.0.programs.join(" or ")))
    }
}

impl PartialEq for Peer {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Peer {}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        all().find(|peer| peer.name() == text).ok_or_else(|| {
            let names: Vec<&str> = all().map(Peer::name).collect();
            format!("unknown peer `{text}`; there are {}", names.join(", "))
        })
    }
}

fn find(path: &OsStr, programs: &[&str]) -> Option<PathBuf> {
    let mut candidates = env::split_paths(path)
        .flat_map(|folder| programs.iter().map(move |program| folder.join(program)));
    candidates.find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    #[test]
    fn names_are_read_back_and_unlike() {
        for peer in all() {
            assert_eq!(peer.to_string().parse(), Ok(peer));
            assert!(peer.machines().iter().all(|it| it.peer == Some(peer.name())), "{peer}");
            let is_machine = peer.lightest().is_some();
            let roles = [peer.is_runtime(), peer.is_engine(), peer.shim().is_some(), is_machine];
            assert_eq!(roles.into_iter().filter(|is| *is).count(), 1, "{peer}");
        }
        let error = "xen".parse::<Peer>().unwrap_err();
        assert!(error.contains("crun") && error.contains("cloud-hypervisor"), "{error}");
        assert_eq!(all().map(Peer::name).collect::<BTreeSet<_>>().len(), ALL.len());
    }

    #[test]
    fn any_of_its_names_is_found() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(dir.path().as_os_str(), &["a", "b"]), None);
        fs::write(dir.path().join("b"), "").unwrap();
        assert_eq!(find(dir.path().as_os_str(), &["a", "b"]), Some(dir.path().join("b")));
    }
}
