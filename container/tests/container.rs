//! Real containers: what the process inside sees, and what is left outside. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use error_reporter::Report;
use isolab_container::{
    CgroupError, CgroupPlacement, Container, Error, ExitStatus, Limits, RootFilesystem, Signal,
};

use serde_json::json;

use support::{Fixture, capture, mounts_below, read_all, run};

#[test]
fn the_first_process_is_pid_1_of_its_own_host() {
    let outcome = Fixture::new()
        .shell("echo $$; hostname; id -u; ls /proc | head -1; cat /proc/sys/kernel/ostype");
    assert_eq!(outcome.output, "1\ntesthost\n0\n1\nLinux\n");
    assert_eq!(outcome.status, ExitStatus::Exited(0));
}

#[test]
fn exit_codes_pass_through() {
    let fixture = Fixture::new();
    assert_eq!(fixture.shell("exit 42").status.code(), 42);
    assert_eq!(
        fixture.shell("kill -KILL $$").status.code(),
        0,
        "pid 1 is immune against its own signals"
    );
    assert_eq!(fixture.shell("sh -c 'kill -TERM $$'; exit $?").status.code(), 143);
}

#[test]
fn a_missing_command_is_127_and_one_that_cannot_run_is_126() {
    let fixture = Fixture::new();
    fs::write(fixture.path("rootfs/bin/text"), "no program").unwrap();
    for (command, code) in [
        ("absent", 127),
        ("/bin/absent", 127),
        ("/bin/busybox/x", 127),
        ("/bin", 126),
        ("/etc/", 126),
        ("text", 126),
    ] {
        let mut container = Container::create(fixture.config(&[command])).unwrap();
        let error = container.start().unwrap_err();
        assert_eq!(error.exit_code(), code, "{command}: {error}");
        assert!(error.to_string().contains(command), "{error}");
        assert_eq!(container.wait().unwrap(), ExitStatus::Exited(code));
    }
    // Executable by its mode, but not a program.
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(fixture.path("rootfs/bin/text"), PermissionsExt::from_mode(0o755)).unwrap();
    let error = Report::new(run(fixture.config(&["text"])).unwrap_err()).to_string();
    assert!(error.contains("Exec format error"), "{error}");
}

#[test]
fn the_environment_is_exactly_the_configured_one() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["env"]);
    let env = vec![support::PATH.to_owned(), "A=b c=d".to_owned()];
    config.spec.process_mut().as_mut().unwrap().set_env(Some(env));
    assert_eq!(run(config).unwrap().output, format!("{}\nA=b c=d\n", support::PATH));
}

#[test]
fn what_the_container_writes_lands_in_the_upper_directory_and_its_mounts_nowhere() {
    let fixture = Fixture::new();
    let outcome = fixture.shell("echo hello > /written; mount -t tmpfs none /tmp; echo $?");
    // Mounting needs CAP_SYS_ADMIN, which is not among the defaults.
    assert!(
        outcome.output.contains("denied") || outcome.output.contains("not permitted"),
        "{}",
        outcome.output
    );
    assert_eq!(fs::read_to_string(fixture.path("upper/written")).unwrap(), "hello\n");
    assert!(!fixture.path("rootfs/written").exists());
    assert_eq!(mounts_below(fixture.dir.path()), Vec::<String>::new());
}

#[test]
fn the_host_is_out_of_sight() {
    let fixture = Fixture::new();
    fs::write(fixture.path("secret"), "").unwrap();
    let outcome = fixture.shell("ls /; cat /proc/self/mountinfo");
    assert!(
        !outcome.output.contains(&fixture.path("upper").display().to_string()),
        "{}",
        outcome.output
    );
    assert!(
        outcome.output.starts_with("bin\ndev\netc\nproc\nroot\nsys\ntmp\n"),
        "{}",
        outcome.output
    );
}

#[test]
fn capabilities_are_the_default_set_and_no_new_privs_is_set() {
    let output = {
        let fixture = Fixture::new();
        run(fixture.config(&["cat", "/proc/self/status"])).unwrap().output
    };
    let line = |key: &str| {
        let line = output.lines().find_map(|line| line.strip_prefix(key));
        line.map(|value| value.trim().to_owned()).unwrap_or_else(|| panic!("no {key} in {output}"))
    };
    // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot audit_write setfcap
    let expected = "00000000a00425fb";
    assert_eq!([line("CapEff:"), line("CapPrm:"), line("CapBnd:")], [expected, expected, expected]);
    assert_eq!([line("CapInh:"), line("CapAmb:")], ["0000000000000000", "0000000000000000"]);
    assert_eq!(line("NoNewPrivs:"), "1");
    assert_eq!([line("SigBlk:"), line("SigIgn:")], ["0000000000000000", "0000000000000000"]);
}

