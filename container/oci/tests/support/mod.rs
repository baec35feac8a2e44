//! What the tests share: a bundle, and what the runtime's commands say.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

pub mod containerd;
pub mod podman;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A bundle with busybox in it, a state folder, and what the container says.
pub struct Bundle {
    pub dir: TempDir,
    pub id: String,
}

/// What a command of the runtime said.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

/// The runtime that cargo has built with the tests; in the emulated host, which has none of that, the release build.
pub fn runtime() -> &'static Path {
    let built = Path::new(env!("CARGO_BIN_EXE_isolab-oci"));
    if built.exists() { built } else { Path::new("isolab-oci") }
}

/// A root file system of busybox and folders to mount on.
pub fn make_root(root: &Path) {
    for sub in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(sub)).unwrap();
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new);
    let busybox = busybox.into_iter().find(|path| path.exists());
    fs::copy(busybox.expect("install busybox-static"), root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "sleep", "echo", "tty", "stty", "true", "id"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

/// The same as an archive.
pub fn make_archive(folder: &Path) -> PathBuf {
    let (root, archive) = (folder.join("image"), folder.join("image.tar"));
    make_root(&root);
    let mut tar = Command::new("tar");
    assert!(tar.arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().unwrap().success());
    archive
}

/// The runtime by an absolute path, as engines want it.
pub fn runtime_path() -> PathBuf {
    let found = |folder: PathBuf| Some(folder.join(runtime())).filter(|path| path.exists());
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).find_map(found).unwrap_or_else(|| runtime().to_owned())
}

/// What a client said: exit code, output, errors.
pub fn said(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    (output.status.code().unwrap_or(-1), out, err)
}

/// A daemon, which ends with this value.
pub struct Daemon(std::process::Child);

impl Daemon {
    /// Starts it, and waits for its socket.
    pub fn start(command: &mut Command, socket: &Path) -> Self {
        let mut daemon = Daemon(command.spawn().unwrap());
        let deadline = Instant::now() + Duration::from_secs(600);
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(daemon.0.try_wait().unwrap().is_none(), "it has ended: {command:?}");
            assert!(Instant::now() < deadline, "it never listened: {command:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

impl Answer {
    pub fn fine(self) -> String {
        assert_eq!((self.code, self.errors.as_str()), (0, ""), "{}", self.output);
        self.output
    }

    pub fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.errors.contains(words) && self.errors.lines().count() == 1, "{self:?}");
    }
}

impl Bundle {
    pub fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = format!("oci-test-{}", dir.path().file_name().unwrap().to_string_lossy());
        let bundle = Bundle { dir, id: id.replace("-.tmp", "-") };
        make_root(&bundle.path("rootfs"));
        let spec = bundle.oci(&["spec", "--bundle", bundle.dir.path().to_str().unwrap()]);
        spec.fine();
        bundle.configure(|spec| spec["process"]["args"] = json!(["sh", "-c", script]));
        bundle
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    pub fn configure(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("config.json");
        let mut spec = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut spec);
        fs::write(path, spec.to_string()).unwrap();
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(runtime());
        command.arg("--root").arg(self.path("state")).args(words).stdin(Stdio::null());
        command
    }

    /// Runs a command. To files: a pipe would not end before the container does.
    pub fn oci(&self, words: &[&str]) -> Answer {
        let [output, errors] = ["output", "errors"]
            .map(|name| self.path(&format!("{name}-{:?}", std::thread::current().id())));
        let mut command = self.command(words);
        command.stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap());
        let code = command.status().unwrap().code().unwrap();
        let read = |path| fs::read_to_string(path).unwrap();
        Answer { code, output: read(&output), errors: read(&errors) }
    }

    pub fn create(&self) -> Answer {
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

    pub fn status(&self) -> String {
        let state: Value = serde_json::from_str(&self.oci(&["state", &self.id]).fine()).unwrap();
        assert_eq!(state["id"], self.id.as_str());
        state["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the container has ended, and deletes it.
    pub fn delete(&self) {
        self.wait_for("it stops", || self.status() == "stopped");
        self.oci(&["delete", &self.id]).fine();
        self.is_gone();
    }

    pub fn wait_for(&self, what: &str, reached: impl Fn() -> bool) {
        wait_for(what, reached);
    }

    pub fn says(&self, name: &str) -> bool {
        self.path("rootfs/tmp").join(name).exists()
    }

    /// Nothing of the container is left anywhere.
    pub fn is_gone(&self) {
        self.oci(&["state", &self.id]).fails(1, "does not exist");
        assert_eq!(fs::read_dir(self.path("state")).map_or(0, Iterator::count), 0);
        let mut find = Command::new("find");
        let cgroups = find.args(["/sys/fs/cgroup", "-name", "isolab-oci-test*"]);
        let found = String::from_utf8(cgroups.output().unwrap().stdout).unwrap();
        assert!(!found.contains(&self.id), "{found}");
    }
}

/// Waits until something that nobody tells of has come about.
pub fn wait_for(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(600);
    while !reached() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.command(&["delete", "--force", &self.id]).status();
    }
}
