//! What can go wrong between a registry and the store.

use std::path::PathBuf;

use isolab_images::ImageError;

/// A failure with a registry. Each variant names the registry, or the file, that it is about.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Of the image itself, or of the store that it comes from or goes into.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The registry failed, or could not be reached.
    #[error("cannot {action} {name}: {why}")]
    Failed {
        /// `pull`, `push` or `log in to`.
        action: &'static str,
        /// The image, or the registry that was to be logged in to.
        name: String,
        /// The registry's host, and port if it has one.
        registry: String,
        /// What the registry or the network said.
        why: String,
        /// Where the operator's settings may be the cause.
        cause: Option<AccessFault>,
    },
    /// The registry does not take the user and password that it was to be logged in to with.
    #[error("cannot log in to {registry}: it does not take this user and password")]
    LoginRefused {
        /// The registry's host, and port if it has one.
        registry: String,
    },
    /// The registry wants other credentials.
    #[error("cannot {action} {name}: {registry} denies it, or there is no such image")]
    Denied {
        /// `pull` or `push`.
        action: &'static str,
        /// The image's full name.
        name: String,
        /// The registry's host, and port if it has one.
        registry: String,
    },
    /// A file that should hold the certificate of the registry's CA.
    #[error("{} is no use as the certificate of a registry's CA: {why}", path.display())]
    Certificate {
        /// The file of the certificate.
        path: PathBuf,
        /// Why it is none.
        why: String,
    },
    /// The credentials for the registry cannot be had or kept.
    #[error("credentials for {registry}: {why}")]
    Credentials {
        /// The registry's host, and port if it has one.
        registry: String,
        /// Which file, and what is wrong with it.
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
