//! What an instance leaves when its `isolab` is killed, and who removes it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use isolab_tests::{Running, Sandbox, TIME_LIMIT, busybox_layout, instances_in, text};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{as_nobody, tool};

/// Starts an instance that waits for ever, and reads what is written down of it.
fn start(sandbox: &Sandbox, level: &str, name: &str) -> (Running, Value) {
    let script = "echo ready; read line; echo $line; exec sleep 1000";
    let words = ["run", "-i", "--isolation", level, "--name", name, "busybox", "sh", "-c", script];
    let mut running = sandbox.isolab(&words).start(Stdio::piped());
    running.wait_for("ready");
    let records = fs::read_to_string(folder(sandbox, name).join("lock")).expect("it runs");
    let record = records.lines().last().expect("an instance that runs has a record");
    (running, serde_json::from_str(record).expect("it is JSON"))
}

fn folder(sandbox: &Sandbox, name: &str) -> PathBuf {
    sandbox.data().join("isolab/instances").join(name)
}

/// Whether a process lives; a zombie, which nobody here may wait for, does not.
fn lives(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Does `attempt` until the folder is gone: who looks after an instance when its `isolab` was killed
/// may be at it, and is let be.
fn until_gone(folder: &Path, mut attempt: impl FnMut()) {
    let deadline = Instant::now() + TIME_LIMIT;
    while folder.exists() {
        assert!(Instant::now() < deadline, "{} stays", folder.display());
        attempt();
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_a_killed_isolab_left_is_swept_and_what_lives_is_not() {
    let sandbox = Sandbox::with_busybox();
    for (level, by_prune) in
        [("container", true), ("container", false), ("process", true), ("process", false)]
    {
        let (mut living, _) = start(&sandbox, level, "living");
        let (killed, record) = start(&sandbox, level, "killed");
        let cgroups: Vec<_> =
            record["cgroups"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
        assert!(level == "process" || !cgroups.is_empty(), "{record}");
        let pid = record["process"]["pid"].as_i64().unwrap();
        assert!(lives(pid));
        killed.signal(Signal::SIGKILL);
        killed.finish();
        until_gone(&folder(&sandbox, "killed"), || match by_prune {
            true => {
                let words = ["system", "prune", "--format", "json"];
                let removed = sandbox.isolab(&words).finish().success();
                let removed: Value = serde_json::from_str(&removed).unwrap();
                for leftover in removed["instances"].as_array().unwrap() {
                    assert_eq!(leftover["name"], "killed");
                    assert_eq!(leftover["level"], level);
                }
            }
            false => drop(sandbox.run("container", &["true"]).success()),
        });
        assert!(!lives(pid), "{level}");
        for cgroup in cgroups {
            assert!(!Path::new(cgroup).exists(), "{level}: {cgroup}");
        }
        living.feed(b"and well\n");
        living.wait_for("and well");
        living.signal(Signal::SIGKILL);
        living.finish();
        until_gone(&folder(&sandbox, "living"), || {
            sandbox.isolab(&["system", "prune"]).finish().success();
        });
    }
    assert_eq!(sandbox.instances(), [""; 0]);
}

#[test]
fn a_name_that_a_killed_isolab_had_is_free_again() {
    let sandbox = Sandbox::with_busybox();
    let (killed, _) = start(&sandbox, "container", "again");
    killed.signal(Signal::SIGKILL);
    killed.finish();
    let deadline = Instant::now() + TIME_LIMIT;
    loop {
        let words = ["run", "--name", "again", "busybox", "echo", "mine"];
        let run = sandbox.isolab(&words).finish();
        match run.code() {
            Some(0) => break assert_eq!(run.stdout, "mine\n"),
            // Its guardian is not done yet.
            _ => assert!(run.stderr.contains("running instance's"), "{run:?}"),
        }
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let sandbox = Sandbox::with_busybox();
    let instances = sandbox.data().join("isolab/instances");
    sandbox.run("container", &["true"]).success();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("lock"), "").unwrap();
    std::os::unix::fs::symlink(outside.path(), instances.join("link")).unwrap();
    fs::create_dir_all(instances.join("theirs/files")).unwrap();
    fs::write(instances.join("theirs/lock"), "").unwrap();
    assert_eq!(sandbox.isolab(&["system", "prune"]).finish().success(), "");
    assert!(instances.join("theirs/files").exists() && outside.path().join("lock").exists());
    let words = ["run", "--name", "theirs", "busybox", "true"];
    sandbox.isolab(&words).finish().fails_with(125, &["theirs", "no instance"]);
}

#[test]
fn without_root_a_container_runs_is_said_to_and_leaves_nothing() {
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let layout = home.path().join("layout");
    tool("cp", &["-r", text(&busybox_layout()), text(&layout)]);
    tool("chown", &["-R", "65534:65534", text(home.path())]);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let isolab = |words: &[&str]| as_nobody(Some(home.path()), words).finish();
    isolab(&["image", "load", text(&layout)]).success();
    let run = isolab(&["run", "--pull", "never", "busybox", "sh", "-c", "id -u; echo x >/new"]);
    assert_eq!((run.code(), run.stdout.as_str(), run.stderr.as_str()), (Some(0), "0\n", ""));
    let data = home.path().join(".local/share");
    assert_eq!(instances_in(&data), [""; 0]);
    let report: Value =
        serde_json::from_str(&isolab(&["check", "--format", "json"]).stdout).unwrap();
    let container = report["levels"].as_array().unwrap().iter().find(|l| l["level"] == "container");
    assert_eq!(container.unwrap()["ready"], true, "{report}");
    let overlay = report["facts"].as_array().unwrap().iter().find(|f| f["name"] == "overlayfs");
    assert_eq!(overlay.unwrap()["ok"], true, "{report}");
    assert_eq!(instances_in(&data), [""; 0]);
}
