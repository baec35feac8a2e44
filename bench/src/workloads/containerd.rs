//! A containerd of a measurement's own, with one image in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::own_store::{IMAGE, OwnStore};
use crate::runner::limit;

/// Until it listens: seconds, where a host is emulated.
const START: Duration = Duration::from_secs(120);
/// Until a container that its client has left is gone, and the daemon.
const END: Duration = Duration::from_secs(30);
/// Its socket, in its folder.
const SOCKET: &str = "socket";
/// Between two looks at whether it listens.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// A file or a process.
    #[error("cannot {action} of the measurement's own containerd")]
    Host {
        /// What was attempted: a verb and its object.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It has ended, or takes longer than [`START`].
    #[error("containerd does not come to listen; it said: {said}")]
    Silent {
        /// Its log.
        said: String,
    },
    /// It does not take the image.
    #[error("`{command}` ended with {status}; it said: {said}")]
    Image {
        /// What was run.
        command: &'static str,
        /// Its exit status, which is not success.
        status: ExitStatus,
        /// What it wrote to standard error.
        said: String,
    },
}

/// A containerd that ends when it is dropped, and its shims with it.
pub struct Containerd {
    process: Child,
    folder: TempDir,
}

impl Containerd {
    /// Starts it, and gives it the image of `own`.
    ///
    /// # Errors
    /// [`ContainerdError`]: above all, it is not installed.
    pub fn with_image_of(own: &OwnStore) -> Result<Self, ContainerdError> {
        let failed = |action| move |source| ContainerdError::Host { action, source };
        // Its snapshots are on overlayfs, whose upper folder cannot be on one.
        let folder = tempfile::tempdir_in("/var/tmp").map_err(failed("make the folder"))?;
        let path = |name: &str| folder.path().join(name);
        fs::write(path("config.toml"), config(folder.path()))
            .map_err(failed("configure the daemon"))?;
        let log = File::create(path("log")).map_err(failed("keep the log"))?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(path("config.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Ctrl-C is for who measures, and lets this turn end; whatever else ends it ends the daemon.
        command.process_group(0);
        let end_with_parent = || Ok(set_pdeathsig(Signal::SIGTERM)?);
        // SAFETY: the closure makes a system call and nothing else: it neither allocates nor locks.
        unsafe { command.pre_exec(end_with_parent) };
        let process = command.spawn().map_err(failed("start the daemon"))?;
        // From here on it is ended, whatever comes.
        let mut this = Self { process, folder };
        this.wait_until_it_listens()?;
        this.take_image_of(own)?;
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn wait_until_it_listens(&mut self) -> Result<(), ContainerdError> {
        let deadline = Instant::now() + START;
        while UnixStream::connect(self.path(SOCKET)).is_err() {
            let ended = !matches!(self.process.try_wait(), Ok(None));
            if ended || Instant::now() > deadline {
                return Err(ContainerdError::Silent { said: self.last_words() });
            }
            thread::sleep(POLL_INTERVAL);
        }
        Ok(())
    }

    fn take_image_of(&self, own: &OwnStore) -> Result<(), ContainerdError> {
        let archive = self.path("image.tar");
        let mut save = own.isolab();
        save.args(["image", "save", "--format", "docker-archive", "-o"]).arg(&archive).arg(IMAGE);
        succeed("isolab image save", &mut save)?;
        succeed("ctr image import", self.ctr().args(["image", "import"]).arg(&archive))
    }

    /// Its command line, for the daemon's one client.
    pub fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.path(SOCKET)).stdin(Stdio::null());
        command
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The end of its log.
    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Shims outlive the daemon: one whose client was killed would stay. Mostly there is none, which is an error.
        let remove = || self.ctr().args(["task", "rm", "--force", &container()]).output();
        let _ = limit::within(END, remove);
        let _ = kill(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + END;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
        // Both fail when it has ended and been waited for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The one container that there is at a time. Names of containers are names of folders in /run, which are the host's.
pub fn container() -> String {
    format!("isolab-bench-{}", std::process::id())
}

/// Version 2 of its configuration, which 1.x and 2.x read. All that it writes is in `folder`; what serves Kubernetes, and looks for
/// a network at its start, stays away.
fn config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "version = 2\nroot = \"{folder}/root\"\nstate = \"{folder}/state\"\n\
         disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{folder}/{SOCKET}\"\n"
    )
}

fn succeed(what: &'static str, command: &mut Command) -> Result<(), ContainerdError> {
    let failed = |source| ContainerdError::Host { action: "fill the store", source };
    let output = command.output().map_err(failed)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(ContainerdError::Image {
            command: what,
            status: output.status,
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
