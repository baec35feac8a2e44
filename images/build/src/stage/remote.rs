//! Files of other hosts, for ADD.

use std::path::PathBuf;

use super::{Outcome, StageBuilder};
use crate::{check_of, fetch};

/// A file that was fetched.
pub(super) struct Remote {
    /// Ours, removed with the build.
    pub(super) file: PathBuf,
    /// What the URL calls it.
    pub(super) name: Option<String>,
}

impl StageBuilder<'_, '_> {
    /// Fetches a file, which must have the digest `checksum` where one is given.
    pub(super) fn fetch(&mut self, url: &str, checksum: Option<&str>) -> Outcome<Remote> {
        let expected = checksum.map(sha256_of).transpose()?;
        let file = self.place("remote");
        self.build.tell(&format!("    fetching {url}"));
        let check = check_of(self.build.runner);
        let fetched = fetch::fetch(url, &file, &check)?;
        if let Some(expected) = expected.filter(|expected| *expected != fetched.sha256) {
            let found = fetched.sha256;
            return Err(format!("the file has sha256:{found}, --checksum says {expected}").into());
        }
        Ok(Remote { file, name: fetched.name })
    }
}

fn sha256_of(checksum: &str) -> Outcome<String> {
    let digits = checksum.strip_prefix("sha256:").map(str::to_ascii_lowercase);
    let is_whole =
        |digits: &String| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let wrong = || format!("--checksum={checksum} is not sha256: and 64 digits");
    digits.filter(is_whole).ok_or_else(|| wrong().into())
}
