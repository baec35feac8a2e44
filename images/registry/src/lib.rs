//! Registries, by the OCI distribution specification: images into the store and out of it.
//!
//! Blocking on the outside: a command does one thing. Inside, layers move in parallel on one
//! thread's runtime.

mod auth;
mod connection;
mod error;
mod login;
mod progress;
mod pull;
mod push;
mod retry;
mod trust;

use std::path::Path;

pub use error::{AccessFault, RegistryError};
pub use login::login;
pub use progress::{Progress, Silent};
pub use pull::pull;
pub use push::push;

/// How to reach a registry.
#[derive(Clone, Copy)]
pub struct RegistryOptions<'a> {
    /// Plain HTTP instead of HTTPS, for registries on this machine.
    pub insecure: bool,
    /// A folder with the certificates of CAs (`*.crt`), instead of the registry's own in
    /// `/etc/containers/certs.d` and the like.
    pub cert_dir: Option<&'a Path>,
    /// Is told what moves.
    pub progress: &'a dyn Progress,
}

impl Default for RegistryOptions<'_> {
    fn default() -> Self {
        Self { insecure: false, cert_dir: None, progress: &Silent }
    }
}
