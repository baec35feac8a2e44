//! Attacks on the runtime that others fell to, mounted here. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use error_reporter::Report;
use isolab_container::{Container, RootFilesystem, Stdio};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use serde_json::{Value, json};

use support::{Fixture, mounts_below, run};

/// Exchanges a directory and a symbolic link, as fast as it can, as long as `during` takes.
fn racing<T>(directory: &Path, link: &Path, during: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, directory, AT_FDCWD, link, RenameFlags::RENAME_EXCHANGE)
                    .unwrap();
            }
        });
        let result = during();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// CVE-2021-30465 and CVE-2019-19921: who shares a part of the root with a container that is being made exchanges a
/// directory on the way of a mount with a link that leads to the host.
#[test]
fn a_mount_goes_inside_while_its_way_is_exchanged_for_a_link_out() {
    let fixture = Fixture::new();
    let canary = fixture.path("canary");
    fs::create_dir_all(canary.join("sub")).unwrap();
    let root = fixture.path("rootfs");
    // Out by name, and by climbing; and what an honest root would make of the name exists inside.
    fs::create_dir_all(root.join(canary.strip_prefix("/").unwrap())).unwrap();
    for target in [
        canary.clone(),
        Path::new("../../../../../../../..").join(canary.strip_prefix("/").unwrap()),
    ] {
        let shared = root.join("shared");
        let link = shared.join("link");
        let _ = fs::remove_dir_all(&shared);
        fs::create_dir_all(shared.join("way/sub")).unwrap();
        symlink(&target, &link).unwrap();
        racing(&shared.join("way"), &link, || {
            for round in 0..60 {
                let script = "grep -c ' /shared/\\| /tmp/' /proc/self/mountinfo; echo inside > /shared/way/sub/file";
                let mut config = fixture.changed(&["sh", "-c", script], |spec| {
                    spec["mounts"].as_array_mut().unwrap().push(json!({
                        "destination": "/shared/way/sub", "type": "tmpfs", "source": "x", "options": ["size=64k"],
                    }));
                    spec["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/shared/way/masked"));
                });
                config.rootfs = RootFilesystem::Directory(root.clone());
                // It may fail, if it says why; the host must not be touched.
                if let Ok(mut container) = Container::create(config) {
                    let _ = container.start();
                    container.wait().unwrap();
                }
                assert_eq!(fs::read_dir(canary.join("sub")).unwrap().count(), 0, "{round}");
                assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "{round}");
            }
        });
        assert_eq!(mounts_below(&canary), Vec::<String>::new());
    }
}

/// CVE-2019-19921 as well: the image has another's /proc in the place of its own.
#[test]
fn proc_is_a_proc_and_not_what_the_image_puts_there() {
    let fixture = Fixture::new();
    let root = fixture.path("rootfs");
    fs::create_dir(root.join("fake")).unwrap();
    fs::remove_dir(root.join("proc")).unwrap();
    symlink("fake", root.join("proc")).unwrap();
    // The mount follows the link inside the root, and what is masked is masked where it is seen.
    let script = "stat -f -c %T /proc/; cat /proc/keys | wc -c; cat /fake/keys | wc -c; \
                  (echo x > /proc/sys/kernel/panic) 2>/dev/null || echo kept";
    let output = fixture.shell(script).output;
    assert_eq!(output, "proc\n0\n0\nkept\n", "{output}");
}

