//! What the host refuses in the midst of work, and what is left when the operator has had enough.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use isolab_tests::{
    Done, Run, Sandbox, TIME_LIMIT, busybox_layout, install_isolab, isolab_path, text, tool,
};
use nix::sys::signal::Signal;

/// busybox as an archive of `save`.
fn archive(folder: &Path) -> String {
    let path = text(&folder.join("busybox.tar")).to_owned();
    Sandbox::with_busybox().isolab(&["image", "save", "-o", &path, "busybox"]).finish().success();
    path
}

/// A script in a mount namespace of its own; `$1` is isolab, `$2` the data folder, `$3` an archive.
fn in_namespace(script: &str, data: &Path, archive: &str) -> Done {
    let mut unshare = Command::new("unshare");
    unshare.args(["-m", "sh", "-ec", script, "sh"]).arg(isolab_path()).arg(data).arg(archive);
    unshare.env("XDG_DATA_HOME", data);
    Run::new(unshare).finish()
}

fn names_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.into_string().unwrap()).collect()
}

#[test]
fn a_full_disk_and_refused_threads_are_told_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let archive = archive(dir.path());
    let data = tempfile::tempdir().unwrap();
    // Full while the archive is taken apart, and full while its layer is unpacked.
    let size = fs::metadata(&archive).unwrap().len();
    for room in [size / 2, size * 5 / 2] {
        let script = format!("mount -t tmpfs -o size={room} tmpfs $2; exec $1 image load $3");
        let done = in_namespace(&script, data.path(), &archive);
        assert!(!done.stderr.contains("not an OCI image layout"), "{room}: {done:?}");
        assert_eq!(done.stderr.lines().count(), 2, "{room}: {done:?}");
        done.fails_with(125, &["cannot ", "No space left on device", "hint: `isolab image prune`"]);
    }

    // An image of three layers, and not one thread for a user who is nobody.
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("f"), "f").unwrap();
    let dockerfile = "FROM busybox\nCOPY f /f\nCOPY f /g\n";
    fs::write(context.path().join("Dockerfile"), dockerfile).unwrap();
    let sandbox = Sandbox::with_busybox();
    sandbox.isolab(&["image", "build", "-t", "app", text(context.path())]).finish().success();
    let app = text(&dir.path().join("app.tar")).to_owned();
    sandbox.isolab(&["image", "save", "-o", &app, "app"]).finish().success();
    let isolab = install_isolab(dir.path());
    tool("install", &["-d", "-o", "65534", "-g", "65534", text(&dir.path().join("data"))]);
    tool("chmod", &["644", &app]);
    tool("chmod", &["755", text(dir.path())]);
    let nobody = |words: &[&str]| {
        let mut nobody = Command::new("setpriv");
        nobody.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        nobody.args(["prlimit", "--nproc=1:1", text(&isolab), "image"]).args(words);
        nobody.env("XDG_DATA_HOME", dir.path().join("data")).env_remove("XDG_RUNTIME_DIR");
        Run::new(nobody).finish()
    };
    let done = nobody(&["load", &app]);
    assert_eq!(done.stderr, "");
    assert_eq!(done.success(), "docker.io/library/app:latest\n");
    // A registry's name is looked up on a thread.
    nobody(&["pull", "--insecure", "localhost:1/app"])
        .fails_with(125, &["cannot start a thread for the registry", "temporarily unavailable"]);
}

#[test]
fn a_store_that_cannot_be_written_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let archive = archive(dir.path());
    let data = tempfile::tempdir().unwrap();
    let script = "
        $1 image load $3 >$2/said
        $1 run busybox true
        mount --bind $2/isolab/images $2/isolab/images
        mount -o remount,bind,ro $2/isolab/images
        $1 image ls
        $1 image inspect busybox
        $1 image history busybox
        $1 image save busybox | tar -t
        $1 run busybox echo it runs
        if $1 image rm busybox; then exit 1; fi
        if $1 image load $3; then exit 1; fi
        if $1 image prune; then exit 1; fi
        rm $2/said";
    let done = in_namespace(script, data.path(), &archive);
    let refused = done.stderr.lines().filter(|line| line.contains("Read-only file system"));
    // Each with its hint.
    assert_eq!((refused.count(), done.stderr.lines().count()), (3, 6), "{done:?}");
    let said = done.success();
    for words in ["docker.io/library/busybox:latest", "Command ", "index.json", "it runs\n"] {
        assert!(said.contains(words), "no {words} in {said}");
    }
    assert!(!data.path().join("said").exists());
}

