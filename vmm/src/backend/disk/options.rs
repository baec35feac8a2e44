//! `--disk PATH[,option]...`: what the operator wrote, as [`DiskOptions`].

use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{CacheMode, EngineKind};
use crate::backend::poll_limit::PollLimit;
use crate::backend::words::{apply_each, name_and_value, split_commas};
use crate::rate_limit::RateLimit;

/// The longest `id`: what GET_ID returns (virtio 1.2, 5.2.6.2) and what IDENTIFY has room for.
pub const MAX_ID_LENGTH: usize = 20;

/// A disk as the command line has it: `PATH[,option]...`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskOptions {
    /// A raw image file or a block device.
    pub path: PathBuf,
    /// The guest cannot write.
    #[serde(default)]
    pub read_only: bool,
    /// The content is not looked at: without this, an image that is plainly qcow2 or the like is
    /// refused.
    #[serde(default)]
    pub raw: bool,
    /// See [`CacheMode`].
    #[serde(default)]
    pub cache: CacheMode,
    /// See [`EngineKind`].
    #[serde(default)]
    pub engine: EngineKind,
    /// The serial number shown to the guest, at most 20 printable ASCII characters; by default
    /// the start of the file's name.
    #[serde(default)]
    pub id: Option<String>,
    /// How fast the guest may go.
    #[serde(default)]
    pub rate: RateLimit,
    /// How long a queue's thread looks for requests and their ends.
    #[serde(default)]
    pub poll: PollLimit,
}

/// A `--disk` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskOptionsError {
    /// Nothing before the first comma.
    #[error("a disk needs a path: PATH[,option]...")]
    NoPath,
    /// Not an option we know.
    #[error(
        "disk option '{0}' is unknown; there are readonly, format=, cache=, engine=, id=, poll=, \
         bps= and iops= (a comma in a path is written twice)"
    )]
    Unknown(String),
    /// An option's value is not among its choices.
    #[error("disk option {option}={value}: expected {expected}")]
    Value {
        /// The part before the `=`.
        option: &'static str,
        /// The part behind the `=`, as it was given.
        value: String,
        /// What could have been.
        expected: &'static str,
    },
    /// The same thing said twice.
    #[error("disk option {0} is given twice")]
    Twice(&'static str),
}

impl DiskOptions {
    /// A writable disk with the defaults for everything else.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            read_only: false,
            raw: false,
            cache: CacheMode::default(),
            engine: EngineKind::default(),
            id: None,
            rate: RateLimit::default(),
            poll: PollLimit::default(),
        }
    }

    /// The serial number: `id`, or else what of the file's name fits.
    pub fn serial(&self) -> String {
        if let Some(id) = &self.id {
            return id.chars().take(MAX_ID_LENGTH).collect();
        }
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        name.chars()
            .map(|c| if c.is_ascii_graphic() { c } else { '_' })
            .take(MAX_ID_LENGTH)
            .collect()
    }
}

impl FromStr for DiskOptions {
    type Err = DiskOptionsError;

    /// `PATH[,readonly][,format=raw][,cache=writeback|writethrough|none][,engine=sync|io_uring]`
    /// `[,id=S][,poll=MICROSECONDS][,bps=N][,iops=N]`. As in QEMU, `,,` is a comma.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = split_commas(text).into_iter();
        let path = words.next().unwrap_or_default();
        if path.is_empty() {
            return Err(DiskOptionsError::NoPath);
        }
        let mut options = Self::new(path);
        apply_each(words, |word| options.apply(word), DiskOptionsError::Twice)?;
        Ok(options)
    }
}

