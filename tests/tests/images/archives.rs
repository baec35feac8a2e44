//! Archives that other tools read and write, and what becomes of removed images.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use isolab_tests::{Done, Sandbox, TIME_LIMIT, busybox_layout, isolab_path, text, tool};
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

    let layout = path("oci-dir");
    ours.isolab(&["image", "save", "--format", "oci-dir", "-o", &layout, "busybox"])
        .finish()
        .success();
    let image = format!("{layout}:docker.io/library/busybox:latest");
    tool("umoci", &["unpack", "--image", &image, &path("bundle")]);
    assert!(dir.path().join("bundle/rootfs/bin/busybox").is_file());

    let (root, runroot) = (path("podman"), path("podman-run"));
    let podman = |arguments: &[&str]| {
        let own = ["--root", &root, "--runroot", &runroot, "--storage-driver", "vfs"];
        tool("podman", &[&own, arguments].concat())
    };
    for format in ["oci-archive", "docker-archive"] {
        let loaded = podman(&["load", "-i", &path(format)]);
        assert!(loaded.contains("docker.io/library/busybox:latest"), "{loaded}");
    }
    let saved = path("podman.tar");
    podman(&["save", "-o", &saved, "docker.io/library/busybox:latest"]);
    let theirs = Sandbox::empty();
    let bytes = fs::read(&saved).unwrap();
    theirs.isolab(&["image", "load"]).finish_with_input(&bytes).success();
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
    let run = ["run", "--pull", "never", "busybox", "true"];
    sandbox.isolab(&run).finish().fails_with(125, &["no image"]);
}

#[test]
fn tags_and_history_are_told() {
    let sandbox = Sandbox::with_busybox();
    let tagged = sandbox.isolab(&["image", "tag", "busybox", "localhost:5000/box:v1"]).finish();
    assert_eq!(tagged.success(), "localhost:5000/box:v1\n");
    let tag = ["image", "tag", "--format", "json", "busybox", "box"];
    let tagged = sandbox.isolab(&tag).finish().success();
    assert_eq!(tagged, "{\"name\":\"docker.io/library/box:latest\"}\n");
    let table = sandbox.isolab(&["image", "ls"]).finish().success();
    assert!(table.contains("localhost:5000/box:v1"), "{table}");
    let history = ["image", "history", "--format", "json", "localhost:5000/box:v1"];
    let history: Value =
        serde_json::from_str(&sandbox.isolab(&history).finish().success()).unwrap();
    assert_eq!(history[0]["created_by"], "Debian busybox-static");
    let inspected = sandbox.isolab(&["image", "inspect", "busybox"]).finish().success();
    assert!(inspected.contains("Command       [\"sh\"]"), "{inspected}");
}

/// Every kind of command: listings, names, facts of the host; and also where nobody reads errors.
#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let sandbox = Sandbox::with_busybox();
    let isolab = |words: &[&str]| {
        let mut command = Command::new(isolab_path());
        command.args(words).env("XDG_DATA_HOME", sandbox.data());
        command
    };
    let closed = || std::io::pipe().unwrap().1;
    for words in [
        &["image", "ls"][..],
        &["image", "history", "busybox"],
        &["image", "inspect", "busybox"],
        &["image", "tag", "busybox", "other"],
        &["image", "rm", "other"],
    ] {
        let output = isolab(words).stdout(closed()).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{words:?}: {output:?}");
    }
    // Ready or not is its exit code, and nothing else.
    let check = isolab(&["check"]).stdout(closed()).output().unwrap();
    let is_verdict = matches!(check.status.code(), Some(0 | 1));
    assert!(is_verdict && check.stderr.is_empty(), "{check:?}");
    let run = isolab(&["run", "--pull", "never", "nothing"]).stderr(closed()).status().unwrap();
    assert_eq!(run.code(), Some(125));
}

#[test]
fn what_cannot_be_printed_is_a_failure() {
    let sandbox = Sandbox::with_busybox();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut list = Command::new(isolab_path());
    list.args(["image", "ls"]).env("XDG_DATA_HOME", sandbox.data()).stdout(full);
    Done::from(list.output().unwrap()).fails_with(125, &["standard output", "No space left"]);
}

#[test]
fn a_damaged_image_does_not_hide_the_others() {
    let sandbox = Sandbox::with_busybox();
    let isolab = |words: &[&str]| sandbox.isolab(words).finish();
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("Dockerfile"), "FROM busybox\nLABEL a=b\n").unwrap();
    let digest = isolab(&["image", "build", "-t", "damaged", text(dir.path())]).success();
    let digits = digest.trim().trim_start_matches("sha256:");
    let manifest = sandbox.data().join("isolab/images/blobs/sha256").join(digits);
    fs::write(manifest, "{}").unwrap();
    for format in ["table", "json"] {
        let listed = isolab(&["image", "ls", "--format", format]);
        let words = ["library/damaged:latest", "image rm"];
        assert!(words.iter().all(|word| listed.stderr.contains(word)), "{listed:?}");
        let listed = listed.success();
        assert!(listed.contains("busybox") && !listed.contains("damaged"), "{listed}");
    }
    isolab(&["run", "damaged"]).fails_with(125, &["damaged", "image rm"]);
    isolab(&["image", "rm", "damaged"]).success();
    assert_eq!(isolab(&["image", "ls"]).stderr, "");
    assert_eq!(isolab(&["run", "busybox", "echo", "fine"]).success(), "fine\n");
}

/// A kill at any moment leaves a store that opens, verifies and loads the image after all. The
/// moments are those at which the store has one file more.
#[test]
fn a_load_that_is_killed_leaves_a_sound_store() {
    let layout = busybox_layout();
    let files = |sandbox: &Sandbox| {
        let list = ["-c", "find \"$0\" -type f | wc -l", text(sandbox.data())];
        tool("sh", &list).trim().parse::<usize>().unwrap()
    };
    let whole = files(&Sandbox::with_busybox());
    assert!(whole > 4, "{whole}: layout, index and three blobs");
    let sandbox = Sandbox::empty();
    for moment in 0..=whole {
        let load = sandbox.isolab(&["image", "load"]).arg(&layout).start(Stdio::null());
        let deadline = Instant::now() + TIME_LIMIT;
        while files(&sandbox) < moment {
            assert!(Instant::now() < deadline, "the store does not get {moment} files");
        }
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
