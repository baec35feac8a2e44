//! Credentials: those that `docker login` and ours keep in Docker's `config.json`, and those that
//! `podman login` and skopeo's keep in `auth.json`, which has the same form.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use isolab_images::ingest::io_error;
use oci_client::Reference;
use oci_client::secrets::RegistryAuth;
use serde_json::{Map, Value, json};

use crate::RegistryError;

/// The key of Docker's own registry, from before it had a host name as others.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// The credentials for an image's registry; without any, anonymous.
pub(crate) fn stored(image: &Reference) -> Result<RegistryAuth, RegistryError> {
    for path in files(&|name| env::var_os(name), env::home_dir().as_deref()) {
        if let Some(auth) = stored_in(&path, image)? {
            return Ok(auth);
        }
    }
    Ok(RegistryAuth::Anonymous)
}

/// Where credentials may be, the first that has any for a registry counts: in
/// `$REGISTRY_AUTH_FILE` alone, where that is set; or else where Docker and we keep them, and then
/// where podman and skopeo do (containers-auth.json(5)).
fn files(variable: &dyn Fn(&str) -> Option<OsString>, home: Option<&Path>) -> Vec<PathBuf> {
    let folder = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = folder("REGISTRY_AUTH_FILE") {
        return vec![file];
    }
    let docker = folder("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker")));
    let uid = nix::unistd::getuid();
    let runtime = folder("XDG_RUNTIME_DIR").map(|folder| folder.join("containers"));
    let runtime = runtime.unwrap_or_else(|| PathBuf::from(format!("/run/containers/{uid}")));
    let own = folder("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
    let podman = own.map(|folder| folder.join("containers/auth.json"));
    let docker = docker.map(|folder| folder.join("config.json"));
    docker.into_iter().chain([runtime.join("auth.json")]).chain(podman).collect()
}