#[test]
fn another_user_has_no_capabilities() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "id; cat /proc/self/status; umask"]);
    let process = config.spec.process_mut().as_mut().unwrap();
    process
        .user_mut()
        .set_uid(1000)
        .set_gid(1001)
        .set_additional_gids(Some(vec![5, 6]))
        .set_umask(Some(0o027));
    let output = run(config).unwrap().output;
    assert!(output.contains("uid=1000 gid=1001 groups=5,6"), "{output}");
    assert!(output.contains("CapEff:\t0000000000000000"), "{output}");
    assert!(output.ends_with("0027\n"), "{output}");
}

#[test]
fn dev_is_as_the_oci_specification_demands() {
    let outcome = Fixture::new().shell(
        "for d in null zero full random urandom tty; do [ -c /dev/$d ] || echo missing $d; done; \
         for l in fd stdin stdout stderr ptmx; do [ -L /dev/$l ] || echo missing $l; done; \
         [ -d /dev/pts ] && [ -d /dev/shm ] && [ -d /dev/mqueue ] && echo x > /dev/null && \
         head -c 3 /dev/zero | wc -c; echo y > /dev/shm/y && cat /dev/shm/y; ls /dev/pts",
    );
    assert_eq!(outcome.output.trim_start().lines().collect::<Vec<_>>(), ["3", "y", "ptmx"]);
}

#[test]
fn sys_and_parts_of_proc_are_read_only_and_masked() {
    let output = Fixture::new()
        .shell(
            "echo 1 > /proc/sys/kernel/panic || echo proc-ro; echo x > /proc/sysrq-trigger || echo trigger-ro; \
             mkdir /sys/x || echo sys-ro; cat /proc/keys | wc -c; ls /sys/firmware | wc -l; \
             mkdir /sys/fs/cgroup/x || echo cgroup-ro",
        )
        .output;
    for expected in ["proc-ro", "trigger-ro", "sys-ro", "cgroup-ro"] {
        assert!(output.contains(expected), "{output}");
    }
    assert_eq!(output.lines().filter(|line| line.trim() == "0").count(), 2, "{output}");
}

#[test]
fn a_read_only_root_is_read_only() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&[
        "sh",
        "-c",
        "echo x > /x || echo refused; echo y > /dev/shm/y && echo fine",
    ]);
    config.spec.root_mut().as_mut().unwrap().set_readonly(Some(true));
    let output = run(config).unwrap().output;
    assert!(output.contains("Read-only") && output.contains("refused\nfine"), "{output}");
    assert!(!fixture.path("upper/x").exists());
}

#[test]
fn bind_mounts_of_directories_and_files_with_their_options() {
    let fixture = Fixture::new();
    fs::create_dir(fixture.path("shared")).unwrap();
    fs::write(fixture.path("shared/in"), "from host").unwrap();
    let mut config = fixture.config(&[
        "sh",
        "-c",
        "cat /new/dir/in; echo back > /new/dir/out; cat /etc/one; echo x > /etc/one || echo one-ro",
    ]);
    let bind = |source: &str, target: &str, options: &[&str]| {
        isolab_container::oci::MountBuilder::default()
            .destination(target)
            .source(fixture.path(source))
            .typ("bind")
            .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
            .build()
            .unwrap()
    };
    let mounts = config.spec.mounts_mut().as_mut().unwrap();
    mounts.push(bind("shared", "/new/dir", &["rbind"]));
    mounts.push(bind("shared/in", "/etc/one", &["bind", "ro", "nosuid"]));
    let output = run(config).unwrap().output;
    assert!(output.starts_with("from hostfrom host"), "{output}");
    assert!(output.ends_with("one-ro\n"), "{output}");
    assert_eq!(fs::read_to_string(fixture.path("shared/out")).unwrap(), "back\n");
}

#[test]
fn many_layers_with_awkward_names_and_the_topmost_first() {
    let fixture = Fixture::new();
    let mut lower = Vec::new();
    for layer in 0..120 {
        let path = fixture.path(&format!("layer:{layer},{}", "x".repeat(120)));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("which"), layer.to_string()).unwrap();
        lower.push(path);
    }
    lower.push(fixture.path("rootfs"));
    let mut config = fixture.config(&["cat", "/which"]);
    config.rootfs =
        RootFilesystem::Overlay { lower, upper: fixture.path("upper"), work: fixture.path("work") };
    assert_eq!(run(config).unwrap().output, "0");
}

