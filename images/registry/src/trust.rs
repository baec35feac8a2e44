//! Whose certificates a registry may show: the system's CAs (with $SSL_CERT_FILE and
//! $SSL_CERT_DIR, as OpenSSL has them), and those that are given for its host, in the folders
//! where podman and Docker look (containers-certs.d(5)).

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use isolab_images::ingest::io_error;
use oci_client::client::{Certificate, CertificateEncoding};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::RegistryError;

/// Below the home folder, and before the system's.
const OWN_FOLDER: &str = ".config/containers/certs.d";
/// In the order in which podman looks; the first that has a folder of the host's is taken.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/containers/certs.d", "/etc/docker/certs.d"];

/// The CAs for the registry `host`, which has `:PORT` where it has one: those of the folder
/// `given`, or else of the host's own.
pub(crate) fn roots(host: &str, given: Option<&Path>) -> Result<Vec<Certificate>, RegistryError> {
    match given {
        Some(folder) => roots_in(folder),
        None => {
            let folder = folders(env::home_dir()).into_iter().map(|folder| folder.join(host));
            match folder.into_iter().find(|folder| folder.is_dir()) {
                Some(folder) => roots_in(&folder),
                None => Ok(Vec::new()),
            }
        }
    }
}

fn folders(home: Option<PathBuf>) -> Vec<PathBuf> {
    let own = home.map(|home| home.join(OWN_FOLDER));
    own.into_iter().chain(SYSTEM_FOLDERS.map(PathBuf::from)).collect()
}

/// All `*.crt`. A `*.cert` with its `*.key` is what we would show the registry.
fn roots_in(folder: &Path) -> Result<Vec<Certificate>, RegistryError> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>())
        .map_err(io_error("read the certificates in", folder))?;
    files.sort();
    let mut roots = Vec::new();
    for file in files {
        let wrong = |why: String| RegistryError::Certificate { path: file.clone(), why };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => {}
            Some("cert") => {
                return Err(wrong(
                    "it is a client's certificate, and isolab cannot show a registry one; \
                     log in with a password"
                        .to_owned(),
                ));
            }
            _ => continue,
        }
        let text = fs::read(&file).map_err(io_error("read", &file))?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| wrong(error.to_string()))?;
        if found.is_empty() {
            return Err(wrong("there is no certificate in PEM form in it".to_owned()));
        }
        roots.extend(found.into_iter().map(|certificate| Certificate {
            encoding: CertificateEncoding::Der,
            data: certificate.to_vec(),
        }));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_ca_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("README", "not looked at");
        assert!(roots_in(dir.path()).unwrap().is_empty());
        write("ca.crt", "no certificate");
        let error = roots_in(dir.path()).unwrap_err().to_string();
        assert!(error.contains("ca.crt") && error.contains("PEM"), "{error}");
        write("ca.crt", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
        assert!(roots_in(dir.path()).unwrap_err().to_string().contains("ca.crt"));
        fs::remove_file(dir.path().join("ca.crt")).unwrap();
        write("client.cert", "");
        let error = roots_in(dir.path()).unwrap_err().to_string();
        assert!(error.contains("client.cert") && error.contains("log in"), "{error}");
        let missing = dir.path().join("missing");
        let error = roots("localhost:5000", Some(&missing)).unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
    }

    #[test]
    fn the_own_folder_counts_before_the_system_s() {
        let folders = folders(Some(PathBuf::from("/home/me")));
        assert_eq!(folders[0], Path::new("/home/me/.config/containers/certs.d"));
        assert_eq!(folders[1..], SYSTEM_FOLDERS.map(PathBuf::from));
    }
}
