//! Which namespaces of the host a container shares, and whom its ids stand for.

use std::fmt;
use std::str::FromStr;

use isolab_container::as_root_of_user_namespace;
use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::{
    LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespace, LinuxNamespaceBuilder,
    LinuxNamespaceType, Spec,
};
use serde::{Deserialize, Serialize};

use super::Security;
use super::subordinate::{IdMap, NoRanges, SubordinateIds, single};
use crate::error::IsolationError;
use crate::level::Level;

/// Whom the ids in a container stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UserNamespace {
    /// As root, the host's ids; without root, the caller is root, and the others are of its ranges of /etc/subuid.
    #[default]
    Default,
    /// The same, asked for by name.
    Host,
    /// A user namespace, whose ids are of ranges of /etc/subuid; of root's containers, each has its own.
    Auto,
    /// A user namespace in which the caller has the id that it has on the host.
    KeepId,
}

impl UserNamespace {
    /// podman's word; nothing where none was asked for.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Host => "host",
            Self::Auto => "auto",
            Self::KeepId => "keep-id",
        }
    }
}

impl FromStr for UserNamespace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Default, Self::Host, Self::Auto, Self::KeepId]
            .into_iter()
            .find(|known| known.name() == text)
            .ok_or("expected auto, host or keep-id".to_owned())
    }
}

impl fmt::Display for UserNamespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Security {
    /// The user that the workload is where none is asked for: with its own id kept, the caller.
    pub(crate) fn user_kept(&self, level: Level) -> Option<String> {
        let is_kept = level == Level::Container && self.user_namespace == UserNamespace::KeepId;
        is_kept.then(|| format!("{}:{}", geteuid(), getegid()))
    }
}

pub(super) fn apply(asked: &Security, spec: &mut Spec) -> Result<(), IsolationError> {
    if asked.host_uts {
        // It would be the host's that is renamed.
        spec.set_hostname(None);
    }
    let linux = spec.linux_mut().get_or_insert_default();
    let shared = [
        (asked.host_pid, LinuxNamespaceType::Pid),
        (asked.host_ipc, LinuxNamespaceType::Ipc),
        (asked.host_uts, LinuxNamespaceType::Uts),
    ];
    if let Some(namespaces) = linux.namespaces_mut() {
        namespaces.retain(|namespace| !shared.contains(&(true, namespace.typ())));
    }
    if !geteuid().is_root() {
        let (_, [users, groups]) = maps(asked);
        linux.set_uid_mappings(Some(to_oci(&users)?)).set_gid_mappings(Some(to_oci(&groups)?));
    } else if asked.user_namespace == UserNamespace::Auto {
        // Its ids are found when it is made (`UserIds`), which is each time that it is started.
        let namespace = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::User).build();
        let namespace = namespace.map_err(|error| IsolationError::Setting {
            field: "user namespace",
            why: error.to_string(),
        })?;
        linux.namespaces_mut().get_or_insert_default().push(namespace);
    }
    Ok(())
}

/// Whether the container is to have a user namespace whose ids are still to be found.
pub(crate) fn wants_ids(spec: &Spec) -> bool {
    spec.linux().as_ref().is_some_and(|linux| {
        let is_user = |one: &LinuxNamespace| one.typ() == LinuxNamespaceType::User;
        let has_own = linux.namespaces().iter().flatten().any(is_user);
        has_own && linux.uid_mappings().as_ref().is_none_or(Vec::is_empty)
    })
}

/// Does `work` as root of a user namespace as containers of this caller have it. None where there are no ranges, or it
/// failed.
pub(crate) fn as_root_of_ranges(work: impl FnOnce() -> std::io::Result<()>) -> Option<()> {
    let is_needed = !geteuid().is_root();
    let [users, groups] = SubordinateIds::of_caller().ok().filter(|_| is_needed)?.maps(0, 0);
    as_root_of_user_namespace(&to_oci(&users).ok()?, &to_oci(&groups).ok()?, work).ok()
}

pub(super) fn to_oci(maps: &[IdMap]) -> Result<Vec<LinuxIdMapping>, IsolationError> {
    let one = |map: &IdMap| {
        let mapping = LinuxIdMappingBuilder::default().container_id(map.inside);
        let mapping = mapping.host_id(map.host).size(map.count).build();
        mapping.map_err(|error| IsolationError::Setting {
            field: "user namespace",
            why: error.to_string(),
        })
    };
    maps.iter().map(one).collect()
}

/// The maps of user and group ids of a caller who is not root, and why they are the caller alone, if they are.
fn maps(asked: &Security) -> (Option<NoRanges>, [Vec<IdMap>; 2]) {
    let (caller, group) = (geteuid().as_raw(), getegid().as_raw());
    let (uid, gid) = match asked.user_namespace {
        UserNamespace::KeepId => (caller, group),
        _ => (0, 0),
    };
    match SubordinateIds::of_caller() {
        Ok(ids) => (None, ids.maps(uid, gid)),
        Err(missing) => (Some(missing), [single(uid, caller), single(gid, group)]),
    }
}

/// Those of `wanted` that the process can be given: what nobody asked for by name and cannot be had is left out, as
/// it is to the caller's own programs.
pub(super) fn groups(
    asked: &Security,
    level: Level,
    wanted: &[u32],
) -> Result<Vec<u32>, IsolationError> {
    if level.is_virtual_machine() || geteuid().is_root() {
        return Ok(wanted.to_vec());
    }
    let refused = |why| Err(IsolationError::Setting { field: "groups", why });
    if level == Level::Process {
        return match asked.groups.is_empty() {
            true => Ok(Vec::new()),
            false => refused("without root a plain process has its caller's groups".to_owned()),
        };
    }
    match maps(asked) {
        // The kernel denies setgroups(2) then (user_namespaces(7)).
        (Some(_), _) if asked.groups.is_empty() => Ok(Vec::new()),
        (Some(missing), _) => refused(format!("{}; {}", missing.why, missing.hint)),
        (None, [_, maps]) => match wanted
            .iter()
            .find(|group| !maps.iter().any(|map| has(map.inside, map.count, **group)))
        {
            Some(beyond) => refused(format!("{beyond} is beyond the caller's ranges of ids")),
            None => Ok(wanted.to_vec()),
        },
    }
}

fn has(first: u32, count: u32, id: u32) -> bool {
    id.checked_sub(first).is_some_and(|offset| offset < count)
}

/// Refuses a user or group that the container's user namespace does not have.
pub(crate) fn check_ids(spec: &Spec) -> Result<(), IsolationError> {
    let (Some(process), Some(linux)) = (spec.process(), spec.linux()) else { return Ok(()) };
    let user = process.user();
    for (what, id, maps) in
        [("user", user.uid(), linux.uid_mappings()), ("group", user.gid(), linux.gid_mappings())]
    {
        let Some(maps) = maps else { continue };
        if maps.iter().any(|map| has(map.container_id(), map.size(), id)) {
            continue;
        }
        let why = match SubordinateIds::of_caller() {
            _ if geteuid().is_root() => format!("{what} {id} is beyond the container's ids"),
            Err(missing) => format!(
                "without root a container has no {what} but the caller, and here {}; {}",
                missing.why, missing.hint
            ),
            Ok(_) => format!("{what} {id} is beyond the caller's ranges of ids"),
        };
        return Err(IsolationError::Setting { field: "user", why });
    }
    Ok(())
}
