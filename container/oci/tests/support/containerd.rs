//! containerd with this runtime in the place of runc.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{Daemon, make_root, runtime_path, said};

/// containerd with folders of its own, and a root file system of busybox.
pub struct Containerd {
    pub folder: TempDir,
    _daemon: Daemon,
}

impl Containerd {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |sub: &str| folder.path().join(sub).display().to_string();
        // What needs a network, kernel modules or other programs stays out.
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\npath = {:?}\n",
            path("root"),
            path("state"),
            path("socket"),
            path("ttrpc"),
            path("opt")
        );
        fs::write(path("config.toml"), config).unwrap();
        make_root(&folder.path().join("rootfs"));
        let mut daemon = alone("containerd");
        daemon.arg("--config").arg(path("config.toml"));
        daemon.stdout(Stdio::null()).stderr(File::create(path("log")).unwrap());
        let daemon = Daemon::start(&mut daemon, Path::new(&path("socket")));
        Containerd { folder, _daemon: daemon }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub fn ctr(&self, words: &[&str]) -> (i32, String, String) {
        said(Command::new("ctr").arg("--address").arg(self.socket()).args(words))
    }

    pub fn run(&self, options: &[&str], id: &str, command: &[&str]) -> (i32, String, String) {
        let (runtime, root) = (runtime_path(), self.folder.path().join("rootfs"));
        let ours = ["--runtime", "io.containerd.runc.v2", "--runc-binary"];
        let rootfs = [runtime.to_str().unwrap(), "--rootfs", root.to_str().unwrap(), id];
        self.ctr(&[&["run"], options, &ours, &rootfs[..], command].concat())
    }
}

/// In a network namespace of its own.
pub fn alone(program: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", program]);
    command
}