/// CVE-2025-31133: what hides a path is exchanged for something else.
#[test]
fn masks_are_what_they_are_meant_to_be_whatever_dev_holds() {
    let fixture = Fixture::new();
    let root = fixture.path("rootfs");
    // A null of the image's own, which leads to what is to be hidden.
    for target in ["/proc/sys/kernel/core_pattern", "/proc/self/mem"] {
        let dev = root.join("dev");
        fs::remove_dir_all(&dev).unwrap();
        fs::create_dir(&dev).unwrap();
        symlink(target, dev.join("null")).unwrap();
        let script = "cat /proc/keys | wc -c; cat /proc/timer_list | wc -c; \
                      for p in /proc/keys /proc/timer_list; do stat -c '%t:%T %F' $p; done; \
                      ls /proc/acpi /sys/firmware | grep -v : | grep -c .";
        // With a /dev of the image's own as well as the usual one.
        for own in [false, true] {
            let config = fixture.changed(&["sh", "-c", script], |spec| {
                if own {
                    let mounts = spec["mounts"].as_array_mut().unwrap();
                    mounts.retain(|one| !one["destination"].as_str().unwrap().starts_with("/dev"));
                }
            });
            match run(config) {
                Ok(outcome) => {
                    let node = "1:3 character special file\n";
                    assert_eq!(outcome.output, format!("0\n0\n{node}{node}0\n"), "{target} {own}");
                }
                Err(error) => assert!(own, "{error}"),
            }
        }
    }
}

/// CVE-2025-52881: writes to files of /proc that lead elsewhere. They go by the host's /proc, never the container's.
#[test]
fn sysctls_are_written_to_proc_itself() {
    let fixture = Fixture::new();
    let root = fixture.path("rootfs");
    fs::write(root.join("etc/trap"), "untouched").unwrap();
    let config = fixture.changed(&["cat", "/proc/sys/net/ipv4/ip_forward"], |spec| {
        spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        // In the way of who would go by the container's own.
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/proc/sys/net", "type": "bind", "source": root.join("etc"), "options": ["rbind"],
        }));
    });
    let outcome = run(config);
    assert_eq!(fs::read_to_string(root.join("etc/trap")).unwrap(), "untouched");
    assert_eq!(fs::read_dir(root.join("etc")).unwrap().count(), 1);
    drop(outcome);
}

/// CVE-2024-21626: a descriptor of the host's, left open, and a working directory or a program by it.
#[test]
fn no_descriptor_of_the_host_s_is_a_way_out() {
    let fixture = Fixture::new();
    let host = File::open("/").unwrap();
    let (low, high) = (host.as_raw_fd(), 900);
    // SAFETY: duplicates a descriptor to a number that nobody uses, without close-on-exec, as a careless caller would.
    assert_eq!(unsafe { libc::dup2(low, high) }, high);
    let outcome = fixture.shell("ls /proc/self/fd | sort -n | tail -1; ls /proc/self/fd/900/ 2>&1");
    assert!(
        outcome.output.contains("No such file") && !outcome.output.starts_with("900"),
        "{outcome:?}"
    );
    let everywhere = (3..20).chain([low, high]).map(|fd| format!("/proc/self/fd/{fd}"));
    for cwd in everywhere.clone().chain(everywhere.map(|path| path + "/../../..")) {
        let config =
            fixture.changed(&["sh", "-c", "ls; pwd"], |spec| spec["process"]["cwd"] = json!(cwd));
        match run(config) {
            Err(error) => {
                let text = Report::new(error).to_string();
                assert!(text.contains("working directory"), "{cwd}: {text}");
            }
            // Inside, if anywhere.
            Ok(outcome) => assert!(!outcome.output.contains("boot"), "{cwd}: {outcome:?}"),
        }
    }
    // Nor for one that joins.
    let mut container = Container::create(fixture.config(&["sleep", "1000"])).unwrap();
    container.start().unwrap();
    for fd in [3, 4, 5, 6, 7, low, high] {
        let mut process = isolab_container::default_process(
            ["sh", "-c", "[ ! -e /proc/self/cwd/boot ]"].map(String::from).to_vec(),
            vec![support::PATH.to_owned()],
        );
        process.set_cwd(format!("/proc/self/fd/{fd}").into());
        if let Ok(executed) = container.handle().unwrap().exec(&process, Stdio::null()) {
            assert_eq!(executed.wait().unwrap().code(), 0, "{fd}");
        }
    }
    // SAFETY: ours.
    unsafe { libc::close(high) };
}

