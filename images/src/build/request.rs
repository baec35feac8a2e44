//! What a build is asked for, and what it asks of who calls it.

use std::collections::HashMap;
use std::path::PathBuf;

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The image's names; without any it is known by its digest only.
    pub names: Vec<String>,
    /// The folder that COPY takes from.
    pub context: PathBuf,
    /// The Dockerfile; by default `Containerfile` or `Dockerfile` in the context.
    pub dockerfile: Option<PathBuf>,
    /// Values for ARG.
    pub args: HashMap<String, String>,
    /// What RUN may mount by `--mount=type=secret`, by id.
    pub secrets: HashMap<String, Secret>,
    /// The stage to build, by default the last.
    pub target: Option<String>,
    /// Do every step, even where the cache has its outcome.
    pub no_cache: bool,
    /// No file is younger, and the image is as old, in seconds since 1970: what makes builds of
    /// the same inputs the same image. Without it files keep their times.
    pub epoch: Option<u64>,
    /// Whether steps share the host's network; otherwise they have none but loopback.
    pub host_network: bool,
    /// Registries of base images may be reached by plain HTTP.
    pub insecure: bool,
    /// Where the CAs of those registries are, if not where
    /// [`RegistryOptions`](crate::RegistryOptions) says.
    pub cert_dir: Option<PathBuf>,
}

/// Where a secret is read from, when a step first needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A file.
    File(PathBuf),
    /// A variable of our environment.
    Variable(String),
}

/// One command that a build runs, over the layers so far.
#[derive(Clone, Debug)]
pub struct BuildStep {
    /// The layers so far, topmost first; at least one.
    pub lower: Vec<PathBuf>,
    /// Receives what the command writes, in overlayfs's form.
    pub upper: PathBuf,
    /// An empty folder for overlayfs.
    pub work: PathBuf,
    /// The command.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// `USER[:GROUP]`; empty is root.
    pub user: String,
    /// Whether it shares the host's network.
    pub host_network: bool,
    /// What is mounted for this command only, in order.
    pub mounts: Vec<StepMount>,
}

/// A mount of one command. Where nothing is at `target`, the runner makes a mount point; the build
/// takes it away again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepMount {
    /// Absolute, in the command's root.
    pub target: String,
    /// What is there.
    pub what: Mounted,
}

/// What a command finds mounted. Neither device nodes nor set-user-ID bits count in any of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A file or folder of the host's, which the build made for it.
    Path {
        /// Where it is.
        source: PathBuf,
        /// Whether the command may not write to it.
        read_only: bool,
    },
    /// An empty file system in memory, of so many bytes at most.
    Memory {
        /// None: what the kernel allows.
        size: Option<u64>,
    },
}

/// What a build tells while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildNews<'a> {
    /// What is being done.
    Step(&'a str),
    /// What the operator asked for and does not get.
    Warning(&'a str),
}

/// Runs the commands of a build. This crate knows no container runtime; who calls it brings one.
pub trait BuildRunner {
    /// Runs the command to its end and tells its exit code; 128 and the number for a signal.
    ///
    /// # Errors
    /// Why the command could not be run.
    fn run(&self, step: &BuildStep) -> Result<i32, String>;

    /// Whether the build is to end, and to leave nothing behind. It is asked again and again.
    fn is_interrupted(&self) -> bool {
        false
    }
}
