//! containerd's shim and Docker's engine with this runtime in the place of runc, on whichever version of cgroups the
//! host has: `scripts/test` runs this on both. Needs root, and Debian's packages containerd and docker.io. The daemons
//! have a network namespace of their own.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use support::containerd::{Containerd, alone};
use support::{Daemon, make_archive, runtime_path, said, wait_for};

#[test]
fn containerd_s_shim_takes_it_for_runc() {
    let containerd = Containerd::start();
    let (code, output, errors) = containerd.run(&["--rm"], "one", &["sh", "-c", "id -u; exit 7"]);
    assert_eq!((code, output.as_str()), (7, "0\n"), "{errors}");
    let (code, _, errors) = containerd.run(&["--rm"], "two", &["absent"]);
    assert!(code != 0 && errors.contains("executable file not found in $PATH"), "{errors}");

    let script = "trap 'exit 3' TERM; while :; do sleep 0.05; done";
    let options = ["--detach", "--memory-limit", "67108864"];
    let (code, _, errors) = containerd.run(&options, "three", &["sh", "-c", script]);
    assert_eq!(code, 0, "{errors}");
    let task = |words: &[&str]| containerd.ctr(&[&["task"], words].concat());
    let listed = |state: &str| {
        let (_, tasks, _) = task(&["ls"]);
        tasks.lines().any(|line| line.starts_with("three") && line.contains(state))
    };
    let (code, output, errors) =
        task(&["exec", "--exec-id", "a", "three", "sh", "-c", "echo inside; exit 4"]);
    assert_eq!((code, output.as_str()), (4, "inside\n"), "{errors}");
    for (words, state) in [(["pause", "three"], "PAUSED"), (["resume", "three"], "RUNNING")] {
        let (code, _, errors) = task(&words);
        assert_eq!(code, 0, "{errors}");
        assert!(listed(state), "{state}");
    }
    let (_, metrics, errors) = task(&["metrics", "three"]);
    assert!(metrics.contains("67108864"), "{metrics}{errors}");
    assert_eq!(task(&["kill", "--signal", "SIGTERM", "three"]).0, 0);
    wait_for("it stops", || listed("STOPPED"));
    let (_, output, errors) = task(&["delete", "three"]);
    assert!(errors.contains("exit code 3"), "{output}{errors}");
    assert_eq!(containerd.ctr(&["container", "rm", "three"]).0, 0);
}

#[test]
fn docker_s_engine_takes_it_for_runc() {
    let containerd = Containerd::start();
    let folder = containerd.folder.path().join("docker");
    fs::create_dir(&folder).unwrap();
    let path = |sub: &str| folder.join(sub).display().to_string();
    let socket = format!("unix://{}", path("socket"));
    let mut daemon = alone("dockerd");
    daemon.args(["--host", &socket, "--data-root", &path("data"), "--exec-root", &path("exec")]);
    daemon.args(["--pidfile", &path("pid"), "--bridge", "none", "--storage-driver", "vfs"]);
    daemon.args(["--iptables=false", "--ip6tables=false"]);
    daemon.args(["--exec-opt", "native.cgroupdriver=cgroupfs"]);
    daemon.arg("--containerd").arg(containerd.socket());
    daemon.arg("--add-runtime").arg(format!("isolab={}", runtime_path().display()));
    daemon.args(["--default-runtime", "isolab"]);
    daemon.stdout(Stdio::null()).stderr(File::create(path("log")).unwrap());
    let _daemon = Daemon::start(&mut daemon, Path::new(&path("socket")));
    let docker =
        |words: &[&str]| said(Command::new("docker").args(["--host", &socket]).args(words));
    let archive = make_archive(&folder);
    let (code, _, errors) = docker(&["import", archive.to_str().unwrap(), "test"]);
    assert_eq!(code, 0, "{errors}");
    let run = |options: &[&str], command: &[&str]| {
        docker(
            &[&["run", "--network", "none", "--cgroupns", "private"], options, &["test"], command]
                .concat(),
        )
    };
    let script = "id -u; echo wrong >&2; exit 9";
    let (code, output, errors) =
        run(&["--rm", "--user", "1000", "--memory", "64m"], &["sh", "-c", script]);
    assert_eq!((code, output.as_str()), (9, "1000\n"), "{errors}");
    // Before it the client warns where the kernel limits no swap.
    assert_eq!(errors.lines().last(), Some("wrong"), "{errors}");
    for (command, wanted) in [("absent", 127), ("/tmp", 126)] {
        let (code, _, errors) = run(&["--rm"], &[command]);
        assert_eq!(code, wanted, "{errors}");
    }

    let script = "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let (code, _, errors) =
        run(&["--detach", "--name", "one", "--memory", "64m"], &["sh", "-c", script]);
    assert_eq!(code, 0, "{errors}");
    let fine = |words: &[&str]| {
        let (code, output, errors) = docker(words);
        assert_eq!(code, 0, "{words:?}: {output}{errors}");
        output
    };
    let (code, output, errors) = docker(&["exec", "one", "sh", "-c", "echo inside; exit 4"]);
    assert_eq!((code, output.as_str()), (4, "inside\n"), "{errors}");
    let status = || fine(&["inspect", "one", "--format", "{{.State.Status}}"]);
    fine(&["pause", "one"]);
    assert_eq!(status(), "paused\n");
    fine(&["unpause", "one"]);
    fine(&["update", "--memory", "96m", "--memory-swap", "96m", "one"]);
    assert!(fine(&["stats", "--no-stream", "one"]).contains("96MiB"));
    assert!(fine(&["top", "one"]).contains("sleep") || fine(&["top", "one"]).contains("trap"));
    fine(&["stop", "--time", "60", "one"]);
    let ended = fine(&["inspect", "one", "--format", "{{.State.Status}} {{.State.ExitCode}}"]);
    assert_eq!((ended.as_str(), fine(&["logs", "one"]).as_str()), ("exited 3\n", "up\ntold\n"));
    fine(&["rm", "one"]);
}
