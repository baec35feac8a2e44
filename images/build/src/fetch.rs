//! Files of other hosts, by HTTP.

use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path};
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use error_reporter::Report;
use isolab_images::ingest::hex;
use reqwest::header::LAST_MODIFIED;
use reqwest::{Client, Response, Url};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Builder;
use tokio::time::timeout;

use super::Check;

/// A host that says nothing for so long has gone.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How often it is asked whether the build is to end.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);
/// More than any honest file has, less than a disk.
const MAX_BYTES: u64 = 16 << 30;

/// What a URL gave.
pub(super) struct Fetched {
    /// The file's name in the URL.
    pub(super) name: Option<String>,
    /// SHA-256 of the content, in hexadecimal.
    pub(super) sha256: String,
}

/// Fetches `url` into the new file `target`: for its owner only, and as old as the host says it
/// is, or from 1970 (as BuildKit's).
pub(super) fn fetch(url: &str, target: &Path, check: Check<'_>) -> Result<Fetched, String> {
    let url = Url::parse(url).map_err(|e| format!("this is no URL: {e}"))?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(receive(url, target, check))
}

async fn receive(url: Url, target: &Path, check: Check<'_>) -> Result<Fetched, String> {
    // Fails where a provider is installed already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .user_agent(concat!("isolab/", env!("CARGO_PKG_VERSION")))
        .read_timeout(READ_TIMEOUT)
        .connect_timeout(CONNECT_TIMEOUT)
        .build()
        .map_err(chain)?;
    let name = name_in(&url);
    let response = patiently(client.get(url).send(), check).await?;
    let mut response = response.error_for_status().map_err(chain)?;
    let modified = modified(&response);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(target);
    let mut file = BufWriter::new(file.map_err(|e| e.to_string())?);
    let mut hasher = Sha256::new();
    let mut received = 0;
    while let Some(bytes) = patiently(response.chunk(), check).await? {
        received += bytes.len() as u64;
        if received > MAX_BYTES {
            return Err(format!("the file is larger than {} GiB", MAX_BYTES >> 30));
        }
        hasher.update(&bytes);
        file.write_all(&bytes).map_err(|e| format!("cannot keep it: {e}"))?;
    }
    let file = file.into_inner().map_err(|e| format!("cannot keep it: {e}"))?;
    finish(&file, target, modified).map_err(|e| format!("cannot keep it: {e}"))?;
    Ok(Fetched { name, sha256: hex(&hasher.finalize()) })
}

/// Waits for the host, and asks meanwhile whether the build is to end.
async fn patiently<T>(
    work: impl Future<Output = Result<T, reqwest::Error>>,
    check: Check<'_>,
) -> Result<T, String> {
    let mut work = std::pin::pin!(work);
    loop {
        check().map_err(|e| e.to_string())?;
        if let Ok(outcome) = timeout(CHECK_INTERVAL, work.as_mut()).await {
            return outcome.map_err(chain);
        }
    }
}

/// Whatever our umask is.
fn finish(file: &File, target: &Path, modified: SystemTime) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(target, fs::Permissions::from_mode(0o600))?;
    file.set_times(FileTimes::new().set_modified(modified))
}

fn modified(response: &Response) -> SystemTime {
    let text = response.headers().get(LAST_MODIFIED).and_then(|value| value.to_str().ok());
    let time = text.and_then(|text| DateTime::parse_from_rfc2822(text).ok());
    let seconds = time.and_then(|time| u64::try_from(time.timestamp()).ok()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The last part of the path, which is one name and nothing else.
fn name_in(url: &Url) -> Option<String> {
    let name = url.path_segments()?.next_back()?.to_owned();
    let mut parts = Path::new(&name).components();
    let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    is_name.then_some(name)
}

/// An error with its causes: that of an HTTP client says little without them.
fn chain(error: reqwest::Error) -> String {
    Report::new(error).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_last_parts_of_paths() {
        for (url, name) in [
            ("http://a/b/c.tar.gz", Some("c.tar.gz")),
            ("http://a/b/c?x=/y#z", Some("c")),
            ("http://a/b/", None),
            ("http://a", None),
            ("http://a/b/..", None),
            ("http://a/b/%2e%2e", None),
        ] {
            assert_eq!(name_in(&Url::parse(url).unwrap()).as_deref(), name, "{url}");
        }
    }
}
