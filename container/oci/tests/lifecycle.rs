//! The life of containers by the command line, as an engine goes through it. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A bundle with busybox in it, a state folder, and what the container says.
struct Bundle {
    dir: TempDir,
    id: String,
}

/// What a command of the runtime said.
#[derive(Debug)]
struct Answer {
    code: i32,
    output: String,
    errors: String,
}

impl Answer {
    fn fine(self) -> String {
        assert_eq!((self.code, self.errors.as_str()), (0, ""), "{}", self.output);
        self.output
    }

    fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.errors.contains(words) && self.errors.lines().count() == 1, "{self:?}");
    }
}

impl Bundle {
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = format!("oci-test-{}", dir.path().file_name().unwrap().to_string_lossy());
        let bundle = Bundle { dir, id: id.replace("-.tmp", "-") };
        let root = bundle.path("rootfs");
        for sub in ["bin", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
        let busybox = busybox.into_iter().find(|path| path.exists());
        fs::copy(busybox.expect("install busybox-static"), root.join("bin/busybox")).unwrap();
        for applet in ["sh", "cat", "sleep", "echo", "tty", "stty", "true"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        let spec = bundle.oci(&["spec", "--bundle", bundle.dir.path().to_str().unwrap()]);
        spec.fine();
        bundle.configure(|spec| spec["process"]["args"] = json!(["sh", "-c", script]));
        bundle
    }

    fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    fn configure(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut spec = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut spec);
        fs::write(path, spec.to_string()).unwrap();
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-oci"));
        command.arg("--root").arg(self.path("state")).args(words).stdin(Stdio::null());
        command
    }

    /// Runs a command. To files: a pipe would not end before the container does.
    fn oci(&self, words: &[&str]) -> Answer {
        let [output, errors] = ["output", "errors"]
            .map(|name| self.path(&format!("{name}-{:?}", std::thread::current().id())));
        let mut command = self.command(words);
        command.stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap());
        let code = command.status().unwrap().code().unwrap();
        let read = |path| fs::read_to_string(path).unwrap();
        Answer { code, output: read(&output), errors: read(&errors) }
    }

    fn create(&self) -> Answer {
        let pid_file = self.path("pid");
        let bundle = self.dir.path().to_str().unwrap();
        self.oci(&[
            "create",
            "--bundle",
            bundle,
            "--pid-file",
            pid_file.to_str().unwrap(),
            &self.id,
        ])
    }

    fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.oci(&["state", &self.id]).fine()).unwrap();
        assert_eq!(state["id"], self.id.as_str());
        state["status"].as_str().unwrap().to_owned()
    }

    fn wait_for(&self, what: &str, reached: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !reached() {
            assert!(Instant::now() < deadline, "never: {what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn says(&self, name: &str) -> bool {
        self.path("rootfs/tmp").join(name).exists()
    }

    /// Nothing of the container is left anywhere.
    fn is_gone(&self) {
        self.oci(&["state", &self.id]).fails(1, "does not exist");
        assert_eq!(fs::read_dir(self.path("state")).map_or(0, Iterator::count), 0);
        let mut find = Command::new("find");
        let cgroups = find.args(["/sys/fs/cgroup", "-name", "isolab-oci-test*"]);
        let found = String::from_utf8(cgroups.output().unwrap().stdout).unwrap();
        assert!(!found.contains(&self.id), "{found}");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.id]).status();
    }
}

#[test]
fn from_create_to_delete() {
    let bundle = Bundle::new("echo > /tmp/runs; exec sleep 1000");
    bundle.create().fine();
    assert_eq!((bundle.status().as_str(), bundle.says("runs")), ("created", false));
    let pid = fs::read_to_string(bundle.path("pid")).unwrap();
    bundle.create().fails(1, "exists");
    let of = |verb| bundle.oci(&[verb, &bundle.id]);
    of("delete").fails(1, "cannot delete");
    of("pause").fails(1, "it is created");
    of("start").fine();
    bundle.wait_for("it runs", || bundle.says("runs"));
    assert_eq!(bundle.status(), "running");
    of("start").fails(1, "it is running");
    of("delete").fails(1, "it is running");
    assert_eq!(
        bundle.oci(&["ps", &bundle.id, "--format", "json"]).fine().trim(),
        format!("[{pid}]")
    );
    assert!(bundle.oci(&["list"]).fine().contains(&bundle.id));

    let exec = bundle.oci(&[
        "exec",
        "--env",
        "A=b",
        "--cwd",
        "/tmp",
        "--user",
        "7:8",
        &bundle.id,
        "sh",
        "-c",
        "echo $A $(busybox pwd) $(busybox id -u) $(busybox id -g) $$; exit 3",
    ]);
    assert_eq!((exec.code, exec.output.as_str()), (3, "b /tmp 7 8 2\n"));
    bundle.oci(&["exec", &bundle.id, "absent"]).fails(127, "absent: command not found");
    let detached = bundle.path("exec-pid");
    let words =
        ["exec", "--detach", "--pid-file", detached.to_str().unwrap(), &bundle.id, "sleep", "999"];
    bundle.oci(&words).fine();
    let table = of("ps").fine();
    assert!(table.contains("sleep 999") && table.contains(&fs::read_to_string(detached).unwrap()));

    of("pause").fine();
    assert_eq!(bundle.status(), "paused");
    bundle.oci(&["exec", &bundle.id, "true"]).fails(1, "it is paused");
    of("pause").fails(1, "it is paused");
    of("resume").fine();
    assert_eq!(bundle.status(), "running");

    bundle.oci(&["kill", &bundle.id, "KILL"]).fine();
    bundle.wait_for("it stops", || bundle.status() == "stopped");
    bundle.oci(&["kill", &bundle.id]).fails(1, "it is stopped");
    bundle.oci(&["exec", &bundle.id, "true"]).fails(1, "it is stopped");
    of("delete").fine();
    bundle.is_gone();
    of("delete").fails(1, "does not exist");
    bundle.oci(&["delete", "--force", &bundle.id]).fine();
}