/// What there is of a container on the host.
fn traces(fixture: &Fixture, id: &str) -> Vec<String> {
    let mut found = mounts_below(fixture.dir.path());
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().contains(id) {
                    found.push(entry.path().display().to_string());
                }
                folders.push(entry.path());
            }
        }
    }
    let own = std::process::id();
    let children =
        fs::read_to_string(format!("/proc/{own}/task/{}/children", nix::unistd::gettid())).unwrap();
    found.extend(children.split_whitespace().map(|pid| format!("process {pid}")));
    found
}

/// Each step is made to fail, from the first to the last: an error that says where, and nothing is left.
#[test]
fn whatever_step_fails_nothing_is_left() {
    let fixture = Fixture::new();
    fs::write(fixture.path("rootfs/file"), "").unwrap();
    type Change = fn(&mut Value);
    let steps: [(&str, Change); 22] = [
        ("linux.namespaces", |spec| {
            spec["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "ipc", "path": "/dev/null"}])
        }),
        ("oom_score_adj", |spec| spec["process"]["oomScoreAdj"] = json!(5000)),
        ("time namespace", |spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
            spec["linux"]["timeOffsets"] = json!({"boottime": {"secs": -4_000_000_000i64}});
        }),
        ("hostname", |spec| spec["hostname"] = json!("x".repeat(100))),
        ("domain name", |spec| spec["domainname"] = json!("x".repeat(100))),
        ("mount destination", |spec| {
            push(spec, json!({"destination": "/file/x", "type": "tmpfs", "source": "x"}))
        }),
        ("mount nosuchfs", |spec| {
            push(spec, json!({"destination": "/x", "type": "nosuchfs", "source": "x"}))
        }),
        ("mount tmpfs", |spec| {
            push(
                spec,
                json!({"destination": "/x", "type": "tmpfs", "source": "x", "options": ["bad=1"]}),
            )
        }),
        ("bind mount source", |spec| {
            push(spec, json!({"destination": "/x", "type": "bind", "source": "/absent"}))
        }),
        ("copy what is below", |spec| {
            push(
                spec,
                json!({"destination": "/bin", "type": "tmpfs", "source": "x", "options": ["tmpcopyup", "size=64k"]}),
            )
        }),
        ("create device", |spec| {
            spec["linux"]["devices"] =
                json!([{"path": "/file/x", "type": "c", "major": 1, "minor": 3}])
        }),
        ("cgroup", |spec| spec["linux"]["resources"]["cpu"] = json!({"cpus": "4000"})),
        ("hooks.createRuntime", |spec| {
            spec["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]})
        }),
        ("hooks.createContainer", |spec| {
            spec["hooks"] = json!({"createContainer": [{"path": "/bin/false"}]})
        }),
        ("set sysctl", |spec| spec["linux"]["sysctl"] = json!({"net.absent": "1"})),
        ("memoryPolicy", |spec| {
            spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "900"})
        }),
        ("RLIMIT_NOFILE", |spec| {
            spec["process"]["rlimits"] =
                json!([{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1u64 << 40}])
        }),
        ("working directory", |spec| spec["process"]["cwd"] = json!("/absent")),
        ("seccomp notifications", |spec| {
            let rule = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
            spec["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/absent", "syscalls": rule});
        }),
        ("hooks.startContainer", |spec| {
            spec["hooks"] = json!({"startContainer": [{"path": "/bin/false"}]})
        }),
        ("command not found", |spec| spec["process"]["args"] = json!(["absent"])),
        ("cannot be executed", |spec| spec["process"]["args"] = json!(["/file"])),
    ];
    for (words, change) in steps {
        let mut config = fixture.changed(&["true"], change);
        config.id = "each-step-fails".into();
        // Without what the kernel gives it for a namespace, a container would end by itself.
        let error = match Container::create(config) {
            Err(error) => error,
            Ok(mut container) => container.start().expect_err(words),
        };
        let text = Report::new(error).to_string();
        assert!(text.contains(words), "{words}: {text}");
        assert_eq!(traces(&fixture, "each-step-fails"), Vec::<String>::new(), "{words}");
    }
}

fn push(spec: &mut Value, mount: Value) {
    spec["mounts"].as_array_mut().unwrap().push(mount);
}
