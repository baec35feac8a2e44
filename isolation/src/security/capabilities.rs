//! Which capabilities a workload has: the level's own, with what is added and without what is dropped.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use isolab_container::{DEFAULT_CAPABILITIES, available_capabilities};
use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use serde::{Deserialize, Serialize};

use super::Security;
use crate::error::IsolationError;
use crate::level::Level;

/// One capability, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum CapabilityChoice {
    /// All that there are.
    All,
    /// This one.
    One(Capability),
}

impl FromStr for CapabilityChoice {
    type Err = String;

    /// In any case, with or without `CAP_`, as podman takes it.
    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match name {
            "ALL" => Ok(Self::All),
            name => name.parse().map(Self::One).map_err(|_| {
                format!(
                    "`{text}` is no capability; capabilities(7) has them, for example NET_ADMIN"
                )
            }),
        }
    }
}

impl TryFrom<String> for CapabilityChoice {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<CapabilityChoice> for String {
    fn from(choice: CapabilityChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for CapabilityChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("ALL"),
            Self::One(capability) => write!(f, "CAP_{capability}"),
        }
    }
}

/// The sets of the first process. None leaves what the caller, or at the VM levels root, has.
///
/// As in podman, a user other than root has only what is added by name, and keeps it across execve.
pub(super) fn sets(
    asked: &Security,
    level: Level,
    is_root: bool,
    new_user_namespace: bool,
) -> Result<Option<LinuxCapabilities>, IsolationError> {
    let (add, drop) = (&asked.cap_add, &asked.cap_drop);
    if level != Level::Container && add.is_empty() && drop.is_empty() {
        return Ok(None);
    }
    if let Some(both) = add.iter().find(|choice| drop.contains(choice)) {
        return Err(setting(format!("{both} is both added and dropped")));
    }
    let all = match level {
        Level::Process | Level::Container => available_capabilities(new_user_namespace)?,
        // The guest's own: its kernel leaves out what it does not know.
        Level::Paravirt | Level::Fullvirt => available_capabilities(true)?,
    };
    let of_level = match level {
        Level::Container if !asked.privileged => DEFAULT_CAPABILITIES.into_iter().collect(),
        _ => all.clone(),
    };
    let bounding = combine(of_level, &all, add, drop);
    let none = Capabilities::new();
    let ambient = match is_root {
        true => none.clone(),
        false => combine(none.clone(), &none, add, &[]),
    };
    let permitted = if is_root { bounding.clone() } else { ambient.clone() };
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(bounding))
        .set_effective(Some(permitted.clone()))
        .set_permitted(Some(permitted))
        .set_inheritable(Some(ambient.clone()))
        .set_ambient(Some(ambient));
    Ok(Some(sets))
}

fn combine(
    of_level: Capabilities,
    all: &Capabilities,
    add: &[CapabilityChoice],
    drop: &[CapabilityChoice],
) -> Capabilities {
    let named = |choices: &[CapabilityChoice]| -> HashSet<Capability> {
        let one = |choice: &CapabilityChoice| match choice {
            CapabilityChoice::All => None,
            CapabilityChoice::One(capability) => Some(*capability),
        };
        choices.iter().filter_map(one).collect()
    };
    let mut set =
        match (add.contains(&CapabilityChoice::All), drop.contains(&CapabilityChoice::All)) {
            (_, true) => Capabilities::new(),
            (true, false) => all.clone(),
            (false, false) => of_level,
        };
    set.extend(named(add));
    &set - &named(drop)
}

fn setting(why: String) -> IsolationError {
    IsolationError::Setting { field: "capabilities", why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices(text: &str) -> Vec<CapabilityChoice> {
        text.split_whitespace().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn names_are_podman_s() {
        for name in ["NET_ADMIN", "cap_net_admin", "Cap_Net_Admin"] {
            let choice: CapabilityChoice = name.parse().unwrap();
            assert_eq!(choice, CapabilityChoice::One(Capability::NetAdmin));
            assert_eq!(String::from(choice), "CAP_NET_ADMIN");
        }
        assert_eq!("all".parse(), Ok(CapabilityChoice::All));
        for bad in ["", "CAP_", "NET-ADMIN", "CAP_CAP_CHOWN", "NONE"] {
            assert!(bad.parse::<CapabilityChoice>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_added_and_dropped_is_combined_as_in_podman() {
        use Capability::{Chown, Kill, NetAdmin, SysAdmin};
        let all = Capabilities::from([Chown, Kill, NetAdmin, SysAdmin]);
        let of_level = Capabilities::from([Chown, Kill]);
        for (add, drop, expected) in [
            ("", "", vec![Chown, Kill]),
            ("NET_ADMIN", "KILL", vec![Chown, NetAdmin]),
            ("ALL", "", vec![Chown, Kill, NetAdmin, SysAdmin]),
            ("ALL", "SYS_ADMIN", vec![Chown, Kill, NetAdmin]),
            ("", "ALL", vec![]),
            ("CHOWN", "ALL", vec![Chown]),
        ] {
            let set = combine(of_level.clone(), &all, &choices(add), &choices(drop));
            assert_eq!(set, expected.into_iter().collect(), "+{add} -{drop}");
        }
    }

    #[test]
    fn a_user_has_what_is_added_by_name_only() {
        let asked = Security { cap_add: choices("NET_ADMIN"), ..Security::default() };
        let sets = sets(&asked, Level::Container, false, true).unwrap().unwrap();
        let added = Some(Capabilities::from([Capability::NetAdmin]));
        for set in [sets.effective(), sets.permitted(), sets.inheritable(), sets.ambient()] {
            assert_eq!(*set, added);
        }
        assert_eq!(sets.bounding().as_ref().unwrap().len(), DEFAULT_CAPABILITIES.len() + 1);
    }
}
