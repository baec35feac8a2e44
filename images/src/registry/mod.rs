//! Registries, by the OCI distribution specification.
//!
//! Blocking on the outside: a command does one thing. Inside, layers move in parallel on one
//! thread's runtime.

mod auth;
mod connection;
mod progress;
mod pull;
mod push;

pub use progress::{Progress, Silent};

/// How to reach a registry.
#[derive(Clone, Copy)]
pub struct RegistryOptions<'a> {
    /// Plain HTTP instead of HTTPS, for registries on this machine.
    pub insecure: bool,
    /// Is told what moves.
    pub progress: &'a dyn Progress,
}

impl Default for RegistryOptions<'_> {
    fn default() -> Self {
        Self { insecure: false, progress: &Silent }
    }
}

pub use auth::login;
