//! Images, `isolab check`, and what `isolab run` does beside the workload's own affairs, on any host.

mod arguments;
mod executables;
mod failures;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
mod housekeeping;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
mod kernels;
mod leftovers;
mod logging;
mod names;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
mod prices;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
mod rootless;
#[allow(clippy::unwrap_used, reason = "helpers of tests fail as the tests themselves do")]
mod security;
mod storage;
mod streams;
mod users;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use isolab_tests::{Run, Sandbox, busybox_layout, install_isolab, isolab_path};

/// A copy of the busybox layout that a test may spoil.
fn copied_layout(target: &Path) {
    let status =
        Command::new("cp").arg("-r").arg(busybox_layout()).arg(target).status().expect("cp runs");
    assert!(status.success());
}

fn tool(name: &str, arguments: &[&str]) {
    let output = Command::new(name).args(arguments).output();
    let output = output.unwrap_or_else(|e| panic!("{name}: {e}; scripts/test installs it"));
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_layout_loads_from_a_folder_and_from_archives() {
    let dir = tempfile::tempdir().unwrap();
    let layout = busybox_layout();
    let plain = dir.path().join("plain.tar");
    let packed = dir.path().join("packed.tar.gz");
    let folder = layout.to_str().unwrap();
    tool("tar", &["-C", folder, "-cf", plain.to_str().unwrap(), "."]);
    tool("tar", &["-C", folder, "-czf", packed.to_str().unwrap(), "."]);
    for source in [&layout, &plain, &packed] {
        let sandbox = Sandbox::empty();
        let loaded = sandbox.isolab(&["image", "load"]).arg(source).finish().success();
        assert_eq!(loaded, "docker.io/library/busybox:latest\n");
        let listed = sandbox.isolab(&["image", "ls", "--format", "json"]).finish().success();
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed[0]["reference"], "docker.io/library/busybox:latest");
        let digest = listed[0]["digest"].as_str().unwrap();
        let output = sandbox.isolab(&["run", digest, "echo", "by digest"]).finish().success();
        assert_eq!(output, "by digest\n");
    }
}

#[test]
fn images_of_skopeo_and_umoci_run_and_ours_are_read_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let ours = format!("oci:{}:busybox:latest", busybox_layout().display());
    // skopeo recompresses with zstd; the annotation is then just the tag.
    let by_skopeo = dir.path().join("copied");
    let target = format!("oci:{}:v1", by_skopeo.display());
    tool("skopeo", &["copy", "--dest-compress-format", "zstd", &ours, &target]);
    let sandbox = Sandbox::empty();
    let name = sandbox.isolab(&["image", "load"]).arg(&by_skopeo).finish().success();
    assert_eq!(name, "docker.io/library/copied:v1\n");
    assert_eq!(sandbox.isolab(&["run", "copied:v1", "echo", "hi"]).finish().success(), "hi\n");

    // umoci adds a layer on top.
    let by_umoci = dir.path().join("changed");
    copied_layout(&by_umoci);
    let image = format!("{}:busybox:latest", by_umoci.display());
    let extra = dir.path().join("extra");
    fs::create_dir(&extra).unwrap();
    fs::write(extra.join("added"), "new").unwrap();
    tool("umoci", &["insert", "--image", &image, extra.to_str().unwrap(), "/etc"]);
    tool("umoci", &["insert", "--image", &image, "--whiteout", "/etc/group"]);
    let loaded = sandbox.isolab(&["image", "load", "--tag", "changed"]).arg(&by_umoci).finish();
    assert_eq!(loaded.success(), "docker.io/library/changed:latest\n");
    let listing = sandbox.isolab(&["run", "changed", "ls", "/etc"]).finish().success();
    assert_eq!(listing, "added\nhostname\nhosts\npasswd\n");

    let store = sandbox.data().join("isolab/images");
    let reference = format!("oci:{}:docker.io/library/changed:latest", store.display());
    tool("skopeo", &["inspect", &reference]);
}

#[test]
fn a_blob_that_was_changed_is_refused_by_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    copied_layout(&layout);
    let blobs = layout.join("blobs/sha256");
    let largest = fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| fs::metadata(path).unwrap().len())
        .unwrap();
    let mut content = fs::read(&largest).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    fs::write(&largest, content).unwrap();
    let sandbox = Sandbox::empty();
    let digest = largest.file_name().unwrap().to_str().unwrap();
    let load = sandbox.isolab(&["image", "load"]).arg(&layout).finish();
    load.fails_with(125, &[digest, "damaged"]);
    assert_eq!(sandbox.isolab(&["image", "ls", "--format", "json"]).finish().success(), "[]\n");
}

