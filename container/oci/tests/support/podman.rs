//! podman with this runtime in the place of its own, and a store of the test's.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::{make_archive, runtime_path, said};

/// A store of podman's with an image of busybox, which is called `test`.
pub struct Podman {
    pub folder: TempDir,
    /// Runs what follows: podman, elsewhere or as somebody else.
    before: Vec<OsString>,
    /// Who makes cgroups.
    manager: &'static str,
    runtime: PathBuf,
}

/// Containers here are made with these. The limits that podman asks for by default take CAP_SYS_RESOURCE, which a test
/// machine may not have; and on cgroup v1 it would show the host's tree.
pub const OPTIONS: [&str; 8] = [
    "--network",
    "none",
    "--cgroupns",
    "private",
    "--ulimit",
    "nofile=1024:1024",
    "--ulimit",
    "nproc=1000:1000",
];

impl Podman {
    /// root's own.
    pub fn new() -> Self {
        Self::made(tempfile::tempdir().unwrap(), Vec::new(), "cgroupfs", runtime_path())
    }

    /// Run by `before`, whose user can write to `folder`.
    pub fn made(
        folder: TempDir,
        before: Vec<OsString>,
        manager: &'static str,
        runtime: PathBuf,
    ) -> Self {
        let archive = make_archive(folder.path());
        let podman = Podman { folder, before, manager, runtime };
        podman.says(&["import", "-q", archive.to_str().unwrap(), "test"]);
        podman
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.folder.path().join(sub)
    }

    pub fn run(&self, words: &[&str]) -> (i32, String, String) {
        let mut all = self.before.iter().map(OsString::as_os_str);
        let podman = Path::new("podman").as_os_str();
        let mut command = match all.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(all).arg(podman);
                command
            }
            None => Command::new(podman),
        };
        for (option, sub) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            command.arg(option).arg(self.path(sub));
        }
        command.args(["--storage-driver", "vfs", "--events-backend", "file"]);
        command.args(["--cgroup-manager", self.manager, "--runtime"]);
        said(command.arg(&self.runtime).args(words))
    }

    pub fn says(&self, words: &[&str]) -> String {
        let (code, output, errors) = self.run(words);
        assert_eq!(code, 0, "{words:?}: {output}{errors}");
        output
    }

    pub fn create(&self, options: &[&str], command: &[&str]) -> (i32, String, String) {
        self.run(&[&["run"], &OPTIONS[..], options, &["test"], command].concat())
    }

    /// What `inspect` says of a container.
    pub fn tells(&self, name: &str, format: &str) -> String {
        self.says(&["inspect", name, "--format", format]).trim().to_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.run(&["pod", "rm", "--all", "--force", "--time", "0"]);
        self.run(&["rm", "--all", "--force", "--time", "0"]);
    }
}
