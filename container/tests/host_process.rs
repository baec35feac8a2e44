//! The baseline: a plain process in another root behaves as a container does, without the isolation. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;

use isolab_container::{HostProcess, RootFilesystem, Signal};

use support::{Fixture, mounts_below, run_host};

#[test]
fn it_runs_in_the_image_with_the_hosts_kernel_interfaces() {
    let fixture = Fixture::new();
    let script = "ls /; hostname; [ -e /proc/1/comm ] && [ -c /dev/null ] && [ -d /sys/kernel ] && echo host";
    let outcome = run_host(fixture.host_config(&["sh", "-c", script])).unwrap();
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(outcome.output, format!("bin\ndev\netc\nproc\nroot\nsys\ntmp\n{hostname}host\n"));
    assert_eq!(mounts_below(fixture.dir.path()), Vec::<String>::new());
}

#[test]
fn a_directory_without_the_hosts_filesystems_needs_no_mounts() {
    let fixture = Fixture::new();
    let mut config = fixture.host_config(&["sh", "-c", "ls /proc; echo x > /tmp/x; exit 5"]);
    config.rootfs = RootFilesystem::Directory(fixture.path("rootfs"));
    config.host_filesystems = false;
    let outcome = run_host(config).unwrap();
    assert_eq!((outcome.status.code(), outcome.output.as_str()), (5, ""));
    assert!(fixture.path("rootfs/tmp/x").exists());
}

#[test]
fn missing_and_unusable_commands_as_in_a_container() {
    let fixture = Fixture::new();
    for (command, code) in [("absent", 127), ("/bin", 126)] {
        let mut process = HostProcess::create(fixture.host_config(&[command])).unwrap();
        assert_eq!(process.start().unwrap_err().exit_code(), code);
        assert_eq!(process.wait().unwrap().code(), code);
    }
}

#[test]
fn signals_kill_it_and_dropping_leaves_nothing() {
    let fixture = Fixture::new();
    let mut process = HostProcess::create(fixture.host_config(&["sleep", "1000"])).unwrap();
    process.start().unwrap();
    process.signal(Signal::SIGTERM).unwrap();
    assert_eq!(process.wait().unwrap().code(), 143);
    process.remove().unwrap();
    let mut process =
        HostProcess::create(fixture.host_config(&["sh", "-c", "sleep 1000 & wait"])).unwrap();
    process.start().unwrap();
    let cgroups = process.cgroup_directories();
    drop(process);
    assert!(!cgroups.is_empty() && cgroups.iter().all(|path| !path.exists()));
}
