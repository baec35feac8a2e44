//! What a workload may do beyond running: capabilities, system calls, devices, limits, kernel parameters,
//! namespaces of its own or the host's.
//!
//! A request says it in podman's words; [`Security::apply`] puts it into the OCI specification that a level
//! carries out. What a level cannot do is refused before anything is made (`refuse.rs`), never left out.

mod capabilities;
mod device;
pub(crate) mod guest;
mod namespaces;
mod paths;
mod profile;
mod refuse;
mod subordinate;
mod ulimit;
mod user_ids;

use std::collections::{BTreeMap, HashMap};

use isolab_container::default_seccomp;
use nix::unistd::geteuid;
use oci_spec::runtime::{LinuxSeccomp, Process, Spec};
use serde::{Deserialize, Serialize};

pub use self::capabilities::CapabilityChoice;
pub use self::device::Device;
pub use self::namespaces::UserNamespace;
pub(crate) use self::namespaces::{as_root_of_ranges, check_ids, wants_ids};
pub use self::profile::{ProfileError, read_profile};
pub(crate) use self::subordinate::{NoRanges, SubordinateIds};
pub use self::ulimit::Ulimit;
pub use self::user_ids::{UserAndNetwork, UserIds};
use crate::error::IsolationError;
use crate::level::Level;

/// What is asked for beyond, or short of, what a level gives by itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Security {
    /// Nearly all that the host's root may do: every capability and device, no seccomp profile, nothing masked.
    pub privileged: bool,
    /// Capabilities besides the level's own.
    pub cap_add: Vec<CapabilityChoice>,
    /// Capabilities of the level's own that the workload is not to have.
    pub cap_drop: Vec<CapabilityChoice>,
    /// Which system calls may be made.
    pub seccomp: Seccomp,
    /// Whether execve never gives more rights; without it, the level decides.
    pub no_new_privileges: Option<bool>,
    /// The AppArmor profile; `unconfined` is none.
    pub apparmor: Option<String>,
    /// Paths to hide besides the usual ones.
    pub mask: Vec<String>,
    /// Paths of the usual masked and read-only ones that are to be as they are: `ALL`, a path, or `/FOLDER/*`.
    pub unmask: Vec<String>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Resource limits of each process.
    pub ulimits: Vec<Ulimit>,
    /// Kernel parameters, by their names with dots.
    pub sysctls: BTreeMap<String, String>,
    /// How much /dev/shm holds, in bytes.
    pub shm_size: Option<u64>,
    /// Whether a process of ours is the first one, which passes signals on and reaps orphans.
    pub init: bool,
    /// Whom the ids inside stand for.
    pub user_namespace: UserNamespace,
    /// Whether processes are seen and signalled as on the host.
    pub host_pid: bool,
    /// Whether System V objects and message queues are the host's.
    pub host_ipc: bool,
    /// Whether host and domain name are the host's.
    pub host_uts: bool,
    /// Supplementary groups besides the user's, by name or number.
    pub groups: Vec<String>,
    /// File mode creation mask; by default 022.
    pub umask: Option<u32>,
    /// How soon the kernel kills it when memory runs out: -1000 to 1000.
    pub oom_score_adj: Option<i32>,
}

/// Which system calls may be made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Seccomp {
    /// Those of [`default_seccomp`], for the capabilities that there are.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// Those of a file.
    Profile {
        /// Its name, as given.
        path: String,
        /// What was in it when the instance was made, in podman's form.
        content: serde_json::Value,
    },
}

impl Security {
    /// Puts it into `spec`, which has its process already ([`Security::apply_to_process`]).
    pub(crate) fn apply(&self, level: Level, spec: &mut Spec) -> Result<(), IsolationError> {
        let seccomp = match level {
            Level::Container => {
                namespaces::apply(self, spec)?;
                paths::apply(self, spec);
                device::apply(self, spec)?;
                self.seccomp(spec)?
            }
            _ => {
                paths::forget_shm_size(spec);
                paths::set_shm_size(self, spec);
                None
            }
        };
        let linux = spec.linux_mut().get_or_insert_default();
        linux.set_seccomp(seccomp).set_sysctl(self.sysctls());
        Ok(())
    }

    /// Gives the process, which has its user already, its rights and limits; `groups` are the supplementary ones that
    /// are wanted.
    pub(crate) fn apply_to_process(
        &self,
        level: Level,
        groups: &[u32],
        process: &mut Process,
    ) -> Result<(), IsolationError> {
        let new_user_namespace = level == Level::Container && self.has_user_namespace();
        let is_root = process.user().uid() == 0;
        let sets = capabilities::sets(self, level, is_root, new_user_namespace)?;
        let no_new_privileges = match (self.no_new_privileges, level) {
            (Some(asked), _) => asked,
            (None, Level::Container) => !self.privileged,
            // A plain process has what its caller has; a machine has its own root.
            (None, _) => false,
        };
        let limits = ulimit::to_oci(&self.ulimits)?;
        let apparmor = self.apparmor.clone().filter(|name| name != UNCONFINED);
        process
            .set_capabilities(sets)
            .set_no_new_privileges(Some(no_new_privileges))
            .set_rlimits(Some(limits).filter(|limits| !limits.is_empty()))
            .set_oom_score_adj(self.oom_score_adj)
            .set_apparmor_profile(apparmor);
        let groups = namespaces::groups(self, level, groups)?;
        process.user_mut().set_umask(self.umask).set_additional_gids(Some(groups));
        Ok(())
    }

    /// Whether a container has a user namespace of its own.
    pub fn has_user_namespace(&self) -> bool {
        !geteuid().is_root() || self.user_namespace == UserNamespace::Auto
    }

    fn seccomp(&self, spec: &Spec) -> Result<Option<LinuxSeccomp>, IsolationError> {
        let process = spec.process().as_ref();
        let sets = process.and_then(|process| process.capabilities().as_ref());
        let none = Default::default();
        let bounding = sets.and_then(|sets| sets.bounding().as_ref()).unwrap_or(&none);
        match &self.seccomp {
            Seccomp::Default if self.privileged => Ok(None),
            Seccomp::Default => Ok(Some(default_seccomp(bounding)?)),
            Seccomp::Unconfined => Ok(None),
            Seccomp::Profile { path, content } => {
                let profile = profile::to_oci(content, bounding);
                profile.map(Some).map_err(|error| IsolationError::Setting {
                    field: "seccomp",
                    why: format!("{path}: {error}"),
                })
            }
        }
    }

    fn sysctls(&self) -> Option<HashMap<String, String>> {
        let all = || self.sysctls.iter().map(|(name, value)| (name.clone(), value.clone()));
        (!self.sysctls.is_empty()).then(|| all().collect())
    }

    /// The options of podman's `--security-opt` that say the same.
    pub fn security_options(&self) -> Vec<String> {
        let mut options = Vec::new();
        match &self.seccomp {
            Seccomp::Default => {}
            Seccomp::Unconfined => options.push("seccomp=unconfined".to_owned()),
            Seccomp::Profile { path, .. } => options.push(format!("seccomp={path}")),
        }
        options.extend(self.no_new_privileges.map(|on| format!("no-new-privileges:{on}")));
        options.extend(self.apparmor.iter().map(|name| format!("apparmor={name}")));
        for (name, paths) in [("mask", &self.mask), ("unmask", &self.unmask)] {
            if !paths.is_empty() {
                options.push(format!("{name}={}", paths.join(":")));
            }
        }
        options
    }
}

/// What podman calls the absence of a profile.
pub const UNCONFINED: &str = "unconfined";
