//! What can go wrong with files on their way.

use std::io;
use std::path::{Path, PathBuf};

/// A failure to copy files.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// There is nothing.
    #[error("{}: no such file or directory", .0.display())]
    Missing(PathBuf),
    /// Neither a file, a folder, a link nor a pipe.
    #[error("{}: it is a device or a socket, which is not copied", .0.display())]
    Special(PathBuf),
    /// Descriptors are limited.
    #[error("{}: more than {limit} folders within each other are not copied", path.display())]
    Deep {
        /// Where that is.
        path: PathBuf,
        /// How many are.
        limit: usize,
    },
    /// A member of an archive that no honest sender makes.
    #[error("the archive has a member `{}`, which leads out of the folder", .0.escape_debug())]
    Astray(String),
    /// The archive cannot be read or written.
    #[error("cannot {action} an archive")]
    Archive {
        /// `read` or `write`.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The host, or the guest's kernel, refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted: a verb, for example `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Says of a failure what was attempted, on what.
pub(crate) trait Attempt<T> {
    /// `action` is a verb, for example `create`.
    fn at(self, action: &'static str, path: &Path) -> Result<T, TransferError>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, TransferError> {
        self.map_err(|source| {
            let (path, source) = (path.to_owned(), source.into());
            TransferError::Io { action, path, source }
        })
    }
}
