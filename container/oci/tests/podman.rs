//! podman and buildah with this runtime in the place of their own, on whichever version of cgroups the host has:
//! `scripts/test` runs this on both. Needs root, podman, conmon and buildah; nothing here has a network.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::process::Command;

use support::podman::{OPTIONS, Podman};
use support::{make_archive, runtime_path, said};

#[test]
fn podman_runs_enters_pauses_and_removes_containers() {
    let podman = Podman::new();
    let script = "id -u; echo wrong >&2; exit 9";
    let run = podman.create(&["--rm", "--user", "1000", "--memory", "64m"], &["sh", "-c", script]);
    assert_eq!(run, (9, "1000\n".to_owned(), "wrong\n".to_owned()));
    let (_, output, errors) = podman.create(&["--rm", "-t"], &["tty"]);
    assert_eq!(output, "/dev/pts/0\r\n", "{errors}");
    // By words of ours podman knows these.
    for (command, wanted) in [("absent", 127), ("/tmp", 126)] {
        let (code, _, errors) = podman.create(&["--rm"], &[command]);
        assert_eq!(code, wanted, "{errors}");
    }

    let script = "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let (code, _, errors) = podman.create(
        &["-d", "--name", "one", "--memory", "64m", "--health-cmd", "echo well"],
        &["sh", "-c", script],
    );
    assert_eq!(code, 0, "{errors}");
    let (code, output, errors) = podman.run(&["exec", "one", "sh", "-c", "echo inside; exit 4"]);
    assert_eq!((code, output.as_str()), (4, "inside\n"), "{errors}");
    assert_eq!(podman.says(&["exec", "-t", "one", "tty"]), "/dev/pts/0\r\n");
    assert_eq!(podman.run(&["exec", "one", "absent"]).0, 127);
    podman.says(&["healthcheck", "run", "one"]);
    assert!(podman.says(&["top", "one", "args"]).contains("sh -c trap"));
    let status = || podman.says(&["inspect", "one", "--format", "{{.State.Status}}"]);
    podman.says(&["pause", "one"]);
    assert_eq!(status(), "paused\n");
    podman.says(&["unpause", "one"]);
    assert_eq!(status(), "running\n");
    assert!(podman.says(&["stats", "--no-stream", "one"]).contains("one"));
    podman.says(&["stop", "--time", "60", "one"]);
    assert_eq!(podman.says(&["logs", "one"]), "up\ntold\n");
    let ended =
        podman.says(&["inspect", "one", "--format", "{{.State.Status}} {{.State.ExitCode}}"]);
    assert_eq!(ended, "exited 3\n");
    podman.says(&["rm", "one"]);
}

#[test]
fn its_own_profile_and_the_host_s_cgroup_namespace() {
    let podman = Podman::new();
    let script = "grep Seccomp: /proc/self/status; mkdir /x && mount -t tmpfs x /x";
    for namespace in ["host", "private"] {
        let options = ["run", "--rm", "--network", "none", "--cgroupns", namespace];
        // What this machine may not raise.
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"];
        let words = [&options[..], &limits, &["test", "sh", "-c", script]].concat();
        let (code, output, errors) = podman.run(&words);
        assert!(output.starts_with("Seccomp:\t2") && code == 1, "{code}: {output}{errors}");
    }
}

/// No pod's first container: that would be an image from a registry.
#[test]
fn podman_plays_a_pod() {
    let podman = Podman::new();
    let file = podman.path("pod.yaml");
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"},
        "spec": {"containers": [{
            "name": "one", "image": "localhost/test", "imagePullPolicy": "Never",
            "command": ["sh", "-c", "echo from a pod"],
        }], "restartPolicy": "Never"},
    });
    fs::write(&file, pod.to_string()).unwrap();
    podman.says(&["pod", "create", "--infra=false", "--name", "empty"]);
    let (code, output, errors) = podman.run(
        &[&["run", "--rm", "--pod", "empty"], &OPTIONS[..], &["test", "echo", "in a pod"]].concat(),
    );
    assert_eq!((code, output.as_str()), (0, "in a pod\n"), "{errors}");
    if !std::path::Path::new("/usr/libexec/podman/catatonit").exists() {
        eprintln!("left out: kube play, which needs catatonit");
        return;
    }
    podman.says(&["kube", "play", "--network", "none", file.to_str().unwrap()]);
    podman.says(&["wait", "pod-one"]);
    assert_eq!(podman.says(&["logs", "pod-one"]), "from a pod\n");
}

#[test]
fn buildah_builds_by_it() {
    let folder = tempfile::tempdir().unwrap();
    make_archive(folder.path());
    fs::write(
        folder.path().join("Dockerfile"),
        "FROM scratch\nADD image.tar /\nRUN echo made > /made && [ $(id -u) = 0 ]\n",
    )
    .unwrap();
    let buildah = |words: &[&str]| {
        let mut command = Command::new("buildah");
        for (option, sub) in [("--root", "root"), ("--runroot", "run")] {
            command.arg(option).arg(folder.path().join(sub));
        }
        said(command.args(["--storage-driver", "vfs"]).args(words))
    };
    let runtime = runtime_path();
    let (code, output, errors) = buildah(&[
        "bud",
        "--runtime",
        runtime.to_str().unwrap(),
        "--isolation",
        "oci",
        "--cgroupns",
        "private",
        "--network",
        "none",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1000:1000",
        "--tag",
        "made",
        folder.path().to_str().unwrap(),
    ]);
    assert_eq!(code, 0, "{output}{errors}");
    let (_, container, _) = buildah(&["from", "--pull-never", "localhost/made"]);
    let (_, mounted, errors) = buildah(&["mount", container.trim()]);
    let made = fs::read_to_string(format!("{}/made", mounted.trim()));
    assert_eq!(made.unwrap_or(errors), "made\n");
    buildah(&["rm", "--all"]);
}
