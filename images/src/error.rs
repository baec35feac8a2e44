//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::Descriptor;

use crate::store::names::name_of;

/// Every variant names the thing it is about and, where it is the operator's, the mend.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The host refused something on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// What is there is no OCI image layout.
    #[error("{} is not an OCI image layout: {why}", path.display())]
    NotALayout {
        /// Folder or archive.
        path: PathBuf,
        /// What is missing or wrong.
        why: String,
    },
    /// A blob's content is not what its name says.
    #[error("blob {expected} is damaged or forged: its content has the digest sha256:{found}")]
    DigestMismatch {
        /// As the descriptor says.
        expected: String,
        /// As it is, in hexadecimal.
        found: String,
    },
    /// A blob's length is not what its descriptor says.
    #[error("blob {digest} has {found} bytes, its descriptor says {expected}")]
    SizeMismatch {
        /// The blob.
        digest: String,
        /// As the descriptor says.
        expected: u64,
        /// As it is.
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
        /// Its digest.
        digest: String,
        /// The parser's word.
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
        /// What is wrong.
        why: String,
    },
    /// A layer is larger than any honest one.
    #[error("layer {layer} is refused: more than {limit}")]
    TooLarge {
        /// The layer's digest.
        layer: String,
        /// What it exceeds.
        limit: String,
    },
    /// A layer's archive is damaged.
    #[error("layer {layer} cannot be unpacked: {source}")]
    BadLayer {
        /// The layer's digest.
        layer: String,
        /// The reader's word.
        source: io::Error,
    },
    /// No such image.
    #[error(
        "no image `{0}` here; `isolab image ls` shows what is, `isolab image pull` or \
         `isolab image load` brings one"
    )]
    NotFound(String),
    /// A digest prefix that fits several images.
    #[error("`{0}` stands for several images; give more of the digest")]
    Ambiguous(String),
    /// A program that this crate uses is missing or failed.
    #[error("{tool}: {why}")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// What it said.
        why: String,
    },
    /// A Dockerfile does not parse.
    #[error("{}: {why}", path.display())]
    Dockerfile {
        /// The file.
        path: PathBuf,
        /// The parser's word.
        why: String,
    },
    /// An instruction of a Dockerfile failed.
    #[error("{}:{line}: {instruction}: {why}", path.display())]
    BuildStep {
        /// The file.
        path: PathBuf,
        /// The line on which the instruction begins.
        line: usize,
        /// Its first line.
        instruction: String,
        /// What went wrong.
        why: String,
    },
    /// A registry failed, or could not be reached.
    #[error("cannot {action} {name}: {why}")]
    Registry {
        /// `pull`, `push` or `log in to`.
        action: &'static str,
        /// The image.
        name: String,
        /// What it said.
        why: String,
    },
    /// A registry wants other credentials.
    #[error(
        "cannot {action} {name}: {registry} denies it, or there is no such image; \
         `isolab image login {registry}` takes a user and a password"
    )]
    Denied {
        /// `pull`, `push` or `log in to`.
        action: &'static str,
        /// The image.
        name: String,
        /// Its host.
        registry: String,
    },
    /// A file that should hold the certificate of a registry's CA.
    #[error("{} is no use as the certificate of a registry's CA: {why}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// An image whose documents are missing or not what their digests say.
    #[error(
        "image `{name}` is damaged: {source}; remove it (`isolab image rm {name}`), then pull or \
         load it again"
    )]
    Damaged {
        /// Its name, or its digest where it has none.
        name: String,
        /// What is damaged.
        source: Box<ImageError>,
    },
    /// The credentials for a registry cannot be had or kept.
    #[error("credentials for {registry}: {why}")]
    Credentials {
        /// Its host.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// A digest of an image with several names, to be removed.
    #[error("`{name}` has the names {}; remove these one by one, or all with --force", names.join(", "))]
    SeveralNames {
        /// As given.
        name: String,
        /// All of them.
        names: Vec<String>,
    },
    /// An image that cannot be removed.
    #[error("`{0}` is used by a running instance; stop that first")]
    InUse(String),
    /// A reference that does not parse.
    #[error("`{name}` is not an image reference: {why}")]
    BadReference {
        /// As given.
        name: String,
        /// The parser's word.
        why: String,
    },
}

impl ImageError {
    /// Says whose fault it is, where a document of the image `descriptor` names is damaged.
    pub(crate) fn of_image(self, descriptor: &Descriptor) -> Self {
        match self {
            Self::DigestMismatch { .. }
            | Self::SizeMismatch { .. }
            | Self::MissingBlob(_)
            | Self::BadDigest(_)
            | Self::BadDocument { .. } => {
                let name = name_of(descriptor).unwrap_or_else(|| descriptor.digest().to_string());
                Self::Damaged { name, source: Box::new(self) }
            }
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
