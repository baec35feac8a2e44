//! cgroups: which version, which controllers, and whether a group can be made.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::Fact;

const ROOT: &str = "/sys/fs/cgroup";
/// The controllers behind --memory, --cpus and --pids-limit.
const NEEDED: [&str; 3] = ["memory", "cpu", "pids"];

pub(super) fn inspect() -> Vec<Fact> {
    let unified = is_cgroup2(Path::new(ROOT));
    let controllers = if unified { v2_controllers() } else { v1_controllers() };
    let version = match (unified, controllers.is_empty()) {
        (true, _) => Ok("version 2".to_owned()),
        (false, true) => Err(format!("nothing is mounted on {ROOT}")),
        (false, false) if is_cgroup2(&Path::new(ROOT).join("unified")) => {
            Ok("version 1, hybrid".to_owned())
        }
        (false, false) => Ok("version 1".to_owned()),
    };
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|needed| !controllers.contains(*needed)).collect();
    let list = controllers.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
    let listed = match missing[..] {
        [] => Ok(list),
        _ => Err(format!("missing {}; there are: {list}", missing.join(" "))),
    };
    let mut facts = vec![
        Fact::new("cgroup", version),
        Fact::new("cgroup controllers", listed),
        Fact::new("cgroup writable", try_to_make_groups(unified)),
    ];
    if unified {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        facts.push(Fact::new("cgroup favordynmods", Ok(favors_moves(&mounts))));
    }
    facts
}

/// KVM_CREATE_VM moves a kernel thread into the caller's cgroups, for which the kernel waits for a
/// grace period of RCU unless it is told to expect such moves (Linux 6.0 and newer,
/// Documentation/admin-guide/cgroup-v2.rst). A hint only: it is the operator's choice, as forks
/// and exits then take a little longer.
fn favors_moves(mounts: &str) -> String {
    let options = mounts.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        (fields.next() == Some(ROOT)).then(|| fields.nth(1)).flatten()
    });
    match options.is_some_and(|options| options.split(',').any(|o| o == "favordynmods")) {
        true => "on".to_owned(),
        false => format!("off; `mount -o remount,favordynmods {ROOT}` makes a VM some ms sooner"),
    }
}

fn is_cgroup2(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC)
}

fn v2_controllers() -> BTreeSet<String> {
    let text = fs::read_to_string(format!("{ROOT}/cgroup.controllers")).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Version 1 mounts each controller, or several joined by commas, in a folder of that name.
fn v1_controllers() -> BTreeSet<String> {
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let mounted = entries.filter(|e| e.path().join("cgroup.procs").exists());
    mounted
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !["systemd", "unified"].contains(&name.as_str()))
        .flat_map(|name| name.split(',').map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

fn try_to_make_groups(unified: bool) -> Result<String, String> {
    let parents: Vec<PathBuf> = if unified {
        vec![PathBuf::from(ROOT)]
    } else {
        NEEDED.iter().map(|controller| Path::new(ROOT).join(controller)).collect()
    };
    for parent in parents {
        let group = parent.join(format!("isolab-check-{}", std::process::id()));
        fs::create_dir(&group)
            .and_then(|()| fs::remove_dir(&group))
            .map_err(|e| format!("make a group in {}: {e}", parent.display()))?;
    }
    Ok("groups can be made".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_the_root_that_is_on_top_count() {
        let line = |options: &str| format!("cgroup2 {ROOT} cgroup2 rw,nosuid{options} 0 0\n");
        let other = "cgroup2 /mnt cgroup2 rw,favordynmods 0 0\n";
        assert_eq!(favors_moves(&(line(",favordynmods") + other)), "on");
        assert!(favors_moves(&(line("") + other)).starts_with("off; "));
        assert!(favors_moves(&(line(",favordynmods") + &line(""))).starts_with("off; "));
        assert!(favors_moves("").starts_with("off; "));
    }
}
