//! One registry, logged in to as the operator's Docker configuration says.

use std::error::Error;
use std::io;
use std::thread;
use std::time::Duration;

use isolab_images::ingest::io_error;
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference, RegistryOperation};
use tokio::runtime::{Builder, Runtime};

use crate::{AccessFault, RegistryError, RegistryOptions, auth, trust};

/// A registry that says nothing for so long has gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) reference: Reference,
    pub(crate) auth: RegistryAuth,
    action: &'static str,
    /// Whether it is plain HTTP.
    insecure: bool,
}

/// What [`Connection::open_as`] is for where it is neither a pull nor a push.
pub(crate) const LOGIN: &str = "log in to";

impl Connection {
    /// Connects for `action`: `pull` or `push`.
    pub(crate) async fn open(
        reference: Reference,
        action: &'static str,
        options: RegistryOptions<'_>,
    ) -> Result<Self, RegistryError> {
        let auth = auth::stored(&reference)?;
        Self::open_as(reference, auth, action, options).await
    }

    pub(crate) async fn open_as(
        reference: Reference,
        auth: RegistryAuth,
        action: &'static str,
        options: RegistryOptions<'_>,
    ) -> Result<Self, RegistryError> {
        let insecure = options.insecure;
        // Without TLS nobody shows a certificate.
        let roots = match insecure {
            true => Vec::new(),
            false => trust::roots(reference.registry(), options.cert_dir)?,
        };
        // Fails where a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = ClientConfig {
            protocol: if insecure { ClientProtocol::Http } else { ClientProtocol::Https },
            use_monolithic_push: true,
            extra_root_certificates: roots,
            read_timeout: Some(READ_TIMEOUT),
            connect_timeout: Some(CONNECT_TIMEOUT),
            user_agent: concat!("isolab/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| RegistryError::Failed {
            action,
            name: subject(&reference, action),
            registry: reference.registry().to_owned(),
            why: chain(&error),
            cause: None,
        })?;
        let connection = Self { client, reference, auth, action, insecure };
        let operation = match action {
            "push" => RegistryOperation::Push,
            _ => RegistryOperation::Pull,
        };
        let Self { client, reference, auth, .. } = &connection;
        connection.ask(|| client.auth(reference, auth, operation)).await?;
        Ok(connection)
    }

    /// What the registry's refusal means for the operator.
    pub(crate) fn failed(&self, error: OciDistributionError) -> RegistryError {
        let registry = self.reference.registry();
        let is_denied = match &error {
            OciDistributionError::UnauthorizedError { .. }
            | OciDistributionError::AuthenticationFailure(_) => true,
            OciDistributionError::RequestError(e) => {
                e.status().is_some_and(|status| matches!(status.as_u16(), 401 | 403))
            }
            OciDistributionError::ServerError { code, .. } => matches!(code, 401 | 403),
            _ => false,
        };
        let registry = registry.to_owned();
        let (action, name) = (self.action, subject(&self.reference, self.action));
        if is_denied && action == LOGIN {
            return RegistryError::LoginRefused { registry };
        }
        if is_denied {
            return RegistryError::Denied { action, name, registry };
        }
        let is_connect =
            matches!(&error, OciDistributionError::RequestError(error) if error.is_connect());
        let cause = if is_about_certificate(&error) {
            Some(AccessFault::UnknownCa)
        } else {
            let by_tls = is_connect && !self.insecure && is_loopback(&registry);
            by_tls.then_some(AccessFault::TlsOnLoopback)
        };
        let why = match is_connect {
            // What led there, the HTTP client's layers say in words of their own.
            true => format!("{registry} cannot be reached: {}", root(&error)),
            false => chain(&error),
        };
        RegistryError::Failed { action, name, registry, why, cause }
    }
}

/// What an action is done to: who logs in names no image.
fn subject(reference: &Reference, action: &str) -> String {
    match action == LOGIN {
        true => reference.registry().to_owned(),
        false => reference.whole(),
    }
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _port)| host);
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Whether the registry's certificate is why we do not talk to it.
fn is_about_certificate(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return matches!(tls, rustls::Error::InvalidCertificate(_));
        }
        // An I/O error's source is that of the error inside, not that error.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map_or_else(|| error.source(), |inner| Some(inner));
    }
    false
}

/// An error with its causes: that of an HTTP client says little without them.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text += ": ";
            text += &message;
        }
        cause = error.source();
    }
    text
}

/// The last error of the chain: the first cause.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    error.source().map_or(error, root)
}

/// What blocking calls run on.
pub(crate) fn runtime() -> Result<Runtime, RegistryError> {
    // tokio resolves names on a thread of its own, and panics where the host refuses it one
    // (RLIMIT_NPROC, pids.max): better to know before.
    let thread = thread::Builder::new().spawn(|| {});
    // It does nothing, and so does not panic.
    thread
        .map(|thread| drop(thread.join()))
        .map_err(io_error("start a thread for", "the registry"))?;
    let runtime = Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(io_error("start a runtime for", "the registry"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_on_this_machine_are_known() {
        for here in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9", "[::1]:5000"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["docker.io", "localhost.example", "10.0.0.1:5000", "registry:5000"] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
