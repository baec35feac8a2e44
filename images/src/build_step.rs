//! A command of an image build, and who runs it.
//!
//! The builder knows no containers, and who makes containers knows no Dockerfiles: this is what both
//! agree on, over the layers of an image.

use std::path::PathBuf;

/// One command that a build runs, over the layers so far.
#[derive(Clone, Debug)]
pub struct BuildStep {
    /// The layers so far, topmost first; at least one.
    pub lower: Vec<PathBuf>,
    /// Receives what the command writes, in overlayfs's form.
    pub upper: PathBuf,
    /// An empty folder for overlayfs.
    pub work: PathBuf,
    /// The command and its arguments.
    pub args: Vec<String>,
    /// Its environment, as `NAME=value`.
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
    /// What the command finds there.
    pub what: Mounted,
}

/// What a command finds mounted. Neither device nodes nor set-user-ID bits count in any of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// A file or folder of the host's, which the build made for it.
    Path {
        /// Its path on the host.
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

/// Runs the commands of a build.
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
