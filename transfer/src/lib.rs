//! Files on their way into a tree of files that somebody hostile changes meanwhile, and out of it, as a tar stream.
//!
//! The same code works on both sides: on the host, in the root of a container, and in a guest. A path is resolved once,
//! as if the tree's root were `/` (openat2(2), RESOLVE_IN_ROOT); from there on it goes from descriptor to descriptor, and
//! no link is followed. Whatever is exchanged on the way, nothing outside the tree is read or written.

mod error;
mod metered;
mod receive;
mod send;
mod tree;

pub use error::TransferError;
pub use receive::Rights;
pub use tree::{Found, Kind, Tree};

use std::io::{Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::Attempt;

/// Something to be done with a tree's files by who has the tree. Paths are absolute within it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FileRequest {
    /// Tell what is at this path, following links: a letter, see [`Found::letter`].
    Look(PathBuf),
    /// Write what is there to standard output, as an archive in which it has this name.
    Send {
        /// Where. The last component is not followed if it is a link, unless `/.` stands behind it.
        path: PathBuf,
        /// Its name in the archive.
        name: PathBuf,
    },
    /// Take an archive from standard input into this folder.
    Receive(PathBuf),
}

impl FileRequest {
    /// Does it.
    ///
    /// # Errors
    /// [`TransferError`].
    pub fn perform(
        &self,
        tree: &Tree,
        input: impl Read,
        mut output: impl Write,
    ) -> Result<(), TransferError> {
        match self {
            Self::Look(path) => {
                let found = tree.look(path)?;
                let letter = [Found::letter(found.as_ref())];
                output.write_all(&letter).at("tell of", path)
            }
            Self::Send { path, name } => tree.send(path, name, output),
            Self::Receive(folder) => tree.receive(folder, Rights::Kept, input),
        }
    }
}

#[cfg(test)]
mod tests;
