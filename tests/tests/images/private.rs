//! What is in an image is nobody else's on this host.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use isolab_tests::{Run, Sandbox, busybox_layout, isolab_path, text, tool};

/// A command as the user nobody.
fn as_nobody(command: &[&str]) -> Output {
    let mut setpriv = Command::new("setpriv");
    setpriv.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).args(command);
    setpriv.output().unwrap()
}

/// busybox with a shell that is set-user-ID root, and a file that everybody could read.
fn layout(target: &Path) -> String {
    let image = format!("{}:setuid", target.display());
    let source = format!("oci:{}:busybox:latest", busybox_layout().display());
    tool("skopeo", &["copy", &source, &format!("oci:{image}")]);
    let bundle = target.with_extension("bundle");
    tool("umoci", &["unpack", "--image", &image, text(&bundle)]);
    let root = bundle.join("rootfs");
    fs::copy(root.join("bin/busybox"), root.join("rootshell")).unwrap();
    fs::set_permissions(root.join("rootshell"), Permissions::from_mode(0o4755)).unwrap();
    fs::write(root.join("key"), "secret").unwrap();
    tool("umoci", &["repack", "--image", &image, text(&bundle)]);
    image
}

#[test]
fn set_user_id_files_and_secrets_of_layers_are_out_of_others_reach() {
    let dir = tempfile::tempdir().unwrap();
    layout(&dir.path().join("layout"));
    let archive = text(&dir.path().join("saved.tar")).to_owned();
    let sandbox = Sandbox::empty();
    // Nothing but isolab itself stands in the way; an earlier version left its folders open.
    fs::set_permissions(sandbox.data(), Permissions::from_mode(0o755)).unwrap();
    let isolab = sandbox.data().join("isolab");
    for folder in ["images", "instances"] {
        fs::create_dir_all(isolab.join(folder)).unwrap();
        fs::set_permissions(isolab.join(folder), Permissions::from_mode(0o755)).unwrap();
    }
    let with_umask = |words: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 0; exec \"$@\"", "sh"]).arg(isolab_path()).args(words);
        shell.env("XDG_DATA_HOME", sandbox.data());
        Run::new(shell).finish().success()
    };
    with_umask(&["image", "load", "--unpack", "--tag", "app", text(&dir.path().join("layout"))]);
    // A machine's disk, where there is one to be made, is made of the same files.
    with_umask(&["image", "save", "-o", &archive, "app"]);
    let find = ["-name", "rootshell", "-o", "-name", "key"];
    let found = tool("find", &[&[text(sandbox.data())], &find[..]].concat());
    assert_eq!(found.lines().count(), 2, "{found}");
    for file in found.lines() {
        for command in [&[file, "id", "-u"][..], &["cat", file], &["stat", file]] {
            let done = as_nobody(command);
            assert!(!done.status.success(), "{command:?}: {done:?}");
        }
    }
    let seen = as_nobody(&["find", text(&isolab)]);
    let seen = String::from_utf8(seen.stdout).unwrap();
    assert!(seen.lines().count() <= 1, "{seen}");
    assert!(!as_nobody(&["cat", &archive]).status.success(), "the archive is everybody's");

    // Inside, the image's own users have what its modes give them.
    for level in ["process", "container"] {
        let run = |user: &str, command: &[&str]| {
            let words = ["run", "--isolation", level, "-u", user, "app"];
            sandbox.isolab(&[&words, command].concat()).finish().success()
        };
        assert_eq!(run("1234:1234", &["cat", "/key"]), "secret");
        assert_eq!(
            run("1234:1234", &["sh", "-c", "id -u; ls /bin/busybox"]),
            "1234\n/bin/busybox\n"
        );
    }
}