/// What one file has for an image: podman's may have an entry for a repository or a folder of them,
/// the longest counts.
fn stored_in(path: &Path, image: &Reference) -> Result<Option<RegistryAuth>, RegistryError> {
    use CredentialRetrievalError as Missing;
    let registry = image.resolve_registry();
    let failed = |why: String| RegistryError::Credentials {
        registry: registry.to_owned(),
        why: format!("{}: {why}", path.display()),
    };
    let text = match fs::read(path) {
        // A part of the way that is no folder holds no file either.
        Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => {
            return Ok(None);
        }
        other => other.map_err(|error| failed(error.to_string()))?,
    };
    let config: Value =
        serde_json::from_slice(&text).map_err(|e| failed(format!("it does not parse: {e}")))?;
    let has = |key: &String| config.get("auths").is_some_and(|auths| auths.get(key).is_some());
    let repository = image.repository();
    let ends = repository.match_indices('/').map(|(end, _)| end).rev();
    let folders = [repository.len()].into_iter().chain(ends);
    // An entry of podman's for Docker Hub is called docker.io, as images of it are.
    let keys = folders.map(|end| format!("{}/{}", image.registry(), &repository[..end]));
    // A registry's own key may be spelled differently, or be a helper's affair.
    for key in keys.filter(has).chain([registry.to_owned()]) {
        match docker_credential::get_credential_from_reader(&text[..], &key) {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                return Ok(Some(RegistryAuth::Basic(user, password)));
            }
            Ok(DockerCredential::IdentityToken(_)) => {
                let why = "an identity token, which isolab cannot use; log in by password";
                return Err(failed(why.to_owned()));
            }
            Err(Missing::NoCredentialConfigured) => {}
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Ok(None)
}

/// `$DOCKER_CONFIG/config.json` or `~/.docker/config.json`.
fn config_path() -> Option<PathBuf> {
    let folder = env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let folder = folder.or_else(|| env::home_dir().map(|home| home.join(".docker")));
    Some(folder?.join("config.json"))
}

/// Keeps credentials in Docker's configuration, where Docker, podman and skopeo find them too. Gives
/// the file.
pub(crate) fn remember(
    registry: &Reference,
    user: &str,
    password: &str,
) -> Result<PathBuf, RegistryError> {
    let path = config_path().ok_or_else(|| RegistryError::Credentials {
        registry: registry.registry().to_owned(),
        why: "there is neither $DOCKER_CONFIG nor a home folder to keep them in".to_owned(),
    })?;
    let key = match registry.resolve_registry() {
        "index.docker.io" => DOCKER_HUB_KEY,
        host => host,
    };
    keep(&path, key, &STANDARD.encode(format!("{user}:{password}")))?;
    Ok(path)
}

/// Writes one entry, and leaves the rest of the file as it is.
fn keep(path: &Path, key: &str, auth: &str) -> Result<(), RegistryError> {
    let failed = |why: String| RegistryError::Credentials { registry: key.to_owned(), why };
    let mut config: Map<String, Value> = match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|e| failed(format!("{} does not parse: {e}", path.display())))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(error) => return Err(io_error("read", path)(error).into()),
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
    file.persist(path).map_err(|e| io_error("write", path)(e.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use isolab_images::ingest::parse_name;

    use super::*;

    fn image(name: &str) -> Reference {
        parse_name(name).unwrap()
    }

    #[test]
    fn dockers_file_comes_first_and_podmans_after_it() {
        let none = |_: &str| None;
        let uid = nix::unistd::getuid();
        let home = files(&none, Some(Path::new("/home/me")));
        let runtime = format!("/run/containers/{uid}/auth.json");
        let podman = "/home/me/.config/containers/auth.json";
        assert_eq!(home, ["/home/me/.docker/config.json", &runtime, podman].map(PathBuf::from));
        let set = |name: &str| match name {
            "REGISTRY_AUTH_FILE" => None,
            other => Some(OsString::from(format!("/{other}"))),
        };
        let wanted = [
            "/DOCKER_CONFIG/config.json",
            "/XDG_RUNTIME_DIR/containers/auth.json",
            "/XDG_CONFIG_HOME/containers/auth.json",
        ];
        assert_eq!(files(&set, None), wanted.map(PathBuf::from));
        let all = |name: &str| Some(OsString::from(format!("/{name}")));
        assert_eq!(files(&all, None), [PathBuf::from("/REGISTRY_AUTH_FILE")]);
    }

    #[test]
    fn the_longest_entry_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        let entry = |user: &str| json!({"auth": STANDARD.encode(format!("{user}:secret"))});
        let auths = json!({"auths": {
            "docker.io": entry("hub"), "quay.io": entry("all"), "quay.io/team": entry("team"),
            "quay.io/team/app": entry("app"), "localhost:5000": entry("local"),
        }});
        fs::write(&path, auths.to_string()).unwrap();
        for (name, user) in [
            ("busybox", Some("hub")),
            ("quay.io/other/app", Some("all")),
            ("quay.io/teams/app", Some("all")),
            ("quay.io/team/other", Some("team")),
            ("quay.io/team/app:v1", Some("app")),
            ("quay.io/team/app/deep", Some("app")),
            ("localhost:5000/x", Some("local")),
            ("localhost:5001/x", None),
        ] {
            let wanted = user.map(|user| RegistryAuth::Basic(user.into(), "secret".into()));
            assert!(stored_in(&path, &image(name)).unwrap() == wanted, "{name}");
        }
        let missing = stored_in(&dir.path().join("none/auth.json"), &image("busybox"));
        assert!(missing.unwrap().is_none());
        assert!(stored_in(&path.join("below"), &image("busybox")).unwrap().is_none());
        fs::write(&path, "{ broken").unwrap();
        let broken = stored_in(&path, &image("busybox")).unwrap_err().to_string();
        assert!(broken.contains("auth.json") && broken.contains("does not parse"), "{broken}");
    }

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
        assert!(matches!(keep(&path, "quay.io", "x"), Err(RegistryError::Credentials { .. })));
        assert_eq!(fs::read(&path).unwrap(), b"{ broken");
    }
}
