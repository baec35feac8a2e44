//! `linux.seccomp`, by what the kernel answers to calls from inside. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use isolab_container::{Container, Stdio, Stream};
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};

use support::{Fixture, capture, read_all, run};

fn filtered(fixture: &Fixture, script: &str, seccomp: Value) -> (i32, String) {
    let config = fixture.changed(&["sh", "-c", script], |spec| spec["linux"]["seccomp"] = seccomp);
    let outcome = run(config).unwrap();
    (outcome.status.code(), outcome.output)
}

#[test]
fn every_action_with_and_without_no_new_privs() {
    let fixture = Fixture::new();
    let bad_system_call = 128 + 31;
    for (action, errno, code, said) in [
        ("ERRNO", Some(28), 1, "No space left on device"),
        ("ERRNO", None, 1, "Operation not permitted"),
        // Nobody traces.
        ("TRACE", Some(5), 1, "Function not implemented"),
        ("TRAP", None, bad_system_call, "Bad system call"),
        ("KILL", None, bad_system_call, "Bad system call"),
        ("KILL_THREAD", None, bad_system_call, "Bad system call"),
        ("KILL_PROCESS", None, bad_system_call, "Bad system call"),
        ("LOG", None, 0, ""),
        ("ALLOW", None, 0, ""),
    ] {
        for no_new_privileges in [true, false] {
            let mut rule =
                json!({"names": ["mkdir", "no_such_call"], "action": format!("SCMP_ACT_{action}")});
            if let Some(errno) = errno {
                rule["errnoRet"] = json!(errno);
            }
            let config = fixture.changed(
                &["sh", "-c", "mkdir /made; c=$?; rm -rf /made; exit $c"],
                |spec| {
                    spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
                    spec["linux"]["seccomp"] =
                        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
                },
            );
            let outcome = run(config).unwrap();
            assert_eq!(outcome.status.code(), code, "{action}: {outcome:?}");
            assert!(outcome.output.contains(said), "{action}: {outcome:?}");
        }
    }
}

#[test]
fn every_operator_sees_all_of_an_argument() {
    let fixture = Fixture::new();
    let big = (1u64 << 32) + 5;
    let sizes = [4, 5, 6, 1 << 32, big, big + 1];
    for (operator, value, two, denied) in [
        ("EQ", big, 0, vec![big]),
        ("NE", big, 0, vec![4, 5, 6, 1 << 32, big + 1]),
        ("LT", big, 0, vec![4, 5, 6, 1 << 32]),
        ("LE", big, 0, vec![4, 5, 6, 1 << 32, big]),
        ("GT", 5, 0, vec![6, 1 << 32, big, big + 1]),
        ("GE", 5, 0, vec![5, 6, 1 << 32, big, big + 1]),
        ("MASKED_EQ", 0xffff_ffff, 5, vec![5, big]),
    ] {
        let rule = json!({
            "names": ["ftruncate"], "action": "SCMP_ACT_ERRNO", "errnoRet": 12,
            "args": [{"index": 1, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{operator}")}],
        });
        let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let list = sizes.map(|size| size.to_string()).join(" ");
        let script = format!(
            "cd /dev/shm; for n in {list}; do truncate -s $n f 2>/dev/null || echo $n; done"
        );
        let expected: String = denied.iter().map(|size| format!("{size}\n")).collect();
        assert_eq!(filtered(&fixture, &script, seccomp), (0, expected), "{operator}");
    }
}

#[test]
fn what_is_not_allowed_is_denied_and_the_flags_are_taken() {
    let fixture = Fixture::new();
    // What busybox and the way to it need; the rest gets the default.
    let names = [
        "read",
        "write",
        "close",
        "execve",
        "brk",
        "arch_prctl",
        "mmap",
        "munmap",
        "mprotect",
        "open",
        "openat",
        "fstat",
        "stat",
        "lstat",
        "newfstatat",
        "exit_group",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "getrandom",
        "readlinkat",
        "readlink",
        "getuid",
        "getgid",
        "geteuid",
        "getegid",
        "getpid",
        "getppid",
        "rt_sigaction",
        "rt_sigprocmask",
        "ioctl",
        "wait4",
        "clone",
        "fork",
        "vfork",
        "dup2",
        "fcntl",
        "getcwd",
        "poll",
        "sched_yield",
        "futex",
        "exit",
        "kill",
        "time",
        "gettimeofday",
        "clock_gettime",
        "prctl",
        "execveat",
        "sendto",
        "rt_sigreturn",
        "uname",
    ];
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 40,
        "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [{"names": names.as_slice(), "action": "SCMP_ACT_ALLOW"}],
    });
    let (code, output) = filtered(&fixture, "grep Seccomp: /proc/self/status; mkdir /x", seccomp);
    assert_eq!((code, output.contains("Seccomp:\t2")), (1, true), "{output}");
    assert!(output.contains("Too many levels of symbolic links"), "{output}");
}