impl DiskOptions {
    fn apply(&mut self, word: &str) -> Result<&'static str, DiskOptionsError> {
        let (name, value) = name_and_value(word);
        let invalid = |option, expected| DiskOptionsError::Value {
            option,
            value: value.unwrap_or_default().to_owned(),
            expected,
        };
        match (name, value) {
            ("readonly", None | Some("on")) => {
                self.read_only = true;
                Ok("readonly")
            }
            ("readonly", Some("off")) => {
                self.read_only = false;
                Ok("readonly")
            }
            ("readonly", _) => Err(invalid("readonly", "on or off")),
            ("format", Some("raw")) => {
                self.raw = true;
                Ok("format")
            }
            ("format", Some(_)) => {
                Err(invalid("format", "raw; `qemu-img convert -O raw` makes that of others"))
            }
            ("cache", Some(mode)) => {
                self.cache = match mode {
                    "writeback" => CacheMode::Writeback,
                    "writethrough" => CacheMode::Writethrough,
                    "none" => CacheMode::None,
                    _ => return Err(invalid("cache", "writeback, writethrough or none")),
                };
                Ok("cache")
            }
            ("engine", Some(engine)) => {
                self.engine = match engine {
                    "sync" => EngineKind::Sync,
                    "io_uring" => EngineKind::IoUring,
                    _ => return Err(invalid("engine", "sync or io_uring")),
                };
                Ok("engine")
            }
            ("id", Some(id)) => {
                let fits = (1..=MAX_ID_LENGTH).contains(&id.len());
                if !fits || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(invalid("id", "1 to 20 printable ASCII characters"));
                }
                self.id = Some(id.to_owned());
                Ok("id")
            }
            ("poll", Some(limit)) => {
                self.poll = limit.parse().map_err(|_| invalid("poll", PollLimit::EXPECTED))?;
                Ok("poll")
            }
            ("bps", Some(rate)) => {
                let rate = rate.parse().map_err(|_| invalid("bps", "bytes a second, above 0"))?;
                self.rate.bytes_per_second = Some(rate);
                Ok("bps")
            }
            ("iops", Some(rate)) => {
                let rate =
                    rate.parse().map_err(|_| invalid("iops", "requests a second, above 0"))?;
                self.rate.operations_per_second = Some(rate);
                Ok("iops")
            }
            _ => Err(DiskOptionsError::Unknown(word.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_alone_takes_the_defaults() {
        let options: DiskOptions = "/srv/root.img".parse().unwrap();
        assert_eq!(options, DiskOptions::new("/srv/root.img"));
        assert_eq!(options.serial(), "root.img");
    }

    #[test]
    fn every_option_is_understood() {
        let text = "a,,b.img,readonly,format=raw,cache=none,engine=sync,id=root-1,poll=0,bps=1048576,iops=100";
        let options: DiskOptions = text.parse().unwrap();
        assert_eq!(options.path, PathBuf::from("a,b.img"));
        assert!(options.read_only && options.raw);
        assert_eq!(options.cache, CacheMode::None);
        assert_eq!(options.engine, EngineKind::Sync);
        assert_eq!(options.serial(), "root-1");
        assert_eq!(options.rate.bytes_per_second.unwrap().get(), 1_048_576);
        assert_eq!(options.rate.operations_per_second.unwrap().get(), 100);
        assert_eq!(options.poll, PollLimit::from_micros(0));
    }

    #[test]
    fn mistakes_name_the_option_and_its_choices() {
        let cases = [
            ("", "a disk needs a path: PATH[,option]..."),
            ("a,cache=fast", "disk option cache=fast: expected writeback, writethrough or none"),
            ("a,engine=aio", "disk option engine=aio: expected sync or io_uring"),
            ("a,readonly=maybe", "disk option readonly=maybe: expected on or off"),
            (
                "a,format=qcow2",
                "disk option format=qcow2: expected raw; `qemu-img convert -O raw` makes that of others",
            ),
            ("a,poll=1s", "disk option poll=1s: expected microseconds, 0 (never) to 10000"),
            ("a,iops=0", "disk option iops=0: expected requests a second, above 0"),
            ("a,id=", "disk option id=: expected 1 to 20 printable ASCII characters"),
            ("a,readonly,readonly", "disk option readonly is given twice"),
        ];
        for (text, message) in cases {
            assert_eq!(text.parse::<DiskOptions>().unwrap_err().to_string(), message);
        }
        for text in ["a,ro", "a,", "a,cache", "a,b=c"] {
            let error = text.parse::<DiskOptions>().unwrap_err();
            assert!(matches!(error, DiskOptionsError::Unknown(_)), "{text}");
        }
    }

    #[test]
    fn serials_are_short_and_printable() {
        let options = DiskOptions::new("/d/a very long name of a disk.img");
        assert_eq!(options.serial(), "a_very_long_name_of_");
        assert_eq!(DiskOptions::new("/").serial(), "");
    }
}
