//! Archives that other tools read and write, and what becomes of removed images.

use std::fs;
use std::process::{Command, Stdio};

use isolab_tests::{Sandbox, busybox_layout, isolab_path, text, tool};
use serde_json::Value;

#[test]
fn our_archives_are_read_by_skopeo_and_podman_and_theirs_by_us() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&dir.path().join(name)).to_owned();
    let ours = Sandbox::with_busybox();
    for format in ["oci-archive", "docker-archive"] {
        let archive = path(format);
        let save = ["image", "save", "--format", format, "-o", &archive, "busybox"];
        ours.isolab(&save).finish().success();
        tool("skopeo", &["inspect", &format!("{format}:{archive}")]);
        let back = path(&format!("{format}-by-skopeo"));
        let target = format!("{format}:{back}:example/back:v2");
        tool("skopeo", &["copy", &format!("{format}:{archive}"), &target]);
        let theirs = Sandbox::empty();
        let loaded = theirs.isolab(&["image", "load", &back]).finish().success();
        assert_eq!(loaded, "docker.io/example/back:v2\n");
        let run = ["run", "example/back:v2", "echo", format];
        assert_eq!(theirs.isolab(&run).finish().success(), format!("{format}\n"));
    }

    let (root, runroot) = (path("podman"), path("podman-run"));
    let podman = |arguments: &[&str]| {
        let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        tool("podman", &[&own, arguments].concat())
    };
    podman(&["load", "-i", &path("docker-archive")]);
    let saved = path("podman.tar");
    podman(&["save", "-o", &saved, "docker.io/library/busybox:latest"]);
    let theirs = Sandbox::empty();
    theirs.isolab(&["image", "load", &saved]).finish().success();
    let output = theirs.isolab(&["run", "busybox", "echo", "podman"]).finish().success();
    assert_eq!(output, "podman\n");
}

#[test]
fn an_image_that_runs_is_kept_and_one_that_does_not_is_removed() {
    let sandbox = Sandbox::with_busybox();
    let mut running = sandbox
        .isolab(&["run", "-i", "busybox", "sh", "-c", "echo up; read line; ls /bin/busybox"])
        .start(Stdio::piped());
    running.wait_for("up");
    sandbox.isolab(&["image", "rm", "busybox"]).finish().fails_with(125, &["running instance"]);
    let prune = ["image", "prune", "--all", "--format", "json"];
    let pruned = sandbox.isolab(&prune).finish().success();
    let pruned: Value = serde_json::from_str(&pruned).unwrap();
    assert_eq!(pruned["deleted"].as_array().unwrap().len(), 0, "{pruned}");
    running.feed(b"\n");
    assert!(running.finish().success().ends_with("/bin/busybox\n"));

    let removed = sandbox.isolab(&["image", "rm", "--format", "json", "busybox"]).finish();
    let removed: Value = serde_json::from_str(&removed.success()).unwrap();
    assert_eq!(removed["untagged"][0], "docker.io/library/busybox:latest");
    assert_eq!(removed["deleted"].as_array().unwrap().len(), 3);
    let store = sandbox.data().join("isolab/images");
    for folder in ["blobs/sha256", "layers", "partial"] {
        let left = fs::read_dir(store.join(folder)).unwrap().count();
        assert_eq!(left, 0, "something is left in {folder}");
    }
    sandbox.isolab(&["run", "busybox", "true"]).finish().fails_with(125, &["no image"]);
}

#[test]
fn tags_and_history_are_told() {
    let sandbox = Sandbox::with_busybox();
    let tagged = sandbox.isolab(&["image", "tag", "busybox", "localhost:5000/box:v1"]).finish();
    assert_eq!(tagged.success(), "localhost:5000/box:v1\n");
    let table = sandbox.isolab(&["image", "ls"]).finish().success();
    assert!(table.contains("localhost:5000/box:v1"), "{table}");
    let history = ["image", "history", "--format", "json", "localhost:5000/box:v1"];
    let history: Value =
        serde_json::from_str(&sandbox.isolab(&history).finish().success()).unwrap();
    assert_eq!(history[0]["created_by"], "Debian busybox-static");
    let inspected = sandbox.isolab(&["image", "inspect", "busybox"]).finish().success();
    assert!(inspected.contains("Command       [\"sh\"]"), "{inspected}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let sandbox = Sandbox::with_busybox();
    for what in ["ls", "history", "inspect"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(isolab_path());
        command.args(["image", what]).args((what != "ls").then_some("busybox"));
        let output = command.env("XDG_DATA_HOME", sandbox.data()).stdout(writer).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
}

/// A kill at any moment leaves a store that opens, verifies and loads the image after all.
#[test]
fn a_load_that_is_killed_leaves_a_sound_store() {
    let layout = busybox_layout();
    let sandbox = Sandbox::empty();
    // Loads that are killed earlier and later; the last ones are over before that.
    for delay in (0..40).step_by(2) {
        let load = sandbox.isolab(&["image", "load"]).arg(&layout).start(Stdio::null());
        std::thread::sleep(std::time::Duration::from_millis(delay));
        load.signal(nix::sys::signal::Signal::SIGKILL);
        load.finish();
        sandbox.isolab(&["image", "ls"]).finish().success();
        let store = sandbox.data().join("isolab/images/blobs/sha256");
        for blob in fs::read_dir(&store).into_iter().flatten() {
            let blob = blob.unwrap();
            let sum = tool("sha256sum", &[text(&blob.path())]);
            assert!(sum.starts_with(blob.file_name().to_str().unwrap()), "{sum}");
        }
        sandbox.isolab(&["image", "prune", "--all"]).finish().success();
    }
    sandbox.isolab(&["image", "load"]).arg(&layout).finish().success();
    assert_eq!(sandbox.isolab(&["run", "busybox", "echo", "sound"]).finish().success(), "sound\n");
}
