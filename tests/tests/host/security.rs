//! What a workload may do, looked at from inside: not what was asked for, but what the kernel did.

use std::fs;
use std::path::Path;
use std::process::Command;

use isolab_tests::{Done, Sandbox, text};
use serde_json::Value;

/// Makes the calls that a default profile is about, and tells what each was answered.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void tell(const char *name, long result) {
    int error = result < 0 ? errno : 0;
    printf("%s=%s\n", name, error == 0 ? "0" : error == EPERM ? "EPERM" : error == ENOSYS ? "ENOSYS" : "other");
    fflush(stdout);
}

int main(void) {
    struct clone_args none = {0};
    none.exit_signal = SIGCHLD;
    tell("getpid", syscall(SYS_getpid));
    tell("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    tell("bpf", syscall(SYS_bpf, 0, 0, 0));
    tell("mount", syscall(SYS_mount, "none", "/nowhere", "tmpfs", 0, 0));
    tell("io_uring_setup", syscall(SYS_io_uring_setup, 0, 0));
    tell("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    tell("vsock", syscall(SYS_socket, 40, 1, 0));
    tell("inet", syscall(SYS_socket, 2, 1, 0));
    tell("personality-query", syscall(SYS_personality, 0xffffffff));
    tell("personality-other", syscall(SYS_personality, 0x0040000));
    tell("unknown", syscall(9999));
    long child = syscall(SYS_clone3, &none, sizeof none);
    if (child == 0) _exit(0);
    tell("clone3", child);
    child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    tell("clone-newuser", child);
    child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (child == 0) _exit(0);
    tell("clone", child);
    tell("unshare", syscall(SYS_unshare, CLONE_NEWUSER));
    return 0;
}
"#;

fn sandbox_with_probe() -> Sandbox {
    let sandbox = Sandbox::with_busybox();
    let context = tempfile::tempdir().unwrap();
    let (source, program) = (context.path().join("probe.c"), context.path().join("probe"));
    fs::write(&source, PROBE).unwrap();
    let gcc = Command::new("gcc").args(["-static", "-o"]).args([&program, &source]).status();
    assert!(gcc.expect("install gcc").success());
    fs::write(context.path().join("Dockerfile"), "FROM busybox\nCOPY probe /bin/probe\n").unwrap();
    sandbox.isolab(&["image", "build", "-t", "probe"]).arg(context.path()).finish().success();
    sandbox
}

/// `NAME=ANSWER` of each line.
fn answer(output: &str, name: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
    line.unwrap_or_else(|| panic!("no {name}: {output}")).to_owned()
}

#[test]
fn the_default_profile_denies_what_reaches_the_host_s_kernel() {
    let sandbox = sandbox_with_probe();
    let probe = |options: &[&str]| {
        let words = [&["run"], options, &["probe", "probe"]].concat();
        sandbox.isolab(&words).finish().success()
    };
    let default = probe(&[]);
    for (name, expected) in [
        ("getpid", "0"),
        ("keyctl", "EPERM"),
        ("bpf", "EPERM"),
        ("mount", "EPERM"),
        ("io_uring_setup", "EPERM"),
        ("kexec_load", "EPERM"),
        ("vsock", "EPERM"),
        ("inet", "0"),
        ("personality-query", "0"),
        ("personality-other", "ENOSYS"),
        ("unknown", "ENOSYS"),
        ("clone3", "ENOSYS"),
        ("clone-newuser", "EPERM"),
        ("clone", "0"),
        ("unshare", "EPERM"),
    ] {
        assert_eq!(answer(&default, name), expected, "{name}: {default}");
    }
    // What only the filter stood in the way of.
    let unconfined = probe(&["--security-opt", "seccomp=unconfined"]);
    for name in ["keyctl", "personality-other", "clone3", "clone-newuser", "unshare"] {
        assert_eq!(answer(&unconfined, name), "0", "{name}: {unconfined}");
    }
    let admin = probe(&["--cap-add", "SYS_ADMIN"]);
    assert_eq!(answer(&admin, "clone3"), "0", "{admin}");
    assert_eq!(answer(&admin, "keyctl"), "EPERM", "{admin}");
    assert_ne!(answer(&admin, "mount"), "EPERM", "{admin}");
}

#[test]
fn a_profile_of_a_file_takes_the_place_of_the_default() {
    let sandbox = sandbox_with_probe();
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("profile.json");
    let content = serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["keyctl"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_CHOWN"]}},
        ],
    });
    fs::write(&profile, content.to_string()).unwrap();
    let option = format!("seccomp={}", profile.display());
    let run = |words: &[&str]| {
        sandbox.isolab(&[&["run", "--security-opt", &option], words].concat()).finish()
    };
    let output = run(&["probe", "probe"]).success();
    assert_eq!(answer(&output, "keyctl"), "0", "{output}");
    let output = run(&["--cap-drop", "CHOWN", "probe", "probe"]).success();
    assert_eq!(answer(&output, "keyctl"), "EPERM", "{output}");
    let denied = run(&["busybox", "mkdir", "/made"]);
    assert!(denied.stderr.contains("Function not implemented"), "{denied:?}");
    // Seccomp 2 is a filter.
    assert_eq!(status_of(&sandbox, &[], "Seccomp"), "2");
    assert_eq!(status_of(&sandbox, &["--security-opt", "seccomp=unconfined"], "Seccomp"), "0");
    for (path, words) in [
        ("/absent", "/absent"),
        (text(dir.path()), "cannot read"),
        ("/etc/passwd", "no seccomp profile"),
    ] {
        let option = format!("seccomp={path}");
        let words = [words];
        sandbox
            .isolab(&["run", "--security-opt", &option, "busybox"])
            .finish()
            .fails_with(125, &words);
    }
}

