//! Cgroups: limits that bind, figures that are read, trees that cannot be written. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;

use isolab_container::{CgroupError, Container, Error, ExitStatus, Limits, Signal};

use support::{Fixture, capture, read_all, run, run_host};

/// Allocates and touches about 200 MiB: dd's buffer.
const ALLOCATE: [&str; 4] = ["dd", "if=/dev/zero", "of=/dev/null", "bs=200M"];

fn limited(limits: Limits) -> Fixture {
    let mut fixture = Fixture::new();
    fixture.limits = limits;
    fixture
}

#[test]
fn a_memory_limit_kills_and_says_so() {
    let fixture = limited(Limits { memory_bytes: Some(32 << 20), ..Limits::default() });
    let outcome = run(fixture.config(&ALLOCATE)).unwrap();
    assert_eq!(outcome.status, ExitStatus::Signaled { signal: Signal::SIGKILL, oom_killed: true });
    assert_eq!(outcome.status.code(), 137);
    let outcome = run_host(fixture.host_config(&ALLOCATE)).unwrap();
    assert_eq!(outcome.status, ExitStatus::Signaled { signal: Signal::SIGKILL, oom_killed: true });
    // A child that is killed leaves its parent's exit code alone, and is told all the same.
    let outcome = fixture.shell("dd if=/dev/zero of=/dev/null bs=200M; exit 3");
    assert_eq!((outcome.status, outcome.oom_killed), (ExitStatus::Exited(3), true));
}

#[test]
fn a_pids_limit_stops_forks() {
    let fixture = limited(Limits { pids: Some(4), ..Limits::default() });
    let script = "for i in 1 2 3 4 5 6; do sleep 1000 & done; echo unreachable";
    let outcome = fixture.shell(script);
    assert!(outcome.output.contains("can't fork"), "{}", outcome.output);
}

#[test]
fn limits_are_in_the_control_files() {
    let fixture = limited(Limits { memory_bytes: Some(64 << 20), cpus: Some(0.5), pids: Some(7) });
    let container = Container::create(fixture.config(&["true"])).unwrap();
    let read = |names: [&str; 2]| {
        let directories = container.cgroup_directories();
        let mut files = directories.iter().flat_map(|dir| names.map(|name| dir.join(name)));
        let file = files
            .find(|file| file.exists())
            .unwrap_or_else(|| panic!("no {names:?} in {directories:?}"));
        fs::read_to_string(file).unwrap().trim().to_owned()
    };
    assert_eq!(read(["memory.max", "memory.limit_in_bytes"]), (64 << 20).to_string());
    assert_eq!(read(["pids.max", "pids.max"]), "7");
    assert!(["50000 100000", "50000"].contains(&read(["cpu.max", "cpu.cfs_quota_us"]).as_str()));
    let procs = read(["cgroup.procs", "cgroup.procs"]);
    assert_eq!(procs, container.pid().to_string());
}

#[test]
fn stats_tell_what_was_used() {
    let fixture = limited(Limits { memory_bytes: Some(256 << 20), ..Limits::default() });
    let mut config =
        fixture.config(&["sh", "-c", "dd if=/dev/zero of=/dev/null bs=20M count=3 2>/dev/null"]);
    let output = capture(&mut config.stdio);
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    assert_eq!(read_all(output), "");
    container.wait().unwrap();
    let stats = container.stats();
    assert!(stats.memory_peak_bytes.is_none_or(|peak| peak > 20 << 20), "{stats:?}");
    assert!(stats.cpu_usage_microseconds.is_some_and(|usage| usage > 0), "{stats:?}");
    assert_eq!((stats.oom_kills, stats.pids_current), (Some(0), Some(0)), "{stats:?}");
}

#[test]
fn the_container_sees_its_own_cgroup_as_the_top() {
    let output = Fixture::new().shell("cat /proc/self/cgroup").output;
    for line in output.lines().filter(|line| line.contains("memory") || line.starts_with("0:")) {
        assert!(line.ends_with(":/"), "{output}");
    }
}

#[test]
fn a_cgroup_path_out_of_the_tree_and_a_bad_value_are_refused_and_leave_nothing() {
    let fixture = limited(Limits { memory_bytes: Some(64 << 20), ..Limits::default() });
    let mut config = fixture.config(&["true"]);
    config.spec.linux_mut().as_mut().unwrap().set_cgroups_path(Some("/../escape".into()));
    assert!(matches!(Container::create(config), Err(Error::Cgroup(CgroupError::BadPath { .. }))));

    let mut config = fixture.config(&["true"]);
    let id = config.id.clone();
    let resources = config.spec.linux_mut().as_mut().unwrap().resources_mut().as_mut().unwrap();
    let cpu =
        isolab_container::oci::LinuxCpuBuilder::default().quota(1).period(1u64).build().unwrap();
    resources.set_cpu(Some(cpu));
    let error = Container::create(config).unwrap_err();
    assert!(matches!(error, Error::Cgroup(CgroupError::Limit { .. })), "{error}");
    let found =
        std::process::Command::new("find").args(["/sys/fs/cgroup", "-name", &id]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
