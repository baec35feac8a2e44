//! What README says under "As podman's, containerd's or Docker's runtime", as it is written there. Only where each of them
//! keeps its things is the test's, and what a test's machine lacks: told by variables, files and options behind the words.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::containerd::{Containerd, alone};
use support::{Daemon, make_archive, runtime_path, said};
use tempfile::TempDir;

const HEADING: &str = "## As podman's, containerd's or Docker's runtime\n";
/// The image that the commands name.
const IMAGE: &str = "docker.io/library/busybox";
/// Where the package puts the runtime.
const INSTALLED: &str = "/usr/bin/isolab-oci";

fn section() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let text = fs::read_to_string(readme).unwrap();
    let (_, section) = text.split_once(HEADING).expect("README has the section");
    section.split("\n## ").next().unwrap().to_owned()
}

/// The only block of the section that begins with this word.
fn block(word: &str) -> String {
    let section = section();
    let blocks = section.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let found: Vec<&str> = blocks.filter(|block| block.starts_with(word)).collect();
    assert_eq!(found.len(), 1, "{word}: {found:?}");
    found[0].to_owned()
}

/// A folder with the runtime under its name, which notes when it is called.
struct Engines {
    folder: TempDir,
}

impl Engines {
    fn new() -> Self {
        let engines = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(engines.path("bin")).unwrap();
        let (log, runtime) = (engines.path("calls"), runtime_path());
        let script = format!("#!/bin/sh\necho \"$*\" >>{log:?}\nexec {runtime:?} \"$@\"\n");
        fs::write(engines.runtime(), script).unwrap();
        fs::set_permissions(engines.runtime(), Permissions::from_mode(0o755)).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            engines.path("graph"),
            engines.path("run")
        );
        fs::write(engines.path("storage.conf"), storage).unwrap();
        engines.configure_podman("");
        engines
    }

    fn path(&self, sub: &str) -> PathBuf {
        self.folder.path().join(sub)
    }

    fn runtime(&self) -> PathBuf {
        self.path("bin/isolab-oci")
    }

    /// The limits that podman asks for by default take CAP_SYS_RESOURCE, which a test machine may not have.
    fn configure_podman(&self, engine: &str) {
        let text = format!(
            "[containers]\ncgroupns = \"private\"\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n\
             [engine]\nevents_logger = \"file\"\ntmp_dir = {:?}\n{engine}\n",
            self.path("tmp")
        );
        fs::write(self.path("containers.conf"), text).unwrap();
    }

    fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(program);
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"));
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command
    }

    /// What podman says.
    fn podman(&self, words: &[&str]) -> String {
        let (code, output, errors) = said(self.command("podman").args(words));
        assert_eq!(code, 0, "{words:?}: {output}{errors}");
        output
    }

    /// How many containers the runtime has made since it was asked before.
    fn made(&self) -> usize {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        let makes = |line: &&str| line.split(' ').any(|word| word == "create");
        calls.lines().filter(makes).count()
    }
}

#[test]
fn podman_and_containerd_for_one_command() {
    let engines = Engines::new();
    let archive = make_archive(engines.folder.path());
    engines.podman(&["import", "-q", archive.to_str().unwrap(), IMAGE]);
    let saved = engines.path("saved.tar");
    let saved = saved.to_str().unwrap();
    engines.podman(&["save", "-q", "--format", "oci-archive", "-o", saved, IMAGE]);
    let containerd = Containerd::start();
    let snapshots = ["--snapshotter", "native"];
    let import = [&["image", "import"], &snapshots[..], &[saved]].concat();
    let (code, output, errors) = containerd.ctr(&import);
    assert_eq!(code, 0, "{output}{errors}");

    let mut shell = engines.command("sh");
    shell.env("CONTAINERD_ADDRESS", containerd.socket()).env("CONTAINERD_SNAPSHOTTER", "native");
    let (code, output, errors) = said(shell.args(["-ec", &block("podman")]));
    // Each says who runs there, root.
    let users: Vec<&str> = output.lines().filter(|line| line.starts_with("uid=0")).collect();
    assert_eq!((code, users.len(), engines.made()), (0, 2, 2), "{output}{errors}");

    // For good, in podman's configuration.
    let section = section();
    let line = section.split("For good: `").nth(1).and_then(|rest| rest.split('`').next()).unwrap();
    assert!(line.contains(INSTALLED), "{line}");
    engines.configure_podman(&line.replace(INSTALLED, engines.runtime().to_str().unwrap()));
    let words = ["--cgroup-manager", "cgroupfs", "run", "--rm", "--network", "none", IMAGE, "id"];
    assert!(engines.podman(&words).starts_with("uid=0"));
    assert_eq!(engines.made(), 1);
}

#[test]
fn docker_s_engine_for_good() {
    let (engines, containerd) = (Engines::new(), Containerd::start());
    fs::create_dir(engines.path("docker")).unwrap();
    let path = |sub: &str| engines.path("docker").join(sub).display().to_string();
    let socket = format!("unix://{}", path("socket"));
    let written = block("dockerd");
    assert!(written.contains(INSTALLED), "{written}");
    let written = written.trim_end().replace(INSTALLED, engines.runtime().to_str().unwrap());
    let script = format!(
        "exec {written} --host {socket} --data-root {} --exec-root {} --pidfile {} --bridge none \
         --iptables=false --ip6tables=false --storage-driver vfs --containerd {}",
        path("data"),
        path("exec"),
        path("pid"),
        containerd.socket().display()
    );
    let mut daemon = alone("sh");
    daemon.args(["-c", &script]);
    daemon.stdout(Stdio::null()).stderr(File::create(path("log")).unwrap());
    let _daemon = Daemon::start(&mut daemon, Path::new(&path("socket")));
    let docker = |words: &[&str]| {
        let (code, output, errors) =
            said(Command::new("docker").args(["--host", &socket]).args(words));
        assert_eq!(code, 0, "{words:?}: {output}{errors}");
        output
    };
    let archive = make_archive(engines.folder.path());
    docker(&["import", archive.to_str().unwrap(), "test"]);
    assert_eq!(
        docker(&["info", "--format", "{{.DefaultRuntime}} {{.CgroupDriver}}"]),
        "isolab cgroupfs\n"
    );
    let words = ["run", "--rm", "--network", "none", "--cgroupns", "private", "test", "id"];
    assert!(docker(&words).starts_with("uid=0"));
    assert_eq!(engines.made(), 1);
}
