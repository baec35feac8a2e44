//! Names of volumes.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// As long as a file name, with room for a suffix of ours.
const MAX_NAME: usize = 200;

/// A volume's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, as podman has it, so that it is no path and no hidden file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeName(String);

/// What cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be a volume's name: 1 to {MAX_NAME} of A-Z a-z 0-9 _ . - that begin with a letter or digit"
)]
pub struct BadName(String);

impl VolumeName {
    /// A name that no other volume has: 64 hexadecimal digits, as podman gives an anonymous one.
    ///
    /// # Errors
    /// /dev/urandom cannot be read.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VolumeName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        match begins && text.len() <= MAX_NAME && text.bytes().all(allowed) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadName(text.to_owned())),
        }
    }
}

impl TryFrom<String> for VolumeName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

impl From<VolumeName> for String {
    fn from(name: VolumeName) -> Self {
        name.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path_and_no_hidden_file() {
        let long = "x".repeat(MAX_NAME);
        for good in ["a", "web-1.x_y", "0", &long] {
            assert_eq!(good.parse::<VolumeName>().unwrap().as_str(), good);
        }
        let too_long = "x".repeat(MAX_NAME + 1);
        for bad in ["", ".", "..", "-a", ".a", "a/b", "../a", "a b", "a\n", "ü", &too_long] {
            assert_eq!(bad.parse::<VolumeName>(), Err(BadName(bad.to_owned())), "{bad:?}");
        }
        assert_ne!(VolumeName::random().unwrap(), VolumeName::random().unwrap());
    }
}
