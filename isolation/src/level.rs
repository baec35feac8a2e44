//! The four levels of isolation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far a workload is kept apart from the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A plain host process in the image's root file system (chroot): the baseline.
    Process,
    /// An OCI container: namespaces, cgroups, pivot_root, reduced capabilities.
    Container,
    /// A virtual machine with KVM's paravirtual features: the guest knows it is one.
    Paravirt,
    /// A virtual machine with emulated hardware only: the guest sees an ordinary PC.
    Fullvirt,
}

/// A word that names no level.
#[derive(Debug, thiserror::Error)]
#[error("no isolation level `{0}`; there are process, container, paravirt and fullvirt")]
pub struct UnknownLevel(String);

impl Level {
    /// All levels, the least isolated first.
    pub const ALL: [Level; 4] =
        [Level::Process, Level::Container, Level::Paravirt, Level::Fullvirt];

    /// The level's name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Level::Process => "process",
            Level::Container => "container",
            Level::Paravirt => "paravirt",
            Level::Fullvirt => "fullvirt",
        }
    }

    /// Whether the level runs a guest kernel of its own.
    pub fn is_virtual_machine(self) -> bool {
        matches!(self, Level::Paravirt | Level::Fullvirt)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = UnknownLevel;

    fn from_str(word: &str) -> Result<Self, UnknownLevel> {
        Level::ALL
            .into_iter()
            .find(|level| level.name() == word)
            .ok_or_else(|| UnknownLevel(word.to_owned()))
    }
}
