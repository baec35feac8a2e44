//! `--share PATH,tag=TAG[,option]...`: what the operator wrote, as [`ShareOptions`].

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::backend::words::{apply_each, name_and_value, split_commas};

/// The longest tag, in bytes (virtio 1.2, 5.11.4).
pub const MAX_TAG_LENGTH: usize = 36;

/// What the guest may keep of a shared folder without asking again. The same names as virtiofsd's
/// (`none` is its `never`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CachePolicy {
    /// Nothing: each read, write and name goes to the host, for folders that others change too.
    /// Linux before 6.6 cannot map such files shared.
    None,
    /// Names and attributes for a second, content until the file is opened again or has changed.
    #[default]
    Auto,
    /// All of it, until the guest needs the memory: for folders that nobody else changes.
    Always,
}

impl CachePolicy {
    /// How long names and attributes hold.
    pub fn timeout(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Auto => Duration::from_secs(1),
            Self::Always => Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// A folder of the host that a guest sees, as the command line has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareOptions {
    /// The folder. That of a descriptor is `/proc/self/fd/N`, which need not outlive the opening.
    pub path: PathBuf,
    /// The name that the guest mounts it by: 1 to [`MAX_TAG_LENGTH`] bytes.
    pub tag: String,
    /// Nothing in it can be changed through the share.
    #[serde(default)]
    pub read_only: bool,
    /// See [`CachePolicy`].
    #[serde(default)]
    pub cache: CachePolicy,
}

/// A `--share` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShareOptionsError {
    /// Nothing before the first comma.
    #[error("a shared folder needs a path: PATH,tag=TAG[,option]...")]
    NoPath,
    /// The guest mounts it by nothing else.
    #[error("a shared folder needs tag=, the name that the guest mounts it by")]
    NoTag,
    /// Not an option we know.
    #[error(
        "share option '{0}' is unknown; there are tag=, readonly and cache= (a comma in a path is \
         written twice)"
    )]
    Unknown(String),
    /// An option's value is not among its choices.
    #[error("share option {option}={value}: expected {expected}")]
    Value {
        /// The part before the `=`.
        option: &'static str,
        /// The part behind the `=`, as it was given.
        value: String,
        /// What could have been.
        expected: &'static str,
    },
    /// The same thing said twice.
    #[error("share option {0} is given twice")]
    Twice(&'static str),
}

impl ShareOptions {
    /// A writable share with the usual cache.
    pub fn new(path: impl Into<PathBuf>, tag: impl Into<String>) -> Self {
        let cache = CachePolicy::default();
        Self { path: path.into(), tag: tag.into(), read_only: false, cache }
    }

    /// Whether a device can have this tag.
    pub fn tag_is_valid(&self) -> bool {
        (1..=MAX_TAG_LENGTH).contains(&self.tag.len()) && !self.tag.contains('\0')
    }

    fn apply(&mut self, word: &str) -> Result<&'static str, ShareOptionsError> {
        let (name, value) = name_and_value(word);
        let invalid = |option, expected| ShareOptionsError::Value {
            option,
            value: value.unwrap_or_default().to_owned(),
            expected,
        };
        match (name, value) {
            ("tag", Some(tag)) => {
                tag.clone_into(&mut self.tag);
                if !self.tag_is_valid() {
                    return Err(invalid("tag", "1 to 36 bytes"));
                }
                Ok("tag")
            }
            ("readonly", None | Some("on")) => {
                self.read_only = true;
                Ok("readonly")
            }
            ("readonly", Some("off")) => {
                self.read_only = false;
                Ok("readonly")
            }
            ("readonly", _) => Err(invalid("readonly", "on or off")),
            ("cache", Some(policy)) => {
                self.cache = match policy {
                    "none" => CachePolicy::None,
                    "auto" => CachePolicy::Auto,
                    "always" => CachePolicy::Always,
                    _ => return Err(invalid("cache", "none, auto or always")),
                };
                Ok("cache")
            }
            _ => Err(ShareOptionsError::Unknown(word.to_owned())),
        }
    }
}

impl FromStr for ShareOptions {
    type Err = ShareOptionsError;

    /// `PATH,tag=TAG[,readonly][,cache=none|auto|always]`. As in QEMU, `,,` is a comma.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = split_commas(text).into_iter();
        let path = words.next().unwrap_or_default();
        if path.is_empty() {
            return Err(ShareOptionsError::NoPath);
        }
        let mut options = Self::new(path, "");
        apply_each(words, |word| options.apply(word), ShareOptionsError::Twice)?;
        if options.tag.is_empty() {
            return Err(ShareOptionsError::NoTag);
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_meant() {
        let plain: ShareOptions = "/a,,b,tag=data".parse().unwrap();
        assert_eq!(plain, ShareOptions::new("/a,b", "data"));
        let full: ShareOptions = "/a,cache=always,readonly,tag=t".parse().unwrap();
        let expected = ShareOptions { read_only: true, cache: CachePolicy::Always, ..full.clone() };
        assert_eq!((full.tag.as_str(), &full), ("t", &expected));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (text, part) in [
            ("", "needs a path"),
            (",tag=a", "needs a path"),
            ("/a", "needs tag="),
            ("/a,tag=", "1 to 36 bytes"),
            ("/a,tag=0123456789012345678901234567890123456", "1 to 36 bytes"),
            ("/a,tag=a,tag=b", "tag is given twice"),
            ("/a,tag=a,readonly=yes", "expected on or off"),
            ("/a,tag=a,cache=never", "none, auto or always"),
            ("/a,tag=a,dax", "'dax' is unknown"),
        ] {
            let error = text.parse::<ShareOptions>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