/// podman's own, as it resolves it for a container with the usual capabilities.
#[test]
fn podman_s_profile() {
    let path = "/usr/share/containers/seccomp.json";
    let text = fs::read(path)
        .unwrap_or_else(|_| panic!("{path}: install golang-github-containers-common"));
    let mut profile: Value = serde_json::from_slice(&text).unwrap();
    let has = |list: &Value, wanted: &[&str]| {
        list.as_array()
            .is_some_and(|list| list.iter().any(|one| wanted.contains(&one.as_str().unwrap())))
    };
    let (held, arches) = (["CAP_SYS_CHROOT", "CAP_AUDIT_WRITE"], ["amd64", "x86", "x32"]);
    let applies = |rule: &Value| {
        let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
        (includes["caps"].is_null() || has(&includes["caps"], &held))
            && (includes["arches"].is_null() || has(&includes["arches"], &arches))
            && !has(&excludes["caps"], &held)
    };
    profile["syscalls"].as_array_mut().unwrap().retain(applies);
    profile["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    let fixture = Fixture::new();
    let script = "mkdir /x && ls -d /x; mount -t tmpfs none /x; date -s 2000-01-01 >/dev/null";
    let (_, output) = filtered(&fixture, script, profile);
    assert!(output.starts_with("/x\n"), "{output}");
    assert_eq!(
        output.matches("ermission denied").count() + output.matches("not permitted").count(),
        2,
        "{output}"
    );
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    let fixture = Fixture::new();
    let notify = json!([{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]);
    for (seccomp, field) in [
        (json!({"defaultAction": "SCMP_ACT_NOTIFY"}), "linux.seccomp.defaultAction"),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_AARCH64"]}),
            "linux.seccomp.architectures",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": notify}),
            "linux.seccomp.listenerPath",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"}),
            "linux.seccomp.listenerMetadata",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            "linux.seccomp.flags",
        ),
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}),
            "linux.seccomp.syscalls",
        ),
        // Nobody is there.
        (
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/none", "syscalls": notify}),
            "linux.seccomp.listenerPath",
        ),
    ] {
        let config = fixture.changed(&["true"], |spec| spec["linux"]["seccomp"] = seccomp);
        let error = Container::create(config).unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
}

/// Takes one connection: what was said, and the descriptor.
fn receive(listener: &UnixListener) -> (Value, OwnedFd) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut first = [0u8; 1];
    let mut parts = [IoSliceMut::new(&mut first)];
    let mut space = nix::cmsg_space!(RawFd);
    let message =
        recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC);
    let message = message.unwrap();
    let Some(ControlMessageOwned::ScmRights(fds)) = message.cmsgs().unwrap().next() else {
        panic!("no descriptor")
    };
    // SAFETY: just received, and nobody else's.
    let descriptor = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    let mut text = first.to_vec();
    UnixStream::read_to_end(&mut stream, &mut text).unwrap();
    (serde_json::from_slice(&text).unwrap(), descriptor)
}

/// Answers one notification with an errno, and tells the call's number and the caller.
fn deny(notifications: &OwnedFd, errno: i32) -> (i32, u32) {
    const RECEIVE: libc::c_ulong = 0xc050_2100;
    const SEND: libc::c_ulong = 0xc018_2101;
    // SAFETY: plain data; the kernel wants it zeroed, and fills it.
    let mut request: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: as the request's size says, a seccomp_notif.
    Errno::result(unsafe { libc::ioctl(notifications.as_raw_fd(), RECEIVE, &raw mut request) })
        .unwrap();
    let answer = libc::seccomp_notif_resp { id: request.id, val: 0, error: -errno, flags: 0 };
    // SAFETY: as the request's size says, a seccomp_notif_resp.
    Errno::result(unsafe { libc::ioctl(notifications.as_raw_fd(), SEND, &raw const answer) })
        .unwrap();
    (request.data.nr, request.pid)
}

#[test]
fn a_listener_is_told_of_the_process_and_answers_for_it() {
    let fixture = Fixture::new();
    let path = fixture.path("agent");
    let listener = UnixListener::bind(&path).unwrap();
    for no_new_privileges in [true, false] {
        let mut config = fixture.changed(&["sh", "-c", "mkdir /made; read go; exit 3"], |spec| {
            spec["annotations"] = json!({"of": "the test"});
            spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            spec["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"],
                "listenerPath": path, "listenerMetadata": "some words",
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
            });
        });
        let (id, bundle) = (config.id.clone(), config.bundle.clone().unwrap());
        let output = capture(&mut config.stdio);
        let (go, input) = std::io::pipe().map(|(reader, writer)| (writer, reader)).unwrap();
        config.stdio.stdin = Stream::Descriptor(input.into());
        let (mut container, told, notifications) = std::thread::scope(|scope| {
            let agent = scope.spawn(|| receive(&listener));
            let container = Container::create(config).unwrap();
            let (told, notifications) = agent.join().unwrap();
            (container, told, notifications)
        });
        assert_eq!(
            told,
            json!({
                "ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": container.pid(), "metadata": "some words",
                "state": {
                    "ociVersion": "1.2.0", "id": id, "status": "creating", "pid": container.pid(), "bundle": bundle,
                    "annotations": {"of": "the test"},
                },
            })
        );
        container.start().unwrap();
        let (number, pid) = deny(&notifications, libc::EXDEV);
        assert_eq!(i64::from(number), libc::SYS_mkdir);
        assert_ne!(pid, 0);

        // A further process has a filter, and a connection, of its own.
        let process = isolab_container::default_process(
            ["mkdir", "/made"].map(String::from).to_vec(),
            vec![support::PATH.to_owned()],
        );
        let handle = container.handle().unwrap();
        let (executed, told, theirs) = std::thread::scope(|scope| {
            let agent = scope.spawn(|| receive(&listener));
            let executed = handle.exec(&process, Stdio::null()).unwrap();
            let (told, notifications) = agent.join().unwrap();
            (executed, told, notifications)
        });
        assert_eq!(
            (&told["pid"], &told["state"]["pid"]),
            (&json!(executed.pid()), &json!(container.pid()))
        );
        deny(&theirs, libc::EEXIST);
        assert_eq!(executed.wait().unwrap().code(), 1);
        drop(go);
        let output = read_all(output);
        assert!(output.contains("Invalid cross-device link"), "{output}");
        assert_eq!(container.wait().unwrap().code(), 3);
    }
}
