//! What somebody without root has: other users in their containers, by ranges of /etc/subuid.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use isolab_tests::{Done, Run, busybox_layout, instances_in, text, user_mode};
use serde_json::Value;

use super::{program_of_nobody, tool};

const NOBODY: &str = "65534";

/// A home of nobody's with an image; beside it what its /etc/subuid is to be.
struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    fn new(has_ranges: bool) -> Self {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let home = Self { folder };
        let ranges = if has_ranges { "nobody:700000:2000\n" } else { "" };
        fs::write(home.path().join("ranges"), ranges).unwrap();
        let layout = home.path().join("layout");
        tool("cp", &["-r", text(&busybox_layout()), text(&layout)]);
        tool("chown", &["-R", "65534:65534", text(home.path())]);
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        home.isolab(&["image", "load", text(&layout)]).success();
        home
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    /// As nobody, in a mount namespace whose /etc has the ranges.
    fn isolab(&self, arguments: &[&str]) -> Done {
        let script = "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && exec setpriv \
                      --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(self.path().join("ranges"))
            .arg(program_of_nobody())
            .args(arguments)
            .env("HOME", self.path())
            .env_remove("XDG_DATA_HOME");
        Run::new(command).finish()
    }

    fn run(&self, options: &[&str], script: &str) -> Done {
        let words =
            [&["run", "--pull", "never"], options, &["busybox", "sh", "-c", script]].concat();
        self.isolab(&words)
    }

    fn report(&self) -> Value {
        serde_json::from_str(&self.isolab(&["check", "--format", "json"]).stdout).unwrap()
    }
}

fn container(report: &Value) -> &Value {
    let levels = report["levels"].as_array().unwrap();
    levels.iter().find(|level| level["level"] == "container").unwrap()
}

#[test]
fn with_ranges_a_container_has_other_users_and_leaves_nothing() {
    let home = Home::new(true);
    let maps = "cat /proc/self/uid_map | tr -s ' '; cat /proc/self/gid_map | tr -s ' '";
    let seen = home.run(&[], maps).success();
    assert_eq!(seen, " 0 65534 1\n 1 700000 2000\n".repeat(2));
    // Of another user, with files in folders that the caller cannot enter.
    let script = "id -u; id -g; id -G; mkdir -p /tmp/mine/inner && touch /tmp/mine/inner/file && chmod 700 /tmp/mine \
                  && stat -c %u:%g /tmp/mine/inner/file";
    let seen = home.run(&["-u", "1000:5", "--group-add", "7"], script).success();
    assert_eq!(seen, "1000\n5\n5 7\n1000:5\n");
    let data = home.path().join(".local/share");
    assert_eq!(instances_in(&data), [""; 0]);
    // The caller with its own id.
    let seen =
        home.run(&["--userns", "keep-id", "-u", "1:1"], "cat /proc/self/uid_map | tr -s ' '");
    assert_eq!(seen.success(), format!(" {NOBODY} {NOBODY} 1\n 0 700000 2000\n"));
    for (user, what) in [("2001", "user 2001"), ("1:3000", "3000")] {
        home.run(&["-u", user], "true").fails_with(125, &[what, "ranges"]);
    }
    home.run(&["--group-add", "2001"], "true").fails_with(125, &["2001", "ranges"]);
    let report = home.report();
    let without = container(&report)["without"].as_str().unwrap_or_default();
    assert!(!without.contains("subuid"), "{report}");
}

#[test]
fn without_ranges_the_way_out_is_told_by_check_and_run() {
    let home = Home::new(false);
    assert_eq!(home.run(&[], "id -u").success(), "0\n");
    let run = home.run(&["-u", "1000"], "true");
    let way_out = "usermod --add-subuids";
    assert!(run.stderr.contains("/etc/subuid") && run.stderr.contains(way_out), "{run:?}");
    run.fails_with(125, &["without root"]);
    home.run(&["--group-add", "7"], "true").fails_with(125, &["/etc/subuid", way_out]);
    let report = home.report();
    assert_eq!(container(&report)["ready"], true, "{report}");
    let without = container(&report)["without"].as_str().unwrap_or_default();
    assert!(without.contains("/etc/subuid") && without.contains(way_out), "{report}");
}

#[test]
fn networks() {
    user_mode::a_life("container");
}

#[test]
fn networks_that_cannot_be() {
    user_mode::failures("container");
}
