//! Containers of a caller who is not root, and cgroup trees that cannot be written. Starts as root, which makes the
//! fixture, and runs this same test binary again as `nobody`.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use isolab_container::{
    CgroupError, CgroupPlacement, Container, ContainerConfig, Error, Limits, RootFilesystem, Stdio,
    default_spec,
};

use support::{Fixture, PATH, run, unique_id};

const NOBODY: u32 = 65534;

/// Set in the second run: the fixture's directory.
const DIRECTORY: &str = "ISOLAB_TEST_ROOTLESS_DIRECTORY";

/// Runs `test` of this binary as nobody, in a fixture that belongs to nobody.
fn as_nobody(test: &str) {
    let fixture = Fixture::new();
    let binary = fixture.path("test-binary");
    // By cp: a descriptor of ours, open for writing, could be inherited by another test's child,
    // and the kernel executes nothing that somebody writes.
    let own = std::env::current_exe().unwrap();
    assert!(Command::new("cp").arg(own).arg(&binary).status().unwrap().success());
    fs::set_permissions(fixture.dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let chowned =
        Command::new("chown").args(["-R", "65534:65534"]).arg(fixture.dir.path()).status().unwrap();
    assert!(chowned.success());
    let output = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"])
        .arg(&binary)
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(DIRECTORY, fixture.dir.path())
        .current_dir("/")
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn config(args: &[&str], limits: Limits) -> ContainerConfig {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("run by `as_nobody`"));
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    ContainerConfig {
        id: unique_id(),
        spec: default_spec("rootless", args, vec![PATH.to_owned()], limits).unwrap(),
        rootfs: RootFilesystem::Overlay {
            lower: vec![directory.join("rootfs")],
            upper: directory.join("upper"),
            work: directory.join("work"),
        },
        bundle: None,
        stdio: Stdio::null(),
        cgroup: CgroupPlacement::Own,
        map_ids: false,
        keep_keyring: false,
        create_cwd: false,
        cgroup_manager: None,
        no_pivot: false,
        kill_with_parent: false,
        owner_lock: None,
    }
}

#[test]
fn nobody_can_run_a_container_and_is_root_in_it() {
    as_nobody("inner_run");
}

#[test]
#[ignore = "run as nobody by nobody_can_run_a_container_and_is_root_in_it"]
fn inner_run() {
    assert_eq!(nix::unistd::geteuid().as_raw(), NOBODY);
    let script = "id -u; echo $$; hostname; cat /proc/self/uid_map; cat /proc/self/setgroups; \
                  echo x > /dev/null && echo null-works; echo y > /made && cat /made";
    let outcome = run(config(&["sh", "-c", script], Limits::default())).unwrap();
    let words: Vec<&str> = outcome.output.split_whitespace().collect();
    assert_eq!(
        words,
        ["0", "1", "rootless", "0", "65534", "1", "deny", "null-works", "y"],
        "{}",
        outcome.output
    );
}

#[test]
fn limits_that_nobody_may_set_are_an_error_with_its_mend() {
    as_nobody("inner_limits");
}

#[test]
#[ignore = "run as nobody by limits_that_nobody_may_set_are_an_error_with_its_mend"]
fn inner_limits() {
    let error = Container::create(config(&["true"], Limits { pids: Some(5), ..Limits::default() }))
        .unwrap_err();
    assert!(matches!(error, Error::Cgroup(CgroupError::NotWritable { .. })), "{error}");
    let text = error.to_string();
    assert!(text.contains("/cgroup") && text.contains("limits"), "{text}");
}

#[test]
fn without_a_user_namespace_nobody_is_told_what_is_missing() {
    as_nobody("inner_no_user_namespace");
}

#[test]
#[ignore = "run as nobody by without_a_user_namespace_nobody_is_told_what_is_missing"]
fn inner_no_user_namespace() {
    let mut config = config(&["true"], Limits::default());
    let namespaces = config.spec.linux_mut().as_mut().unwrap().namespaces_mut().as_mut().unwrap();
    namespaces
        .retain(|namespace| namespace.typ() != isolab_container::oci::LinuxNamespaceType::User);
    let error = Container::create(config).unwrap_err().to_string();
    assert!(error.contains("user namespace"), "{error}");
}
