//! The standard streams of a workload that is not root.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};

use isolab_tests::{Sandbox, isolab_path};

const SCRIPT: &str = "echo out >/dev/stdout && echo err >/dev/stderr && cat /dev/stdin";

#[test]
fn another_user_opens_pipes_by_their_names() {
    let sandbox = Sandbox::with_busybox();
    for level in ["process", "container"] {
        for user in ["0", "1000", "1000:1000"] {
            let words =
                ["run", "-i", "--isolation", level, "-u", user, "busybox", "sh", "-c", SCRIPT];
            let done = sandbox.isolab(&words).finish_with_input(b"in\n");
            assert_eq!(
                (done.code(), done.stdout.as_str(), done.stderr.as_str()),
                (Some(0), "out\nin\n", "err\n"),
                "{level}, {user}"
            );
        }
    }
}

#[test]
fn another_user_opens_files_by_their_names_and_they_stay_the_caller_s() {
    let sandbox = Sandbox::with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("output");
    let script = "echo one; echo two >&2; echo three >/dev/stdout; echo four >/dev/stderr";
    // Both streams are one file, and what is written to it keeps its order.
    let file = File::create(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let status = Command::new(isolab_path())
        .args(["run", "-u", "1000", "busybox", "sh", "-c", script])
        .env("XDG_DATA_HOME", sandbox.data())
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\nthree\nfour\n");
    let metadata = fs::metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o777), (nix::unistd::getuid().as_raw(), 0o600));
}

#[test]
fn more_than_a_pipe_holds_gets_through_to_a_file() {
    let sandbox = Sandbox::with_busybox();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("output");
    let status = Command::new(isolab_path())
        .args(["run", "-u", "1000", "busybox", "head", "-c", "3000000", "/dev/zero"])
        .env("XDG_DATA_HOME", sandbox.data())
        .stdout(File::create(&path).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::metadata(path).unwrap().len(), 3_000_000);
}
