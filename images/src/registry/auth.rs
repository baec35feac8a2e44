//! Credentials: those that `docker login` and ours keep in Docker's `config.json`.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use serde_json::{Map, Value, json};

use super::RegistryOptions;
use super::connection::{Connection, runtime};
use crate::blob::BlobId;
use crate::error::{ImageError, io_error};

/// The key of Docker's own registry, from before it had a host name as others.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The credentials for a registry; without any, anonymous.
pub(super) fn stored(registry: &str) -> Result<RegistryAuth, ImageError> {
    use CredentialRetrievalError as Missing;
    let failed = |why: String| ImageError::Credentials { registry: registry.to_owned(), why };
    match docker_credential::get_credential(registry) {
        Ok(DockerCredential::UsernamePassword(user, password)) => {
            Ok(RegistryAuth::Basic(user, password))
        }
        Ok(DockerCredential::IdentityToken(_)) => {
            Err(failed("an identity token, which isolab cannot use; log in by password".to_owned()))
        }
        Err(Missing::NoCredentialConfigured | Missing::ConfigNotFound) => {
            Ok(RegistryAuth::Anonymous)
        }
        // No file, or one that cannot be read or parsed: only the former is as it should be.
        Err(Missing::ConfigReadError) => match config_path().map(fs::read) {
            Some(Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(RegistryAuth::Anonymous),
            Some(Err(e)) => Err(failed(e.to_string())),
            _ => Err(failed("config.json does not parse".to_owned())),
        },
        Err(error) => Err(failed(error.to_string())),
    }
}

/// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
fn config_path() -> Option<PathBuf> {
    let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| env::home_dir().map(|home| home.join(".docker")));
    Some(folder?.join("config.json"))
}

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
) -> Result<PathBuf, ImageError> {
    let probe = crate::store::names::parse(&format!("{registry}/isolab/login"))?;
    if probe.registry() != registry {
        let why = "name a registry's host, for example quay.io or localhost:5000".to_owned();
        return Err(ImageError::BadReference { name: registry.to_owned(), why });
    }
    let auth = RegistryAuth::Basic(user.to_owned(), password.to_owned());
    runtime()?.block_on(try_out(probe.clone(), auth, options))?;
    let path = config_path().ok_or_else(|| ImageError::Credentials {
        registry: registry.to_owned(),
        why: "there is neither $DOCKER_CONFIG nor a home folder to keep them in".to_owned(),
    })?;
    let key = match probe.resolve_registry() {
        "index.docker.io" => DOCKER_HUB_KEY,
        host => host,
    };
    keep(&path, key, &STANDARD.encode(format!("{user}:{password}")))?;
    Ok(path)
}

/// Where the registry hands out tokens, opening the connection got one. Where it takes passwords
/// it has not looked at ours yet: asking for something that it does not have makes it.
async fn try_out(
    probe: Reference,
    auth: RegistryAuth,
    options: RegistryOptions<'_>,
) -> Result<(), ImageError> {
    let connection = Connection::open_as(probe, auth, "log in to", options).await?;
    let nothing = BlobId::of(b"").full();
    match connection.client.blob_exists(&connection.reference, &nothing).await {
        Ok(_) => Ok(()),
        Err(error) => Err(connection.failed(error)),
    }
}

/// Writes one entry, and leaves the rest of the file as it is.
fn keep(path: &Path, key: &str, auth: &str) -> Result<(), ImageError> {
    let failed = |why: String| ImageError::Credentials { registry: key.to_owned(), why };
    let mut config: Map<String, Value> = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|e| failed(format!("{} does not parse: {e}", path.display())))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let auths = config.entry("auths").or_insert_with(|| json!({}));
    let Some(auths) = auths.as_object_mut() else {
        return Err(failed(format!("{}: `auths` is no object", path.display())));
    };
    auths.insert(key.to_owned(), json!({"auth": auth}));
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(io_error("create", folder))?;
    // Mode 0600 from the beginning, as tempfile makes them.
    let mut options = tempfile::Builder::new();
    let file = options.prefix(".config.json-").make_in(folder, |path| {
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    });
    let file = file.map_err(io_error("write to", folder))?;
    serde_json::to_writer_pretty(file.as_file(), &config)
        .map_err(|e| io_error("write", path)(e.into()))?;
    file.as_file().sync_all().map_err(io_error("write", path))?;
    file.persist(path).map(drop).map_err(|e| io_error("write", path)(e.error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn credentials_are_kept_beside_others_and_from_other_users() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker/config.json");
        keep(&path, "localhost:5000", "b25l").unwrap();
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config["psFormat"] = json!("table");
        fs::write(&path, config.to_string()).unwrap();
        keep(&path, "quay.io", "dHdv").unwrap();
        let config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!(config["auths"]["localhost:5000"]["auth"], "b25l");
        assert_eq!(config["auths"]["quay.io"]["auth"], "dHdv");
        assert_eq!(config["psFormat"], "table");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        fs::write(&path, "{ broken").unwrap();
        assert!(matches!(keep(&path, "quay.io", "x"), Err(ImageError::Credentials { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"{ broken");
    }
}
