//! Processes and those that descend from them.

use std::collections::BTreeSet;

use procfs::{ProcResult, process};

/// `roots` and all their descendants, without some and theirs. A process of ours that lost its parent is a child of
/// this one, see [`crate::leftovers::adopt`].
///
/// # Errors
/// There is no /proc.
pub fn of(roots: &[i32], without: &[u32]) -> ProcResult<BTreeSet<i32>> {
    // Who has ended meanwhile has no descendants.
    let all = process::all_processes()?.filter_map(|process| process.ok()?.stat().ok());
    Ok(among(all.map(|stat| (stat.pid, stat.ppid)).collect(), roots, without))
}

/// Among pairs of a process and its parent.
fn among(mut others: Vec<(i32, i32)>, roots: &[i32], without: &[u32]) -> BTreeSet<i32> {
    let mut family: BTreeSet<i32> = roots.iter().copied().collect();
    others.retain(|(pid, _)| !without.contains(&pid.cast_unsigned()));
    loop {
        let (children, rest): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(_, parent)| family.contains(parent));
        if children.is_empty() {
            return family;
        }
        family.extend(children.into_iter().map(|(pid, _)| pid));
        others = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_all_of_it_but_who_is_left_out() {
        let processes = vec![(5, 4), (3, 2), (2, 1), (4, 3), (9, 8), (8, 1), (7, 6)];
        let all = among(processes.clone(), &[1, 6], &[]);
        assert_eq!(all, BTreeSet::from([1, 2, 3, 4, 5, 6, 7, 8, 9]));
        assert_eq!(among(processes, &[1], &[3]), BTreeSet::from([1, 2, 8, 9]));
    }
}