#[test]
fn what_is_no_layout_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not an archive").unwrap();
    let sandbox = Sandbox::empty();
    sandbox.isolab(&["image", "load"]).arg(&file).finish().fails_with(125, &["OCI image layout"]);
    let load = sandbox.isolab(&["image", "load"]).arg(dir.path()).finish();
    load.fails_with(125, &["OCI image layout", "index.json"]);
    sandbox.isolab(&["image", "load", "/no/such"]).finish().fails_with(125, &["/no/such"]);
}

#[test]
fn check_gives_a_verdict_for_each_level_and_an_exit_code_to_match() {
    let sandbox = Sandbox::empty();
    let check = sandbox.isolab(&["check", "--format", "json"]).finish();
    let report: serde_json::Value = serde_json::from_str(&check.stdout).unwrap();
    let levels = report["levels"].as_array().unwrap();
    let names: Vec<_> = levels.iter().map(|v| v["level"].as_str().unwrap()).collect();
    assert_eq!(names, ["process", "container", "paravirt", "fullvirt"]);
    let all_ready = levels.iter().all(|v| v["ready"] == true);
    assert_eq!(check.status.code(), Some(if all_ready { 0 } else { 1 }));
    for verdict in levels.iter().filter(|v| v["ready"] == false) {
        assert!(verdict["why"].is_string() && verdict["hint"].is_string(), "{verdict}");
    }
    let table = sandbox.isolab(&["check"]).finish().stdout;
    assert!(table.contains("\nfullvirt   "), "{table}");
}

/// The user nobody's copy of `isolab`, from where they may execute it.
fn program_of_nobody() -> PathBuf {
    let folder = Path::new("/tmp").join(format!("isolab-nobody-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("/tmp can be written");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("our own folder");
    // Tests run beside each other.
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| install_isolab(&folder)).clone()
}

/// `isolab` as somebody without any rights, with a home of theirs or none.
fn as_nobody(home: Option<&Path>, arguments: &[&str]) -> Run {
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"])
        .arg(program_of_nobody())
        .args(arguments)
        .env("HOME", home.unwrap_or(Path::new("/nonexistent")))
        .env_remove("XDG_DATA_HOME");
    Run::new(command)
}

#[test]
fn without_permission_on_dev_kvm_the_mend_is_told() {
    let kernel = isolab_path();
    let run = as_nobody(None, &["vm", "run", "--kernel", kernel.to_str().unwrap()]).finish();
    run.fails_with(125, &["/dev/kvm"]);
    let check = as_nobody(None, &["check", "--only", "kvm"]).finish();
    assert_eq!(check.code(), Some(1), "{check:?}");
    assert!(check.stdout.contains("/dev/kvm") && check.stdout.contains("kvm-host"), "{check:?}");
}

#[test]
fn a_guest_that_dies_on_a_kvm_that_cannot_run_any_says_whose_fault_it_is() {
    let sandbox = Sandbox::with_busybox();
    let check = sandbox.isolab(&["check", "--only", "kvm"]).finish();
    let run = sandbox.run("paravirt", &["echo", "here"]);
    if check.code() == Some(0) {
        assert_eq!(run.success(), "here\n");
    } else {
        // The same sentence, be it that KVM is missing or that its probe guest fails.
        let hint = check.stdout.rsplit("; ").next().unwrap().trim();
        run.fails_with(125, &["/dev/kvm", hint]);
    }
}

#[test]
fn a_cgroup_tree_that_cannot_be_written_is_named() {
    let sandbox = Sandbox::with_busybox();
    let script = "grep ' - cgroup' /proc/self/mountinfo | cut -d ' ' -f 5 |
        while read -r tree; do mount -o remount,bind,ro \"$tree\" || exit 9; done || exit 9
        exec \"$0\" run --memory 64M busybox true";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(isolab_path());
    let run = Run::new(command).env("XDG_DATA_HOME", sandbox.data().to_str().unwrap()).finish();
    run.fails_with(125, &["/sys/fs/cgroup", "Read-only file system"]);
}
