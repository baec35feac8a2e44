//! What a caller who is not root is given by the host's administrator: ranges of ids for its containers.

use nix::unistd::geteuid;

use super::Fact;
use crate::security::{NoRanges, SubordinateIds};

/// Nothing for root, which needs none. Else what was found, and what containers are without.
pub(super) fn id_ranges() -> Option<(Fact, Option<String>)> {
    if geteuid().is_root() {
        return None;
    }
    let found = SubordinateIds::of_caller();
    let without = found
        .as_ref()
        .err()
        .map(|NoRanges { why, hint }| format!("users but its root: {why}; {hint}"));
    let told = found.map_err(|missing| missing.why).map(|ids| {
        let [users, groups] = [&ids.users, &ids.groups]
            .map(|ranges| ranges.iter().map(|range| u64::from(range.count)).sum::<u64>());
        format!("{users} users and {groups} groups of ranges")
    });
    Some((Fact::new("ids of /etc/subuid", told), without))
}