#[test]
fn a_hostile_image_cannot_lead_mounts_out_of_its_root() {
    let fixture = Fixture::new();
    let canary = fixture.path("canary");
    fs::create_dir(&canary).unwrap();
    let root = fixture.path("rootfs");
    for (name, target) in [
        ("proc", "/etc".to_owned()),
        ("dev", "../../../../../../../..".to_owned() + canary.to_str().unwrap()),
        ("sys", canary.display().to_string()),
    ] {
        fs::remove_dir(root.join(name)).unwrap();
        symlink(target, root.join(name)).unwrap();
    }
    fs::create_dir_all(root.join(canary.strip_prefix("/").unwrap())).unwrap();
    // It may run or be refused; it must not touch the host.
    let outcome = run(fixture.config(&["/bin/true"]));
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0, "{outcome:?}");
    // What others mount meanwhile does not matter.
    assert_eq!(mounts_below(fixture.dir.path()), Vec::<String>::new());
    let on_etc = |line: &String| line.split(' ').nth(4) == Some("/etc");
    assert!(!mounts_below(Path::new("/etc")).iter().any(on_etc));
    assert!(Path::new("/etc/passwd").exists());
    assert!(outcome.is_err() || outcome.unwrap().status == ExitStatus::Exited(0));
}

#[test]
fn the_working_directory_must_exist_unless_it_is_to_be_created() {
    let fixture = Fixture::new();
    let config = |create| {
        let mut config = fixture.config(&["sh", "-c", "pwd"]);
        config.spec.process_mut().as_mut().unwrap().set_cwd("/srv/app".into());
        config.create_cwd = create;
        config
    };
    let error = Report::new(run(config(false)).unwrap_err()).to_string();
    assert!(error.contains("/srv/app") && error.contains("No such file"), "{error}");
    assert_eq!(run(config(true)).unwrap().output, "/srv/app\n");
}

#[test]
fn signals_reach_a_process_that_handles_them_and_kill_always_does() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&[
        "sh",
        "-c",
        "trap 'echo got; exit 7' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    let output = capture(&mut config.stdio);
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    let mut reader = fs::File::from(output);
    let mut ready = [0u8; 6];
    std::io::Read::read_exact(&mut reader, &mut ready).unwrap();
    container.signal(Signal::SIGTERM).unwrap();
    assert_eq!(container.wait().unwrap(), ExitStatus::Exited(7));
    assert_eq!(read_all(reader.into()), "got\n");
    container.signal(Signal::SIGTERM).expect("a signal to the dead is no error");

    let mut container = Container::create(fixture.config(&["sleep", "1000"])).unwrap();
    container.start().unwrap();
    assert_eq!(container.try_wait().unwrap(), None);
    container.signal(Signal::SIGKILL).unwrap();
    assert_eq!(
        container.wait().unwrap(),
        ExitStatus::Signaled { signal: Signal::SIGKILL, oom_killed: false }
    );
}

#[test]
fn creating_runs_nothing_and_dropping_leaves_nothing() {
    let fixture = Fixture::new();
    let container = Container::create(fixture.config(&["sh", "-c", "echo ran > /ran"])).unwrap();
    let (pid, cgroups) = (container.pid(), container.cgroup_directories());
    assert!(!cgroups.is_empty() && cgroups.iter().all(|path| path.exists()));
    drop(container);
    assert!(!fixture.path("upper/ran").exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert!(cgroups.iter().all(|path| !path.exists()));
}

#[test]
fn dropping_a_running_container_kills_all_of_it() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "sleep 1000 & sleep 1000 & echo up; wait"]);
    let output = capture(&mut config.stdio);
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    let mut reader = fs::File::from(output);
    std::io::Read::read_exact(&mut reader, &mut [0u8; 3]).unwrap();
    let cgroups = container.cgroup_directories();
    drop(container);
    // End-of-file: nobody holds the pipe any more.
    assert_eq!(read_all(reader.into()), "");
    assert!(cgroups.iter().all(|path| !path.exists()), "{cgroups:?}");
}

#[test]
fn a_failed_create_names_the_step_and_leaves_nothing() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["true"]);
    config.id = "failing".into();
    let bad = isolab_container::oci::MountBuilder::default()
        .destination("/x")
        .typ("nosuchfs")
        .source("none");
    config.spec.mounts_mut().as_mut().unwrap().push(bad.build().unwrap());
    let error = Report::new(Container::create(config).unwrap_err()).to_string();
    assert!(error.contains("mount nosuchfs on /x") && error.contains("No such device"), "{error}");
    assert_eq!(mounts_below(fixture.dir.path()), Vec::<String>::new());
    // The id is free again, in the cgroup tree as well.
    let mut again = fixture.config(&["true"]);
    again.id = "failing".into();
    assert_eq!(run(again).unwrap().status.code(), 0);
}

