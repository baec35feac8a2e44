//! podman of a user who is not root, with ranges of ids, and with this runtime in the place of its own. Starts as root, which
//! makes the user's folder and ranges. Needs podman, conmon, and Debian's package uidmap; nothing here has a network.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::podman::Podman;
use support::runtime_path;
use tempfile::TempDir;

/// `nobody`, who has no ranges of ids but those of this test.
const NOBODY: u32 = 65534;

/// Runs what follows as nobody: with a home and a runtime folder in `$0`, in a mount namespace whose /etc has the ranges.
const AS_NOBODY: &str = "mount --bind $0/ranges /etc/subuid && mount --bind $0/ranges /etc/subgid && cd / && \
    exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \
    env -i PATH=\"$PATH\" HOME=$0/home XDG_RUNTIME_DIR=$0/home \"$@\"";

/// A folder of nobody's, and in it the runtime, as nobody does not see the folder that it was built in.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let path = |sub: &str| folder.path().join(sub);
    fs::write(path("ranges"), format!("{NOBODY}:300000:65536\n")).unwrap();
    // By cp: see `as_nobody` of container/tests/rootless.rs.
    let runtime = path("isolab-oci");
    let mut copy = Command::new("cp");
    assert!(copy.arg(runtime_path()).arg(&runtime).status().unwrap().success());
    for sub in ["home", "root", "run", "tmp"] {
        fs::create_dir(path(sub)).unwrap();
        chown(path(sub), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    (folder, runtime)
}

fn as_nobody(folder: &Path) -> Vec<OsString> {
    let words = ["unshare", "--mount", "bash", "-c", AS_NOBODY].map(OsString::from);
    words.into_iter().chain([folder.into()]).collect()
}

#[test]
fn podman_without_root_runs_enters_and_removes_containers() {
    let (folder, runtime) = folder();
    let before = as_nobody(folder.path());
    let podman = Podman::made(folder, before, "cgroupfs", runtime);
    let script = "id -u; busybox tr -s ' ' </proc/self/uid_map; echo wrong >&2; exit 9";
    let (code, output, errors) = podman.create(&["--rm"], &["sh", "-c", script]);
    assert_eq!((code, output.as_str()), (9, "0\n 0 65534 1\n 1 300000 65536\n"), "{errors}");
    assert!(errors.ends_with("wrong\n"), "{errors}");
    // Another user of the ranges, whose files are the ranges' on the host.
    let shared = podman.path("home/shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, Permissions::from_mode(0o777)).unwrap();
    let volume = format!("{}:/shared", shared.display());
    let options = ["--rm", "--user", "7:8", "--volume", &volume];
    let (code, output, errors) =
        podman.create(&options, &["sh", "-c", "id -u; echo x >/shared/file"]);
    assert_eq!((code, output.as_str()), (0, "7\n"), "{errors}");
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(shared.join("file")).unwrap());
    assert_eq!(owner, 300_006);
    let (_, output, errors) = podman.create(&["--rm", "--userns", "keep-id"], &["id", "-u"]);
    assert_eq!(output, "65534\n", "{errors}");
    let (_, output, errors) = podman.create(&["--rm", "-t"], &["tty"]);
    assert_eq!(output, "/dev/pts/0\r\n", "{errors}");
    for (command, wanted) in [("absent", 127), ("/tmp", 126)] {
        let (code, _, errors) = podman.create(&["--rm"], &[command]);
        assert_eq!(code, wanted, "{errors}");
    }

    let script = "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let (code, _, errors) = podman.create(&["-d", "--name", "one"], &["sh", "-c", script]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(podman.tells("one", "{{.OCIRuntime}}"), podman.path("isolab-oci").to_str().unwrap());
    let (code, output, errors) = podman.run(&["exec", "one", "sh", "-c", "echo inside; exit 4"]);
    assert_eq!((code, output.as_str()), (4, "inside\n"), "{errors}");
    assert_eq!(podman.says(&["exec", "-t", "--user", "5", "one", "id", "-u"]), "5\r\n");
    assert!(podman.says(&["top", "one", "args"]).contains("sh -c trap"));
    podman.says(&["stop", "--time", "60", "one"]);
    assert_eq!(podman.says(&["logs", "one"]), "up\ntold\n");
    assert_eq!(podman.tells("one", "{{.State.Status}} {{.State.ExitCode}}"), "exited 3");
    podman.says(&["rm", "one"]);
    let left = fs::read_dir(podman.path("home/isolab-oci")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "state of containers that are gone");
}
