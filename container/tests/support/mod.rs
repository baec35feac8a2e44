//! What the tests share: a busybox root filesystem, and ways to run something in it.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use isolab_container::{
    CgroupPlacement, Container, ContainerConfig, Error, ExitStatus, HostProcess, HostProcessConfig,
    HostProcessNetwork, Limits, RootFilesystem, Stdio, Stream, default_process, default_spec,
};
use serde_json::Value;
use tempfile::TempDir;

pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A directory with a root filesystem, overlay directories.
pub struct Fixture {
    pub dir: TempDir,
    pub limits: Limits,
}

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub output: String,
    pub oom_killed: bool,
}

impl Fixture {
    pub fn new() -> Self {
        Self::in_folder(&std::env::temp_dir())
    }

    /// Not on tmpfs, which /tmp may be: it maps no ids before Linux 6.3.
    pub fn on_disk() -> Self {
        Self::in_folder(Path::new("/var/tmp"))
    }

    fn in_folder(folder: &Path) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests run real containers and need root: sudo -E cargo test -p isolab-container"
        );
        let dir = tempfile::tempdir_in(folder).unwrap();
        let root = dir.path().join("rootfs");
        for sub in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
            fs::create_dir_all(root.join(sub)).unwrap();
        }
        let busybox =
            ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        fs::copy(busybox.expect("install Debian's busybox-static"), root.join("bin/busybox"))
            .unwrap();
        for applet in [
            "sh", "cat", "true", "false", "id", "ls", "hostname", "sleep", "env", "mount", "head",
            "dd", "mknod", "stat", "mkdir", "truncate", "readlink", "touch", "chmod", "ln", "rm",
            "ip", "wc", "grep", "nice", "ionice", "find", "date", "tail", "echo", "sort", "chown",
        ] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        for sub in ["upper", "work"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        Fixture { dir, limits: Limits::default() }
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    pub fn overlay(&self) -> RootFilesystem {
        RootFilesystem::Overlay {
            lower: vec![self.path("rootfs")],
            upper: self.path("upper"),
            work: self.path("work"),
        }
    }

    pub fn config(&self, args: &[&str]) -> ContainerConfig {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        ContainerConfig {
            id: unique_id(),
            spec: default_spec("testhost", args, vec![PATH.to_owned()], self.limits).unwrap(),
            rootfs: self.overlay(),
            bundle: Some(self.dir.path().to_path_buf()),
            stdio: Stdio::null(),
            cgroup: CgroupPlacement::Own,
            map_ids: false,
            keep_keyring: false,
            create_cwd: false,
            cgroup_manager: None,
            no_pivot: false,
            kill_with_parent: false,
            owner_lock: None,
        }
    }

    pub fn host_config(&self, args: &[&str]) -> HostProcessConfig {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        HostProcessConfig {
            id: unique_id(),
            process: default_process(args, vec![PATH.to_owned()]),
            rootfs: self.overlay(),
            read_only: false,
            host_filesystems: true,
            mounts: Vec::new(),
            stdio: Stdio::null(),
            resources: Some(self.limits.to_resources().unwrap()),
            cgroup: CgroupPlacement::Own,
            network: HostProcessNetwork::Host,
            create_cwd: false,
            kill_with_parent: false,
            owner_lock: None,
        }
    }

    /// As `config`, with another configuration: as JSON, as engines write it.
    pub fn changed(&self, args: &[&str], change: impl FnOnce(&mut Value)) -> ContainerConfig {
        let mut config = self.config(args);
        let mut json = serde_json::to_value(&config.spec).unwrap();
        change(&mut json);
        config.spec = serde_json::from_value(json).unwrap();
        config
    }

    /// Runs a shell script in a container.
    pub fn shell(&self, script: &str) -> Outcome {
        run(self.config(&["sh", "-c", script])).unwrap()
    }
}

/// Runs a container to its end and collects stdout and stderr.
pub fn run(mut config: ContainerConfig) -> Result<Outcome, Error> {
    let output = capture(&mut config.stdio);
    let mut container = Container::create(config)?;
    container.start()?;
    let output = read_all(output);
    let status = container.wait()?;
    let oom_killed = container.oom_killed();
    let cgroups = container.cgroup_directories();
    container.remove()?;
    assert!(cgroups.iter().all(|path| !path.exists()), "left behind: {cgroups:?}");
    Ok(Outcome { status, output, oom_killed })
}

/// Runs a host process to its end and collects stdout and stderr.
pub fn run_host(mut config: HostProcessConfig) -> Result<Outcome, Error> {
    let output = capture(&mut config.stdio);
    let mut process = HostProcess::create(config)?;
    process.start()?;
    let output = read_all(output);
    let status = process.wait()?;
    let oom_killed = process.oom_killed();
    process.remove()?;
    Ok(Outcome { status, output, oom_killed })
}

/// Leads stdout and stderr into a pipe and returns its reading end.
pub fn capture(stdio: &mut Stdio) -> OwnedFd {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    stdio.stdout = Stream::Descriptor(writer.try_clone().unwrap());
    stdio.stderr = Stream::Descriptor(writer);
    reader
}

pub fn read_all(fd: OwnedFd) -> String {
    let mut text = String::new();
    fs::File::from(fd).read_to_string(&mut text).unwrap();
    text
}

pub fn unique_id() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Mounts of this mount namespace below `path`.
pub fn mounts_below(path: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|line| line.contains(&path.display().to_string()))
        .map(str::to_owned)
        .collect()
}
