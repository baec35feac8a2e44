//! What can go wrong with instances.

use std::io;
use std::path::PathBuf;

use isolab_images::ImageError;
use isolab_isolation::package::PackageError;
use isolab_isolation::{IsolationError, TapNetworkError};

/// A failure of a command on instances.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The level, or the folder of the instances.
    #[error(transparent)]
    Isolation(#[from] IsolationError),
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A network has no place for it, or cannot be made.
    #[error(transparent)]
    Network(#[from] isolab_network::NetworkError),
    /// What is said of a network cannot be understood.
    #[error(transparent)]
    NetworkOption(#[from] isolab_network::BadNetworkOption),
    /// What is said of a tap cannot be understood.
    #[error(transparent)]
    Tap(#[from] Box<TapNetworkError>),
    /// The package lacks an executable.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// No instance has this name, and no id begins so.
    #[error("no such instance: `{0}`")]
    NoSuchInstance(String),
    /// Several ids begin so.
    #[error("`{prefix}` is the beginning of several ids: {}", names.join(", "))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// The instances' names.
        names: Vec<String>,
    },
    /// Its state does not allow what was asked for.
    #[error("instance `{name}` is {status}: cannot {action}")]
    WrongState {
        /// The instance.
        name: String,
        /// What it is.
        status: String,
        /// What was asked for: a verb, or a verb and its object.
        action: &'static str,
    },
    /// Its supervisor ended without an answer.
    #[error("the supervisor of instance `{0}` was killed")]
    SupervisorKilled(String),
    /// Whoever looks after the instance said no.
    #[error("{why}")]
    Refused {
        /// The exit code to end with.
        code: u8,
        /// What was said, in one line.
        why: String,
    },
    /// It is not answered in time.
    #[error("whoever looks after instance `{0}` does not answer")]
    Silent(String),
    /// A file of another version of isolab.
    #[error("{} is of version {found:?}, and this isolab knows {known} only", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version, if it names one.
        found: Option<u32>,
        /// Ours.
        known: u32,
    },
    /// The host refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted: a verb, for example `write to`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The host refused something that has no path.
    #[error("cannot {action}")]
    Host {
        /// What was attempted, on what.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl InstanceError {
    /// What a command line ends with, as [`IsolationError::exit_code`].
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Isolation(error) => error.exit_code(),
            Self::Refused { code, .. } => *code,
            _ => 125,
        }
    }

    /// As [`IsolationError::console`].
    pub(crate) fn console(&self) -> Option<&str> {
        match self {
            Self::Isolation(error) => error.console(),
            _ => None,
        }
    }

    pub(crate) fn host<E: Into<io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Host { action, source: source.into() }
    }
}
