//! What can go wrong, said so that an operator can act on it.

use std::io;

/// A failure of the container runtime.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The OCI configuration contradicts itself or lacks something that the specification requires.
    #[error("invalid container configuration: {field}: {problem}")]
    InvalidSpec {
        /// The JSON path of the field, for example `process.cwd`.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The OCI configuration asks for something that this runtime does not do. It is never ignored silently.
    #[error("unsupported container configuration: {field}: {problem}")]
    Unsupported {
        /// The JSON path of the field.
        field: String,
        /// What is not supported.
        problem: String,
    },
    /// A step on the host, outside the container, failed.
    #[error("cannot {attempt}")]
    Host {
        /// What was attempted, on what.
        attempt: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A step inside the new process, between clone and execve, failed.
    #[error("cannot {attempt} in container {id}")]
    Setup {
        /// The container's id.
        id: String,
        /// What was attempted, on what.
        attempt: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The caller's root directory is no mount point: it was entered by chroot. Nothing can be mounted for
    /// the container alone then, nor be pivoted from (mount(2), pivot_root(2)).
    #[error(
        "cannot make mounts for container {id}: the root directory here is no mount point, as in a chroot"
    )]
    RootNotMounted {
        /// The container's id.
        id: String,
    },
    /// The new process died before it could report anything, for example by the OOM killer.
    #[error("the first process of container {id} died while {during} ({status})")]
    Died {
        /// The container's id.
        id: String,
        /// What the runtime was waiting for.
        during: &'static str,
        /// How the process ended, by exit code or signal.
        status: String,
    },
    /// No such command in the container: exit code 127.
    #[error("{command}: command not found")]
    CommandNotFound {
        /// `args[0]`.
        command: String,
    },
    /// The command exists but cannot be executed: exit code 126.
    #[error("{command}: cannot be executed")]
    CommandNotExecutable {
        /// `args[0]`.
        command: String,
        /// The kernel's answer to execve.
        source: io::Error,
    },
    /// A hook of the configuration failed, or took too long.
    #[error("hook {hook} of container {id} {problem}")]
    Hook {
        /// The container's id.
        id: String,
        /// Its place in the configuration, and its path.
        hook: String,
        /// How it ended, and the end of what it said.
        problem: String,
    },
    /// The cgroup tree refused.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::error::CgroupError),
    /// A method was called at the wrong time, for example `start` twice.
    #[error("container {id} {problem}")]
    State {
        /// The container's id.
        id: String,
        /// What contradicts the call, for example `has been started already`.
        problem: &'static str,
    },
}

/// The result of a runtime operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The exit code that a command line should end with: 127 and 126 as shells have it for a command that is
    /// missing or cannot be executed, 125 (podman's and docker's) for a failure of the runtime itself.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::CommandNotFound { .. } => 127,
            Error::CommandNotExecutable { .. } => 126,
            _ => 125,
        }
    }

    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::InvalidSpec { field: field.into(), problem: problem.into() }
    }

    pub(crate) fn unsupported(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Error::Unsupported { field: field.into(), problem: problem.into() }
    }

    pub(crate) fn host(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Error::Host { attempt: attempt.into(), source: source.into() }
    }
}