/// A line of /proc/self/status inside a container.
fn status_of(sandbox: &Sandbox, options: &[&str], name: &str) -> String {
    let pattern = format!("^{name}:");
    let words = [&["run"], options, &["busybox", "grep", &pattern, "/proc/self/status"]].concat();
    let line = sandbox.isolab(&words).finish().success();
    line.split_whitespace().nth(1).unwrap_or_default().to_owned()
}

fn capabilities(sandbox: &Sandbox, options: &[&str]) -> [u64; 5] {
    let words =
        [&["run"], options, &["busybox", "sh", "-c", "grep ^Cap /proc/self/status"]].concat();
    let output = sandbox.isolab(&words).finish().success();
    ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|name| {
        let line = output.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    })
}

/// The 13 of a container, by number.
const DEFAULT: u64 = 1 << 29
    | 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 10
    | 1 << 13
    | 1 << 31
    | 1 << 6
    | 1 << 8
    | 1 << 7
    | 1 << 18;
const NET_ADMIN: u64 = 1 << 12;
const CHOWN: u64 = 1;

#[test]
fn capabilities_are_added_and_dropped() {
    let sandbox = Sandbox::with_busybox();
    let seen = |options: &[&str]| capabilities(&sandbox, options);
    assert_eq!(seen(&[]), [0, DEFAULT, DEFAULT, DEFAULT, 0]);
    let more = DEFAULT | NET_ADMIN;
    assert_eq!(seen(&["--cap-add", "cap_net_admin"]), [0, more, more, more, 0]);
    assert_eq!(seen(&["--cap-drop", "ALL"]), [0; 5]);
    assert_eq!(seen(&["--cap-drop", "ALL", "--cap-add", "CHOWN"]), [0, CHOWN, CHOWN, CHOWN, 0]);
    let all = seen(&["--cap-add", "all"])[3];
    assert_eq!(seen(&["--cap-add", "ALL", "--cap-drop", "NET_ADMIN"])[2], all & !NET_ADMIN);
    assert_eq!(seen(&["--privileged"]), [0, all, all, all, 0]);
    // Another user has what is added by name, and keeps it.
    assert_eq!(seen(&["-u", "1000"]), [0, 0, 0, DEFAULT, 0]);
    let [inherited, permitted, effective, bounding, ambient] =
        seen(&["-u", "1000", "--cap-add", "NET_ADMIN"]);
    assert_eq!([inherited, permitted, effective, ambient], [NET_ADMIN; 4]);
    assert_eq!(bounding, more);
    for (options, word) in
        [(["--cap-add", "FLY"], "FLY"), (["--cap-drop", "net admin"], "net admin")]
    {
        let words = [&["run"], &options[..], &["busybox"]].concat();
        sandbox.isolab(&words).finish().fails_with(125, &[word, "capabilities(7)"]);
    }
    let both = ["run", "--cap-add", "KILL", "--cap-drop", "KILL", "busybox", "true"];
    sandbox.isolab(&both).finish().fails_with(125, &["CAP_KILL", "both"]);
    // What is not the caller's capability can be taken from a plain process as well.
    let words = [
        "run",
        "--isolation",
        "process",
        "--cap-drop",
        "ALL",
        "busybox",
        "grep",
        "^CapEff",
        "/proc/self/status",
    ];
    assert!(sandbox.isolab(&words).finish().success().ends_with("0000000000000000\n"));
}

