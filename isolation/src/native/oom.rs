//! Whether the kernel killed a process of an instance for its memory.

use std::fs;
use std::path::PathBuf;

/// Looks into the instance's cgroups, which are still there: `memory.events` (cgroup-v2.rst) or
/// `memory.oom_control` (cgroup-v1/memory.rst).
pub(super) fn has_killed(cgroups: impl IntoIterator<Item = PathBuf>) -> bool {
    let files = cgroups
        .into_iter()
        .flat_map(|cgroup| ["memory.events", "memory.oom_control"].map(|name| cgroup.join(name)));
    files.filter_map(|file| fs::read_to_string(file).ok()).any(|text| {
        text.lines().any(|line| {
            let count = line.strip_prefix("oom_kill ").and_then(|count| count.parse::<u64>().ok());
            count.is_some_and(|count| count > 0)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_cgroups_tell_it() {
        let dir = tempfile::tempdir().unwrap();
        let cgroups = || [dir.path().to_owned()];
        assert!(!has_killed(cgroups()));
        for (name, text, expected) in [
            ("memory.events", "low 0\noom 1\noom_kill 0\n", false),
            ("memory.events", "low 0\noom 1\noom_kill 2\n", true),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", false),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", true),
        ] {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            assert_eq!(has_killed(cgroups()), expected, "{name}: {text}");
            fs::remove_file(file).unwrap();
        }
    }
}
