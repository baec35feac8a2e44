//! What can go wrong with a build.

use std::path::PathBuf;

use isolab_images::ImageError;
use isolab_registry::RegistryError;

/// A failure of a build. Where an instruction is to blame, the message has its line.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Of an image, the store, or the build's own files.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A base image cannot be fetched.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The Dockerfile does not parse.
    #[error("{}: {why}", path.display())]
    Dockerfile {
        /// The Dockerfile, as it was found.
        path: PathBuf,
        /// The line, and what the parser says of it.
        why: String,
    },
    /// An instruction is wrong, or what it does failed.
    #[error("{}:{line}: {instruction}: {why}", path.display())]
    Step {
        /// The Dockerfile, as it was found.
        path: PathBuf,
        /// The line on which the instruction begins, the first being 1.
        line: usize,
        /// The instruction with its continuations joined.
        instruction: String,
        /// What is wrong with it, or what failed of it.
        why: String,
        /// What the caller of the build did not give.
        missing: Option<BuildNeed>,
    },
}

/// What a Dockerfile asks for and the request does not give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildNeed {
    /// The secret with this id.
    #[error("the secret `{0}` is required, but was not given")]
    Secret(String),
    /// The host's network, by `RUN --network=host`.
    #[error("the build is not allowed the host's network")]
    HostNetwork,
}
