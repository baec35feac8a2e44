//! podman with this runtime in the place of its own. Needs root, podman and conmon; nothing here has a network.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A store of podman's with an image of busybox.
struct Podman(TempDir);

/// What containers here are made with: our seccomp compiler knows no default but to allow, the limits that podman asks
/// for by default take CAP_SYS_RESOURCE, and on cgroup v1 it would show the host's tree.
const OPTIONS: [&str; 10] = [
    "--network",
    "none",
    "--cgroupns",
    "private",
    "--security-opt",
    "seccomp=unconfined",
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1000:1000",
];

impl Podman {
    fn new() -> Self {
        let podman = Podman(tempfile::tempdir().unwrap());
        let root = podman.path("image");
        fs::create_dir_all(root.join("bin")).unwrap();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
        let busybox = busybox.into_iter().find(|path| path.exists());
        fs::copy(busybox.expect("install busybox-static"), root.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "sleep", "id", "tty", "true"] {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let archive = podman.path("image.tar");
        let mut tar = Command::new("tar");
        tar.arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".");
        assert!(tar.status().unwrap().success());
        podman.says(&["import", "-q", archive.to_str().unwrap(), "test"]);
        podman
    }

    fn path(&self, sub: &str) -> PathBuf {
        self.0.path().join(sub)
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("podman");
        for (option, sub) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.path(sub));
        }
        command.args(["--storage-driver", "vfs", "--events-backend", "file"]);
        command.args(["--cgroup-manager", "cgroupfs", "--runtime"]);
        command.arg(env!("CARGO_BIN_EXE_isolab-oci")).args(words);
        command.output().expect("install podman")
    }

    fn says(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn create(&self, options: &[&str], command: &[&str]) -> Output {
        self.run(&[&["run"], &OPTIONS[..], options, &["test"], command].concat())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["rm", "--all", "--force", "--time", "0"]);
    }
}

#[test]
fn it_runs_enters_pauses_and_removes_containers() {
    let podman = Podman::new();
    let script = "id -u; echo wrong >&2; exit 9";
    let run = podman.create(&["--rm", "--user", "1000", "--memory", "64m"], &["sh", "-c", script]);
    let [output, errors] = [run.stdout, run.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(
        (run.status.code(), output.as_str(), errors.as_str()),
        (Some(9), "1000\n", "wrong\n")
    );
    let terminal = podman.create(&["--rm", "-t"], &["tty"]);
    assert_eq!(String::from_utf8(terminal.stdout).unwrap(), "/dev/pts/0\r\n");

    let script = "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    assert!(podman.create(&["-d", "--name", "one"], &["sh", "-c", script]).status.success());
    let exec = podman.run(&["exec", "one", "sh", "-c", "echo inside; exit 4"]);
    assert_eq!((exec.status.code(), exec.stdout.as_slice()), (Some(4), &b"inside\n"[..]));
    assert_eq!(podman.says(&["exec", "-t", "one", "tty"]), "/dev/pts/0\r\n");
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
        let output = podman.run(&[&options[..], &limits, &["test", "sh", "-c", script]].concat());
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("Seccomp:\t2") && output.status.code() == Some(1), "{output:?}");
    }
}