/// Whoever brings something in next removes what is left: nothing is in the way, and no disk fills.
#[test]
fn what_is_interrupted_is_swept_by_the_next_command() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(archive(dir.path())).unwrap();
    let sandbox = Sandbox::empty();
    let partial = sandbox.data().join("isolab/images/partial");
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let mut load = sandbox.isolab(&["image", "load"]).start(Stdio::piped());
        load.feed(&bytes[..bytes.len() / 2]);
        let deadline = Instant::now() + TIME_LIMIT;
        let is_begun = || names_in(&partial).iter().any(|name| name.starts_with("archive-"));
        while !(partial.exists() && is_begun()) {
            assert!(Instant::now() < deadline, "the archive is not taken apart");
            std::thread::sleep(Duration::from_millis(5));
        }
        load.signal(signal);
        assert_eq!(load.finish().code(), None);
        sandbox.isolab(&["image", "load"]).arg(busybox_layout()).finish().success();
        assert_eq!(names_in(&partial), [""; 0], "{signal}");
    }
    // Nobody's work that is under way is taken for that.
    let mut load = sandbox.isolab(&["image", "load", "-t", "slow"]).start(Stdio::piped());
    load.feed(&bytes[..bytes.len() / 2]);
    sandbox.isolab(&["image", "load", "-i"]).arg(busybox_layout()).finish().success();
    load.feed(&bytes[bytes.len() / 2..]);
    assert_eq!(load.finish_input().success(), "docker.io/library/slow:latest\n");
    assert_eq!(names_in(&partial), [""; 0]);
}

#[test]
fn a_save_that_is_interrupted_leaves_no_file() {
    let sandbox = Sandbox::with_busybox();
    let dir = tempfile::tempdir().unwrap();
    // A layer that cannot be read to its end: the pipe's other end is ours.
    let store = sandbox.data().join("isolab/images/blobs/sha256");
    let layer = fs::read_dir(&store).unwrap().map(|entry| entry.unwrap().path());
    let layer = layer.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::rename(&layer, store.join("aside")).unwrap();
    tool("mkfifo", &[text(&layer)]);
    let target = dir.path().join("saved.tar");
    let save = sandbox.isolab(&["image", "save", "busybox", "-o"]).arg(&target);
    let save = save.start(Stdio::null());
    // Opening waits until the save reads.
    let writer = fs::OpenOptions::new().write(true).open(&layer).unwrap();
    save.signal(Signal::SIGINT);
    assert_eq!(save.finish().code(), None);
    drop(writer);
    assert_eq!(names_in(dir.path()), [""; 0]);
}

#[test]
fn prune_tells_what_stays_and_how_it_goes() {
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("f"), vec![b'x'; 100_000]).unwrap();
    fs::write(context.path().join("Dockerfile"), "FROM busybox\nCOPY f /f\n").unwrap();
    let sandbox = Sandbox::with_busybox();
    let isolab = |words: &[&str]| sandbox.isolab(words).finish().success();
    isolab(&["image", "build", "-t", "app", text(context.path())]);
    isolab(&["run", "app", "true"]);
    let removed = isolab(&["image", "rm", "app"]);
    assert!(removed.contains("the build cache has ") && removed.contains("kB more"), "{removed}");
    let pruned = isolab(&["image", "prune"]);
    assert!(pruned.contains("freed 0 B\n") && pruned.contains("prune --build-cache"), "{pruned}");
    let pruned = isolab(&["image", "prune", "--build-cache"]);
    assert!(pruned.contains("freed ") && !pruned.contains("the build cache has"), "{pruned}");
    assert!(!pruned.contains("freed 0 B"), "{pruned}");
    assert!(isolab(&["image", "ls"]).contains("busybox"));
}
