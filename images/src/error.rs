//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

/// A failure with an image, its archive or the store. Each variant names the thing it is about.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host refused something on a file.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted: a verb, for example `read`.
        action: &'static str,
        /// The file or folder, or the thing where it has no path.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// What is there is no OCI image layout.
    #[error("{} is not an OCI image layout, nor an archive of one: {why}", path.display())]
    NotALayout {
        /// The folder or archive that was named as one.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A blob's content is not what its name says.
    #[error("blob {expected} is damaged or forged: its content has the digest sha256:{found}")]
    DigestMismatch {
        /// The digest that the descriptor gives.
        expected: String,
        /// The SHA-256 of the content, in hexadecimal.
        found: String,
    },
    /// A blob's length is not what its descriptor says.
    #[error("blob {digest} has {found} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The blob's digest, as the descriptor has it.
        digest: String,
        /// Bytes that the descriptor gives.
        expected: u64,
        /// Bytes that there are.
        found: u64,
    },
    /// A blob that an image refers to is missing.
    #[error("blob {0} is missing")]
    MissingBlob(String),
    /// A digest is no sha256, the only algorithm that the store keeps.
    #[error("`{0}` is not a sha256 digest")]
    BadDigest(String),
    /// A document does not parse.
    #[error("{what} {digest} does not parse: {why}")]
    BadDocument {
        /// Index, manifest or config.
        what: &'static str,
        /// The digest of the document.
        digest: String,
        /// What the parser says of it.
        why: String,
    },
    /// An index has no image for this machine.
    #[error("index {0} has no image for linux/amd64")]
    NoPlatform(String),
    /// A layer's entry would leave the root file system, or cannot be what it says.
    #[error("layer {layer}: entry `{entry}`: {why}")]
    BadEntry {
        /// The layer's digest.
        layer: String,
        /// The entry's name, as it stands in the archive.
        entry: String,
        /// Why it cannot be what it says.
        why: String,
    },
    /// A layer is larger than any honest one.
    #[error("layer {layer} is refused: more than {limit}")]
    TooLarge {
        /// The layer's digest.
        layer: String,
        /// The limit that it exceeds, with its unit.
        limit: String,
    },
    /// A layer's archive is damaged.
    #[error("layer {layer} cannot be unpacked")]
    BadLayer {
        /// The layer's digest.
        layer: String,
        /// What the reader of the archive says.
        source: io::Error,
    },
    /// Not all layers of the image with this digest are there as folders.
    #[error("image {0} is not unpacked")]
    NotUnpacked(String),
    /// No image in the store has this name or digest.
    #[error("there is no image `{0}` here")]
    NotFound(String),
    /// A digest prefix that fits several images.
    #[error("`{0}` stands for several images; give more of the digest")]
    Ambiguous(String),
    /// A program that this crate uses is missing or failed.
    #[error("{tool}: {why}")]
    Tool {
        /// The name of the program.
        tool: &'static str,
        /// How it ended and what it said, or why it could not be run.
        why: String,
    },
    /// An image whose documents are missing or not what their digests say.
    #[error("image `{name}` is damaged")]
    Damaged {
        /// Its name, or its digest where it has none.
        name: String,
        /// Which of its documents is damaged, and how.
        source: Box<ImageError>,
    },
    /// A digest of an image with several names, to be removed.
    #[error("`{name}` has several names: {}", names.join(", "))]
    SeveralNames {
        /// What it was called by: a digest, or the start of one.
        name: String,
        /// All names that the image has.
        names: Vec<String>,
    },
    /// An image that cannot be removed.
    #[error("`{0}` is used by a running instance; stop that first")]
    InUse(String),
    /// A reference that does not parse.
    #[error("`{name}` is not an image reference: {why}")]
    BadReference {
        /// The text that was given as one.
        name: String,
        /// What the parser says of it.
        why: String,
    },
}

impl ImageError {
    /// Says whose fault it is, where a document of the image that is called `name` is damaged.
    pub(crate) fn of_image(self, name: String) -> Self {
        match self {
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::MissingBlob(_)
            | Self::BadDigest(_)
            | Self::BadDocument { .. } => Self::Damaged { name, source: Box::new(self) },
            other => other,
        }
    }
}

/// Names the action and the path of a failed system call.
pub fn io_error(
    action: &'static str,
    path: impl AsRef<Path>,
) -> impl FnOnce(io::Error) -> ImageError {
    move |source| ImageError::Io { action, path: path.as_ref().to_owned(), source }
}