#[test]
fn limits_and_settings_of_a_container() {
    let sandbox = Sandbox::with_busybox();
    let run = |options: &[&str], script: &str| {
        let words = [&["run"], options, &["busybox", "sh", "-c", script]].concat();
        sandbox.isolab(&words).finish().success()
    };
    assert_eq!(run(&["--ulimit", "nofile=100:200"], "ulimit -n; ulimit -Hn"), "100\n200\n");
    assert_eq!(run(&["--ulimit", "core=5", "--ulimit", "core=0"], "ulimit -c"), "0\n");
    assert_eq!(run(&["--umask", "0077"], "umask"), "0077\n");
    assert_eq!(run(&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj"), "500\n");
    assert_eq!(run(&["--group-add", "7", "--group-add", "7"], "id -G"), "0 7\n");
    assert_eq!(run(&["-u", "1000:5", "--group-add", "7"], "id -G"), "5 7\n");
    assert_eq!(run(&["--shm-size", "1M"], "df -k /dev/shm | tail -1 | awk '{print $2}'"), "1024\n");
    assert_eq!(run(&[], "df -k /dev/shm | tail -1 | awk '{print $2}'"), "65536\n");
    let settings = ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.shmmax=12345"];
    assert_eq!(
        run(&settings, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax"),
        "1\n12345\n"
    );
    assert_eq!(
        run(&["--security-opt", "no-new-privileges:false"], "grep NoNewPrivs /proc/self/status"),
        "NoNewPrivs:\t0\n"
    );
    assert_eq!(run(&[], "grep NoNewPrivs /proc/self/status"), "NoNewPrivs:\t1\n");
    let fails = |options: &[&str], words: &[&str]| {
        let all = [&["run"], options, &["busybox", "true"]].concat();
        sandbox.isolab(&all).finish().fails_with(125, words);
    };
    fails(&["--sysctl", "kernel.panic=1"], &["kernel.panic", "not namespaced"]);
    fails(&["--sysctl", "vm..x=1"], &["NAME=VALUE"]);
    fails(&["--ulimit", "files=1"], &["files", "nofile"]);
    fails(&["--group-add", "nobody-here"], &["nobody-here"]);
    fails(&["--umask", "999"], &["octal"]);
    fails(&["--uts", "host", "--hostname", "x"], &["--hostname"]);
    fails(&["--userns", "keep-id"], &["user namespace", "ordinary users"]);
}

#[test]
fn paths_are_masked_and_unmasked() {
    let sandbox = Sandbox::with_busybox();
    let run = |options: &[&str], script: &str| -> Done {
        let words = [&["run"], options, &["busybox", "sh", "-c", script]].concat();
        sandbox.isolab(&words).finish()
    };
    let read_only = "grep -c ' /proc/sys ro' /proc/self/mountinfo";
    assert_eq!(run(&[], read_only).success(), "1\n");
    assert_eq!(run(&[], "wc -c </proc/keys").success(), "0\n");
    assert_eq!(
        run(&["--security-opt", "mask=/proc/version"], "wc -c </proc/version").success(),
        "0\n"
    );
    let mounts = "grep -cE ' /proc/(keys|sys|timer_list) ' /proc/self/mountinfo";
    assert_eq!(run(&[], mounts).success(), "3\n");
    assert_eq!(run(&["--security-opt", "unmask=/proc/keys"], mounts).success(), "2\n");
    assert_eq!(run(&["--security-opt", "unmask=ALL"], mounts).stdout, "0\n");
    assert_eq!(run(&["--security-opt", "unmask=/proc/*"], mounts).stdout, "0\n");
}

#[test]
fn devices_of_the_host_and_what_may_be_done_with_them() {
    let sandbox = Sandbox::with_busybox();
    let run = |options: &[&str], script: &str| -> Done {
        let words = [&["run"], options, &["busybox", "sh", "-c", script]].concat();
        sandbox.isolab(&words).finish()
    };
    // The host's console is in no container; /dev/kmsg tells what its kernel does.
    assert_ne!(run(&[], "test -e /dev/kmsg").code(), Some(0));
    let seen = run(
        &["--device", "/dev/kmsg:/dev/log-of-kernel:w"],
        "stat -c '%t:%T %F' /dev/log-of-kernel",
    );
    assert_eq!(seen.success(), "1:b character special file\n");
    // Zero is every container's; under another name its permissions are the option's.
    let reads = run(&["--device", "/dev/kmsg:/dev/k:w"], "head -c 1 /dev/k");
    assert!(reads.stderr.contains("Operation not permitted"), "{reads:?}");
    run(&["--device", "/dev/kmsg:/dev/k:w"], ": >/dev/k").success();
    run(
        &["--privileged"],
        "test -c /dev/kmsg && : >/dev/kmsg && test -w /proc/sys/kernel/hostname",
    )
    .success();
    for (device, word) in
        [("/etc/passwd", "no device"), ("/dev/absent", "/dev/absent"), ("/etc", "no device in")]
    {
        run(&["--device", device], "true").fails_with(125, &[word]);
    }
}

#[test]
fn an_init_reaps_passes_signals_on_and_ends_as_its_program() {
    let sandbox = Sandbox::with_busybox();
    let run =
        |script: &str| sandbox.isolab(&["run", "--init", "busybox", "sh", "-c", script]).finish();
    assert_eq!(run("cat /proc/1/comm; echo $PPID; exit 7").code(), Some(7));
    assert_eq!(run("cat /proc/1/comm; echo $PPID").success(), "isolab-init\n1\n");
    assert_eq!(run("kill -9 $$").code(), Some(137));
    // An orphan that ends is nobody's zombie.
    let orphan = "sh -c 'sleep 0.1 & echo $!' >/tmp/pid; read pid </tmp/pid; \
                  while test -e /proc/$pid; do sleep 0.05; done; echo reaped";
    assert_eq!(run(orphan).success(), "reaped\n");
    // Signals to the first process arrive at the program; without an init, it would ignore them.
    assert_eq!(
        run("trap 'exit 9' TERM; kill -TERM 1; while :; do sleep 0.05; done").code(),
        Some(9)
    );
    assert_eq!(run("sleep 60 & kill -TERM 1; wait").code(), Some(143));
    for command in [&["no-such-command"][..], &["/etc/passwd"]] {
        let words = [&["run", "--init", "busybox"], command].concat();
        let code = if command[0] == "/etc/passwd" { 126 } else { 127 };
        sandbox.isolab(&words).finish().fails_with(code, command);
    }
}

#[test]
fn namespaces_of_the_host() {
    let sandbox = Sandbox::with_busybox();
    let own = |kind: &str| fs::read_link(Path::new("/proc/self/ns").join(kind)).unwrap();
    for (option, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts")] {
        for (mode, is_same) in [("host", true), ("private", false)] {
            let link = format!("/proc/self/ns/{kind}");
            let words = ["run", option, mode, "busybox", "readlink", &link];
            let seen = sandbox.isolab(&words).finish().success();
            assert_eq!(
                seen.trim() == own(kind).to_str().unwrap(),
                is_same,
                "{option} {mode}: {seen}"
            );
        }
    }
}

#[test]
fn other_levels_say_what_they_cannot_do() {
    let sandbox = Sandbox::with_busybox();
    for (level, option, words) in [
        ("process", &["--sysctl", "net.ipv4.ip_forward=1"][..], "kernel parameters"),
        ("process", &["--shm-size", "1M"], "/dev/shm"),
        ("process", &["--device", "/dev/null"], "/dev"),
        ("process", &["--userns", "auto"], "ids are the host's"),
        ("paravirt", &["--device", "/dev/null"], "the guest has its own"),
        ("paravirt", &["--pid", "host"], "own kernel"),
        ("fullvirt", &["--userns", "keep-id"], "ids"),
        ("fullvirt", &["--security-opt", "mask=/proc/keys"], "guest's /proc"),
    ] {
        let words_of_run = [&["run", "--isolation", level], option, &["busybox", "true"]].concat();
        sandbox.isolab(&words_of_run).finish().fails_with(125, &[level, words]);
    }
}

#[test]
fn inspect_tells_it_in_podman_s_names() {
    let sandbox = Sandbox::with_busybox();
    let words = [
        "create",
        "--name",
        "asked",
        "--cap-add",
        "NET_ADMIN,chown",
        "--cap-drop",
        "kill",
        "--security-opt",
        "no-new-privileges:false",
        "--ulimit",
        "nofile=1:2",
        "--sysctl",
        "kernel.shmmax=1",
        "--shm-size",
        "1M",
        "--init",
        "--device",
        "/dev/null:/dev/n:r",
        "--pid",
        "host",
        "--group-add",
        "7",
        "--oom-score-adj",
        "9",
        "--umask",
        "027",
        "busybox",
        "true",
    ];
    sandbox.isolab(&words).finish().success();
    let text = sandbox.isolab(&["inspect", "asked"]).finish().success();
    let told: Value = serde_json::from_str(&text).unwrap();
    let host = &told[0]["HostConfig"];
    for (name, expected) in [
        ("CapAdd", serde_json::json!(["CAP_NET_ADMIN", "CAP_CHOWN"])),
        ("CapDrop", serde_json::json!(["CAP_KILL"])),
        ("SecurityOpt", serde_json::json!(["no-new-privileges:false"])),
        ("Ulimits", serde_json::json!([{"Name": "RLIMIT_NOFILE", "Soft": 1, "Hard": 2}])),
        ("Sysctls", serde_json::json!({"kernel.shmmax": "1"})),
        ("ShmSize", serde_json::json!(1 << 20)),
        ("Init", serde_json::json!(true)),
        ("Privileged", serde_json::json!(false)),
        ("PidMode", serde_json::json!("host")),
        ("GroupAdd", serde_json::json!(["7"])),
        ("OomScoreAdj", serde_json::json!(9)),
        (
            "Devices",
            serde_json::json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "r"}]),
        ),
    ] {
        assert_eq!(host[name], expected, "{name}: {text}");
    }
    assert_eq!(told[0]["Config"]["Umask"], "0027");
    sandbox.isolab(&["rm", "asked"]).finish().success();
}
