//! Containers of a caller who is not root, by the command line: with itself mapped alone, and with ranges of ids by
//! newuidmap(1). Starts as root, which makes the bundle and the user's ranges.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use support::{Answer, Bundle};

/// `nobody`, who has no ranges of ids but those of this test.
const NOBODY: &str = "65534";

/// The runtime, for a user who does not see the folder that it was built in.
fn runtime(bundle: &Bundle) -> std::path::PathBuf {
    let copy = bundle.path("isolab-oci");
    if !copy.exists() {
        // By cp: see `as_nobody` of container/tests/rootless.rs.
        assert!(
            Command::new("cp").arg(support::runtime_path()).arg(&copy).status().unwrap().success()
        );
    }
    copy
}

/// Runs the runtime as nobody, in a mount namespace in which nobody has ranges of ids.
fn as_nobody(bundle: &Bundle, words: &[&str]) -> Answer {
    let ranges = bundle.path("ranges");
    fs::write(&ranges, format!("{NOBODY}:300000:65536\n")).unwrap();
    let [output, errors] = ["output", "errors"].map(|name| bundle.path(name));
    let script = "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && exec setpriv --reuid $1 --regid $1 \
                  --clear-groups -- \"${@:2}\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", script]).arg(&ranges).arg(NOBODY).arg(runtime(bundle));
    command
        .arg("--root")
        .arg(bundle.path("state"))
        .args(words)
        .stdin(Stdio::null())
        .current_dir("/");
    command.stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap());
    let code = command.status().unwrap().code().unwrap();
    let read = |path| fs::read_to_string(path).unwrap();
    Answer { code, output: read(&output), errors: read(&errors) }
}

fn bundle(change: impl FnOnce(&mut Value)) -> Bundle {
    let bundle = Bundle::new("echo ready >/tmp/ready; exec sleep 1000");
    bundle.configure(|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        spec["linux"]["resources"] = json!({});
        // Its group, tty, is mapped only with ranges.
        spec["mounts"].as_array_mut().unwrap().retain(|one| one["destination"] != "/dev/pts");
        change(spec);
    });
    fs::create_dir(bundle.path("state")).unwrap();
    fs::set_permissions(bundle.dir.path(), Permissions::from_mode(0o755)).unwrap();
    for sub in ["rootfs", "state"] {
        let mut chown = Command::new("chown");
        chown.args(["-R", "65534:65534"]).arg(bundle.path(sub));
        assert!(chown.status().unwrap().success());
    }
    bundle
}

fn maps(pairs: &[(u32, u32, u32)]) -> Value {
    pairs
        .iter()
        .map(|(inside, host, size)| json!({"containerID": inside, "hostID": host, "size": size}))
        .collect()
}

/// The life of a container, whose second user is `user`, and what a further process sees of its rights.
fn live(bundle: &Bundle, user: &str, groups: &[&str]) -> String {
    let id = bundle.id.as_str();
    let folder = bundle.dir.path().to_str().unwrap();
    as_nobody(bundle, &["create", "--bundle", folder, id]).fine();
    as_nobody(bundle, &["start", id]).fine();
    bundle.wait_for("it runs", || bundle.says("ready"));
    let state: Value = serde_json::from_str(&as_nobody(bundle, &["state", id]).fine()).unwrap();
    assert_eq!(state["status"], "running");
    let script = "busybox id -u; busybox id -G; echo $$; busybox cat /proc/self/uid_map /proc/self/oom_score_adj; \
                  for n in user pid net; do busybox readlink /proc/self/ns/$n; done; \
                  echo x >/tmp/made && busybox stat -c %u /tmp/made; busybox rm /tmp/made";
    let words = [&["exec", "--user", user], groups, &[id, "sh", "-c", script]].concat();
    let said = as_nobody(bundle, &words).fine();
    for name in ["user", "pid", "net"] {
        let link = fs::read_link(format!("/proc/{}/ns/{name}", state["pid"])).unwrap();
        assert!(said.contains(link.to_str().unwrap()), "{name}: {said}");
    }
    assert_eq!(as_nobody(bundle, &["exec", id, "sh", "-c", "exit 7"]).code, 7);
    let listed = as_nobody(bundle, &["ps", "--format", "json", id]).fine();
    assert_eq!(listed.trim(), format!("[{}]", state["pid"]));
    as_nobody(bundle, &["pause", id]).fails(1, "no cgroup of its own");
    as_nobody(bundle, &["kill", id, "KILL"]).fine();
    let stopped = || as_nobody(bundle, &["state", id]).output.contains("\"stopped\"");
    bundle.wait_for("it stops", stopped);
    as_nobody(bundle, &["delete", id]).fine();
    assert_eq!(fs::read_dir(bundle.path("state")).unwrap().count(), 0);
    // And all at once.
    bundle.configure(|spec| spec["process"]["args"] = json!(["sh", "-c", "exit 5"]));
    assert_eq!(as_nobody(bundle, &["run", "--bundle", folder, id]).code, 5);
    said
}

#[test]
fn the_caller_is_root_inside_and_nobody_else_is_there() {
    let bundle = bundle(|spec| {
        let map = maps(&[(0, 65534, 1)]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        spec["process"]["oomScoreAdj"] = json!(7);
    });
    let said = live(&bundle, "0:0", &[]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[..2], ["0", "0"], "{said}");
    assert!(said.contains("0      65534          1"), "{said}");
    // As the first process's, by its configuration.
    assert!(words.contains(&"7"), "{said}");
    // Groups need ranges of ids.
    let id = bundle.id.as_str();
    bundle.configure(|spec| spec["process"]["user"]["additionalGids"] = json!([5]));
    let folder = bundle.dir.path().to_str().unwrap();
    as_nobody(&bundle, &["create", "--bundle", folder, id]).fails(1, "process.user.additionalGids");
}

#[test]
fn ranges_of_ids_make_other_users() {
    let bundle = bundle(|spec| {
        let map = maps(&[(0, 65534, 1), (1, 300_000, 65536)]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "gid=5"],
        }));
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/tmp/shared", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"],
        }));
    });
    fs::set_permissions(bundle.path("rootfs/tmp"), Permissions::from_mode(0o1777)).unwrap();
    let said = live(&bundle, "7:8", &["-g", "9"]);
    let words: Vec<&str> = said.split_whitespace().collect();
    assert_eq!(words[..3], ["7", "8", "9"], "{said}");
    // The last of what was made inside.
    assert_eq!(words.last(), Some(&"7"), "{said}");
    // Ids beyond the ranges are refused, in newuidmap's words.
    bundle.configure(|spec| spec["linux"]["uidMappings"] = maps(&[(0, 65534, 1), (1, 900_000, 9)]));
    let folder = bundle.dir.path().to_str().unwrap();
    as_nobody(&bundle, &["create", "--bundle", folder, &bundle.id]).fails(1, "linux.uidMappings");
}
