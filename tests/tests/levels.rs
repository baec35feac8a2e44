//! `process` and `container`, on any host: cgroup v1 and v2.

use std::fs;

use isolab_tests::{Sandbox, cgroups_named, controlled, dropped, foreground, workloads};

const LEVELS: [&str; 2] = ["process", "container"];

#[test]
fn output_and_exit_code() {
    LEVELS.into_iter().for_each(workloads::output_and_exit_code);
}

#[test]
fn environment() {
    LEVELS.into_iter().for_each(workloads::environment);
}

#[test]
fn commands_that_do_not_start() {
    LEVELS.into_iter().for_each(workloads::commands_that_do_not_start);
}

#[test]
fn standard_input() {
    LEVELS.into_iter().for_each(workloads::standard_input);
}

#[test]
fn output_that_nobody_reads() {
    LEVELS.into_iter().for_each(workloads::output_that_nobody_reads);
}

#[test]
fn signals() {
    LEVELS.into_iter().for_each(workloads::signals);
}

#[test]
fn further_signals() {
    LEVELS.into_iter().for_each(workloads::further_signals);
}

#[test]
fn rights_and_limits() {
    LEVELS.into_iter().for_each(workloads::rights_and_limits);
}

#[test]
fn a_dropped_instance_leaves_nothing() {
    for level in LEVELS {
        dropped::leaves_nothing(level, "dropped_alone");
    }
}

#[test]
#[ignore = "run by a_dropped_instance_leaves_nothing, in a process of its own"]
fn dropped_alone() {
    dropped::alone();
}

#[test]
fn what_is_done_to_a_running_instance() {
    for level in LEVELS {
        controlled::is_the_same(level, "controlled_alone");
    }
}

#[test]
#[ignore = "run by what_is_done_to_a_running_instance, in a process of its own"]
fn controlled_alone() {
    controlled::alone();
}

#[test]
fn a_terminal_in_the_foreground() {
    LEVELS.into_iter().for_each(foreground::terminal);
}

#[test]
fn names() {
    LEVELS.into_iter().for_each(workloads::names);
}

#[test]
fn name_files() {
    LEVELS.into_iter().for_each(workloads::name_files);
}

#[test]
fn a_container_starts_from_its_image_each_time() {
    workloads::a_fresh_root_each_time("container");
}

#[test]
fn both_levels_see_the_same_files() {
    assert_eq!(workloads::file_listing("process"), workloads::file_listing("container"));
}

#[test]
fn a_container_has_namespaces_of_its_own_and_few_privileges() {
    let sandbox = Sandbox::with_busybox();
    let inside = |command: &str| sandbox.run("container", &["sh", "-c", command]).success();
    assert_eq!(inside("echo $$"), "1\n");
    for namespace in ["mnt", "pid", "ipc", "uts", "net", "cgroup"] {
        let ours = fs::read_link(format!("/proc/self/ns/{namespace}")).unwrap();
        let theirs = inside(&format!("readlink /proc/self/ns/{namespace}"));
        assert_ne!(theirs.trim(), ours.to_str().unwrap());
    }
    let status = inside("cat /proc/self/status");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    // Docker's default set without CAP_MKNOD, bits by linux/capability.h.
    let capabilities = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31];
    let mask: u64 = capabilities.iter().map(|bit| 1u64 << bit).sum();
    assert!(status.contains(&format!("CapEff:\t{mask:016x}")), "{status}");
    assert!(status.contains(&format!("CapBnd:\t{mask:016x}")), "{status}");
    // pivot_root: the host's root is nowhere.
    let mounts = inside("cat /proc/self/mountinfo");
    assert!(!mounts.contains(" /oldroot") && mounts.contains(" / / "), "{mounts}");
    assert_eq!(inside("ls / | tr '\\n' ' '"), "bin dev etc proc root sys tmp usr var ");
}

#[test]
fn a_container_s_limits_are_enforced_and_nothing_is_left_behind() {
    let sandbox = Sandbox::with_busybox();
    let name = format!("limits-{}", std::process::id());
    let limited = |options: &[&str], script: &str| {
        let words = [&["run", "--name", &name], options, &["busybox", "sh", "-c", script]].concat();
        sandbox.isolab(&words).finish()
    };
    let hog = limited(&["--memory", "32M"], "tail -c 256m /dev/zero | wc -c");
    assert_ne!(hog.stdout.trim(), (256 << 20).to_string(), "{hog:?}");
    let forks =
        limited(&["--pids-limit", "8"], "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait");
    assert!(forks.stderr.contains("can't fork"), "{forks:?}");
    let quiet = limited(&["--cpus", "0.5"], "echo fine").success();
    assert_eq!(quiet, "fine\n");
    assert_eq!(cgroups_named(&name), [""; 0]);
    assert_eq!(sandbox.instances(), [""; 0]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(sandbox.data().to_str().unwrap()), "{mounts}");
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let sandbox = Sandbox::with_busybox();
    let run = |words: &[&str]| sandbox.isolab(&[&["run"], words].concat()).finish();
    let never = ["--pull", "never", "no-such-image", "true"];
    run(&never).fails_with(125, &["no-such-image", "isolab image load"]);
    run(&["-u", "nosuchuser", "busybox", "true"]).fails_with(125, &["nosuchuser", "/etc/passwd"]);
    run(&["-w", "relative", "busybox", "true"]).fails_with(125, &["workdir", "relative"]);
    run(&["--memory", "12X", "busybox", "true"]).fails_with(125, &["12X"]);
    run(&["--cpus", "0.001", "busybox", "true"]).fails_with(125, &["cpu"]);
}
