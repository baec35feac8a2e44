//! Logging in to a registry.

use std::path::PathBuf;

use isolab_images::ImageError;
use isolab_images::ingest::{BlobId, parse_name};
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;

use crate::auth::remember;
use crate::connection::{Connection, LOGIN, runtime};
use crate::{RegistryError, RegistryOptions};

/// Tries the credentials on `registry` and keeps them in Docker's configuration, where Docker,
/// podman and skopeo find them too. Returns the file.
///
/// # Errors
/// `registry` is no host name, refuses the credentials or cannot be reached, or the file cannot
/// be read, parsed or written.
pub fn login(
    registry: &str,
    user: &str,
    password: &str,
    options: RegistryOptions<'_>,
) -> Result<PathBuf, RegistryError> {
    let probe = parse_name(&format!("{registry}/isolab/login"))?;
    if probe.registry() != registry {
        let why = "name a registry's host, for example quay.io or localhost:5000".to_owned();
        return Err(ImageError::BadReference { name: registry.to_owned(), why }.into());
    }
    let auth = RegistryAuth::Basic(user.to_owned(), password.to_owned());
    runtime()?.block_on(try_out(probe.clone(), auth, options))?;
    remember(&probe, user, password)
}

/// Where the registry hands out tokens, opening the connection got one. Where it takes passwords
/// it has not looked at ours yet: asking for something that it does not have makes it.
async fn try_out(
    probe: Reference,
    auth: RegistryAuth,
    options: RegistryOptions<'_>,
) -> Result<(), RegistryError> {
    let connection = Connection::open_as(probe, auth, LOGIN, options).await?;
    let nothing = BlobId::of(b"").full();
    match connection.client.blob_exists(&connection.reference, &nothing).await {
        Ok(_) => Ok(()),
        Err(error) => Err(connection.failed(error)),
    }
}
