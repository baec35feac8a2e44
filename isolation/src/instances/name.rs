//! Names of instances, the host names that follow from them, and of folders beside theirs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, io};

use crate::instance_id;

/// As long as a file name and the container runtime allow with a suffix of ours behind it.
const MAX_NAME: usize = 115;
/// `HOST_NAME_MAX`, sethostname(2).
const MAX_HOSTNAME: usize = 64;

/// An instance's name: what podman allows, `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, so that it is no path, no
/// option and no hidden file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceName(String);

/// What cannot be a name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A name of an instance.
    #[error("a name is 1 to {MAX_NAME} of A-Z a-z 0-9 _ . - and begins with a letter or digit")]
    Instance,
    /// A host name.
    #[error(
        "a host name is at most {MAX_HOSTNAME} bytes long and has no spaces, slashes or control characters"
    )]
    Host,
}

impl InstanceName {
    /// The name of an instance that nobody named: hexadecimal digits.
    pub(super) fn random(digits: &str) -> Self {
        Self(digits.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host name of an instance that was not given one: the name, as far as the kernel takes it.
    pub fn to_hostname(&self) -> String {
        let cut = &self.0[..self.0.len().min(MAX_HOSTNAME)];
        // hostname(7): a name does not end with these.
        cut.trim_end_matches(['.', '-', '_']).to_owned()
    }
}

impl FromStr for InstanceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        if !begins || text.len() > MAX_NAME || !text.bytes().all(allowed) {
            return Err(NameError::Instance);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks a host name that was asked for. It becomes a line of /etc/hosts.
///
/// # Errors
/// The kernel would refuse it, or it could not stand in a line.
pub fn parse_hostname(text: &str) -> Result<String, NameError> {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != '#';
    if text.len() > MAX_HOSTNAME || !text.chars().all(allowed) {
        return Err(NameError::Host);
    }
    Ok(text.to_owned())
}

/// A folder that is being removed. No instance's name begins so.
pub(super) const CONDEMNED: &str = ".condemned-";

/// Whether no instance can have this name.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

/// A path in `instances` that nothing has.
pub(super) fn condemned(instances: &Path, name: &str) -> io::Result<PathBuf> {
    let random = instance_id().map_err(io::Error::other)?;
    Ok(instances.join(format!("{CONDEMNED}{random}-{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_podman_s() {
        let long = "x".repeat(MAX_NAME);
        for good in ["a", "0", "web-1.x_y", "A..b", "x-", &long] {
            assert_eq!(good.parse::<InstanceName>().unwrap().as_str(), good);
        }
        let too_long = "x".repeat(MAX_NAME + 1);
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "-a",
            "_a",
            "../../evil",
            "a/b",
            "a b",
            "a\n",
            "ü",
            "a+b",
            &too_long,
        ] {
            assert_eq!(bad.parse::<InstanceName>(), Err(NameError::Instance), "{bad:?}");
        }
    }

    #[test]
    fn host_names_fit_the_kernel() {
        let host = |name: &str| name.parse::<InstanceName>().unwrap().to_hostname();
        assert_eq!(host("web"), "web");
        assert_eq!(host(&"x".repeat(100)), "x".repeat(64));
        assert_eq!(host(&format!("{}-.-{}", "x".repeat(61), "y".repeat(9))), "x".repeat(61));
        assert_eq!(parse_hostname("box.example").unwrap(), "box.example");
        assert_eq!(parse_hostname("").unwrap(), "");
        let long = "x".repeat(65);
        for bad in ["a b", "a\nb", "a/b", "#a", &long] {
            assert_eq!(parse_hostname(bad), Err(NameError::Host), "{bad:?}");
        }
    }
}
