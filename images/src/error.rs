//! What can go wrong with images.

use std::io;
use std::path::{Path, PathBuf};

/// A failure with an image, its archive, its registry or its build. Each variant names the thing
/// it is about.
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
    /// A Dockerfile does not parse.
    #[error("{}: {why}", path.display())]
    Dockerfile {
        /// The Dockerfile.
        path: PathBuf,
        /// The line, and what the parser says of it.
        why: String,
    },
    /// An instruction of a Dockerfile failed.
    #[error("{}:{line}: {instruction}: {why}", path.display())]
    BuildStep {
        /// The Dockerfile.
        path: PathBuf,
        /// The line on which the instruction begins.
        line: usize,
        /// The instruction with its continuations joined.
        instruction: String,
        /// Why it failed.
        why: String,
        /// What the caller of the build did not give.
        missing: Option<BuildNeed>,
    },
    /// A registry failed, or could not be reached.
    #[error("cannot {action} {name}: {why}")]
    Registry {
        /// `pull`, `push` or `log in to`.
        action: &'static str,
        /// The image, or the registry that was to be logged in to.
        name: String,
        /// The host of the registry.
        registry: String,
        /// What the registry or the network said.
        why: String,
        /// Where the operator's settings may be the cause.
        cause: Option<AccessFault>,
    },
    /// A registry does not take the user and password that it was to be logged in to with.
    #[error("cannot log in to {registry}: it does not take this user and password")]
    LoginRefused {
        /// The registry's host, and port if it has one.
        registry: String,
    },
    /// A registry wants other credentials.
    #[error("cannot {action} {name}: {registry} denies it, or there is no such image")]
    Denied {
        /// `pull` or `push`.
        action: &'static str,
        /// The image's full name.
        name: String,
        /// The registry's host, and port if it has one.
        registry: String,
    },
    /// A file that should hold the certificate of a registry's CA.
    #[error("{} is no use as the certificate of a registry's CA: {why}", path.display())]
    Certificate {
        /// The file of the certificate.
        path: PathBuf,
        /// Why it is none.
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
    /// The credentials for a registry cannot be had or kept.
    #[error("credentials for {registry}: {why}")]
    Credentials {
        /// The registry's host, and port if it has one.
        registry: String,
        /// Which file, and what is wrong with it.
        why: String,
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

/// How a registry was approached, where that may be why it could not be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessFault {
    /// By TLS, and nobody known signed the certificate that it showed.
    UnknownCa,
    /// By TLS, to a port of this machine at which nobody answered so.
    TlsOnLoopback,
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