#[test]
fn an_id_in_use_is_refused_and_its_owner_undisturbed() {
    let fixture = Fixture::new();
    let mut first = fixture.config(&["sleep", "1000"]);
    first.id = "twice".into();
    let mut owner = Container::create(first).unwrap();
    owner.start().unwrap();
    let mut second = fixture.config(&["true"]);
    second.id = "twice".into();
    let refused = Container::create(second).unwrap_err();
    assert!(matches!(&refused, Error::Cgroup(CgroupError::InUse { .. })), "{refused}");
    assert_eq!(owner.try_wait().unwrap(), None);
}

#[test]
fn signals_that_the_caller_ignores_are_not_ignored_inside() {
    for signal in [Signal::SIGUSR1 as i32, Signal::SIGPIPE as i32, libc::SIGRTMAX()] {
        // SAFETY: SIG_IGN is no handler that could run.
        let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
        assert_ne!(before, libc::SIG_ERR);
    }
    let fixture = Fixture::new();
    let outcome = run(fixture.config(&["cat", "/proc/self/status"])).unwrap().output;
    assert!(outcome.contains("SigIgn:\t0000000000000000"), "{outcome}");
    assert!(outcome.contains("SigBlk:\t0000000000000000"), "{outcome}");
}

#[test]
fn raising_a_limit_without_the_right_says_what_is_missing() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "ulimit -n"]);
    let limit = |soft, hard| {
        let limit = isolab_container::oci::PosixRlimitBuilder::default();
        let typ = isolab_container::oci::PosixRlimitType::RlimitNofile;
        vec![limit.typ(typ).soft(soft).hard(hard).build().unwrap()]
    };
    config.spec.process_mut().as_mut().unwrap().set_rlimits(Some(limit(64, 128)));
    assert_eq!(run(config).unwrap().output, "64\n");
    // Above fs.nr_open nobody may go, CAP_SYS_RESOURCE or not.
    let mut config = fixture.config(&["true"]);
    config
        .spec
        .process_mut()
        .as_mut()
        .unwrap()
        .set_rlimits(Some(limit(u64::MAX >> 1, u64::MAX >> 1)));
    let error = run(config).unwrap_err().to_string();
    assert!(error.contains("RLIMIT_NOFILE") && error.contains("CAP_SYS_RESOURCE"), "{error}");
}

#[test]
fn what_the_host_cannot_do_is_refused_not_ignored() {
    let fixture = Fixture::new();
    let mut fields = vec![("/linux/intelRdt", json!({"closID": "x"}), "linux.intelRdt")];
    if !Path::new("/sys/module/apparmor").exists() {
        fields.push(("/process/apparmorProfile", json!("any"), "process.apparmorProfile"));
    }
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        fields.push(("/process/selinuxLabel", json!("any"), "process.selinuxLabel"));
        fields.push(("/linux/mountLabel", json!("any"), "linux.mountLabel"));
    }
    for (place, value, field) in fields {
        let (section, name) = place[1..].split_once('/').unwrap();
        let config = fixture.changed(&["true"], |spec| spec[section][name] = value);
        let error = Container::create(config).unwrap_err();
        assert!(matches!(&error, Error::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains(field), "{error}");
    }
}

#[test]
fn limits_in_the_callers_own_cgroup_are_a_contradiction() {
    let mut fixture = Fixture::new();
    fixture.limits = Limits { pids: Some(5), ..Limits::default() };
    let mut config = fixture.config(&["true"]);
    config.cgroup = CgroupPlacement::Inherit;
    assert!(Container::create(config).is_err());
}

#[test]
fn starting_twice_is_an_error() {
    let fixture = Fixture::new();
    let mut container = Container::create(fixture.config(&["true"])).unwrap();
    container.start().unwrap();
    assert!(matches!(container.start(), Err(Error::State { .. })));
    assert_eq!(container.wait().unwrap(), ExitStatus::Exited(0));
}

#[test]
fn containers_made_by_many_threads_at_once_do_not_wait_for_each_other() {
    let fixture = Fixture::new();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let fixture = &fixture;
            scope.spawn(move || {
                for round in 0..3 {
                    let mut config = fixture.config(&["sh", "-c", "echo $$"]);
                    config.rootfs = RootFilesystem::Directory(fixture.path("rootfs"));
                    let outcome =
                        run(config).unwrap_or_else(|error| panic!("{thread}/{round}: {error}"));
                    assert_eq!(outcome.output, "1\n");
                }
            });
        }
    });
}