#[test]
fn one_of_two_starts_and_only_one() {
    let bundle = Bundle::new("echo >> /tmp/runs; exec sleep 1000");
    bundle.create().fine();
    let codes = std::thread::scope(|scope| {
        let start = || scope.spawn(|| bundle.oci(&["start", &bundle.id]).code);
        [start(), start(), start()].map(|thread| thread.join().unwrap())
    });
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    // Even paused it can be deleted.
    bundle.wait_for("it runs", || bundle.says("runs"));
    bundle.oci(&["pause", &bundle.id]).fine();
    bundle.oci(&["delete", "--force", &bundle.id]).fine();
    bundle.is_gone();
}

#[test]
fn what_cannot_be_created_or_started_says_so() {
    let bundle = Bundle::new("true");
    bundle.configure(|spec| spec["process"]["args"] = json!(["absent"]));
    bundle.create().fine();
    bundle.oci(&["start", &bundle.id]).fails(127, "absent: command not found");
    bundle.wait_for("it stops", || bundle.status() == "stopped");
    bundle.oci(&["delete", &bundle.id]).fine();
    bundle.is_gone();
    for (field, value, words) in [
        (
            "mounts",
            json!([{"destination": "relative", "type": "proc", "source": "proc"}]),
            "relative",
        ),
        ("hooks", json!({"prestart": [{"path": "/bin/true"}]}), "hooks"),
        ("ociVersion", json!("2.0.0"), "2.0.0"),
        ("root", json!({"path": "absent"}), "absent"),
    ] {
        let bundle = Bundle::new("true");
        bundle.configure(|spec| spec[field] = value);
        bundle.create().fails(1, words);
        bundle.is_gone();
    }
    let folder = bundle.dir.path().to_str().unwrap();
    bundle.oci(&["create", "--bundle", folder, "../up"]).fails(1, "container id");
    bundle.oci(&["--systemd-cgroup", "list"]).fails(1, "--systemd-cgroup");
}

#[test]
fn a_container_that_was_created_is_deleted_by_force() {
    let bundle = Bundle::new("true");
    bundle.create().fine();
    bundle.oci(&["kill", &bundle.id, "9"]).fine();
    bundle.wait_for("it stops", || bundle.status() == "stopped");
    bundle.oci(&["start", &bundle.id]).fails(1, "it is stopped");
    bundle.oci(&["delete", &bundle.id]).fine();
    bundle.create().fine();
    bundle.oci(&["delete", "--force", &bundle.id]).fine();
    bundle.is_gone();
}

#[test]
fn run_is_all_of_it_and_passes_signals_on() {
    let bundle = Bundle::new("echo out; echo err >&2; exit 6");
    let folder = bundle.dir.path().to_str().unwrap();
    let answer = bundle.oci(&["run", "--bundle", folder, &bundle.id]);
    assert_eq!(
        (answer.code, answer.output.as_str(), answer.errors.as_str()),
        (6, "out\n", "err\n")
    );
    bundle.is_gone();

    let bundle = Bundle::new("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done");
    let folder = bundle.dir.path().to_str().unwrap();
    let mut command = bundle.command(&["run", "--bundle", folder, &bundle.id]);
    let mut running = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!((line.as_str(), bundle.status().as_str()), ("ready\n", "running"));
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(running.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    assert_eq!(running.wait().unwrap().code(), Some(9));
    bundle.is_gone();
}

#[test]
fn a_terminal_goes_over_the_console_socket() {
    let bundle = Bundle::new("tty; stty size; read line; echo got $line; exec sleep 1000");
    bundle.configure(|spec| {
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({"height": 30, "width": 90});
    });
    bundle.create().fails(1, "--console-socket");
    let path = bundle.path("console");
    let listener = UnixListener::bind(&path).unwrap();
    let folder = bundle.dir.path().to_str().unwrap();
    let socket = path.to_str().unwrap();
    bundle.oci(&["create", "--bundle", folder, "--console-socket", socket, &bundle.id]).fine();
    let mut master = File::from(received(&listener));
    bundle.oci(&["start", &bundle.id]).fine();
    let mut output = BufReader::new(master.try_clone().unwrap());
    let mut line = String::new();
    while !line.contains("30 90") {
        assert!(output.read_line(&mut line).unwrap() > 0, "{line}");
    }
    assert_eq!(line, "/dev/pts/0\r\n30 90\r\n");
    master.write_all(b"words\n").unwrap();
    while !line.contains("got words") {
        assert!(output.read_line(&mut line).unwrap() > 0, "{line}");
    }

    let words = ["exec", "--tty", "--detach", "--console-socket", socket, &bundle.id, "tty"];
    bundle.oci(&words).fine();
    let mut said = Vec::new();
    // EIO at its end.
    let _ = File::from(received(&listener)).read_to_end(&mut said);
    assert_eq!(String::from_utf8(said).unwrap(), "/dev/pts/1\r\n");
}

fn received(listener: &UnixListener) -> OwnedFd {
    let (stream, _) = listener.accept().unwrap();
    let mut bytes = [0; 64];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut space = nix::cmsg_space!(i32);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
    let Some(ControlMessageOwned::ScmRights(descriptors)) = message.cmsgs().unwrap().next() else {
        panic!("no descriptor came");
    };
    // SAFETY: the kernel has just made it for us, and nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(descriptors[0]) }
}
