//! What was asked for when an instance was made: `config.json` in its folder, which never changes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use isolab_images::Image;
use isolab_isolation::{Level, Patience, Request, kernel_of_environment, oci};
use serde::{Deserialize, Serialize};

use crate::document::{self, Durability};
use crate::error::InstanceError;
use crate::health::HealthCheck;
use crate::networking::Networking;
use crate::signal::parse_signal;
use crate::time::Timestamp;

const NAME: &str = "config.json";
const VERSION: u32 = 1;

/// Everything that starting the instance takes, but for its name, its id and its level, which its
/// folder's record has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    version: u32,
    /// The image as it was named.
    pub image: String,
    /// Its digest.
    pub image_id: String,
    /// When the instance was made.
    pub created: Timestamp,
    /// What the operator said about the workload.
    pub request: Request,
    /// What that and the image make of it.
    pub process: ProcessSummary,
    /// The guest kernel of the VM levels, if not the level's own.
    pub kernel: Option<String>,
    /// How long the guest of a VM level may be silent before it is given up.
    #[serde(default)]
    pub patience: Patience,
    /// How it is connected.
    #[serde(default)]
    pub networking: Networking,
    /// Whether the workload has an input.
    pub interactive: bool,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether the instance is removed at its end.
    pub auto_remove: bool,
    /// Whether its workload is started again.
    pub restart: RestartPolicy,
    /// How to find out whether it is well.
    pub health: Option<HealthCheck>,
    /// What the operator says of it.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the workload to end.
    pub stop_signal: i32,
    /// How long it may take then before it is killed, in seconds.
    pub stop_timeout: u64,
    /// How its output is kept.
    pub log: LogOptions,
}

/// The workload's first process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessSummary {
    /// The command and its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Its working directory.
    pub cwd: String,
    /// User and group, by their numbers.
    pub user: String,
}

impl Config {
    /// A configuration of the version that is written today; the rest is the caller's to set.
    pub fn new(image: String, image_id: String, request: Request) -> Self {
        Self {
            version: VERSION,
            image,
            image_id,
            created: Timestamp::now(),
            request,
            process: ProcessSummary::default(),
            kernel: None,
            patience: Patience::default(),
            networking: Networking::default(),
            interactive: false,
            terminal: false,
            auto_remove: false,
            restart: RestartPolicy::No,
            health: None,
            labels: BTreeMap::new(),
            stop_signal: libc::SIGTERM,
            stop_timeout: 10,
            log: LogOptions::default(),
        }
    }

    /// What `request` and the image make of each other at a level: volumes that the image declares, its first process,
    /// its stop signal and its labels; the guest kernel is the environment's. And the specification of its first run.
    ///
    /// # Errors
    /// The level cannot do what is asked for, the image does not have what it is asked for, or is damaged.
    pub fn of_image(
        name: &str,
        image: &Image,
        mut request: Request,
        level: Level,
    ) -> Result<(Self, oci::Spec), InstanceError> {
        request.security.check(level)?;
        request.filesystem.add_image_volumes(image)?;
        let spec = request.to_spec(level, image)?;
        let mut config = Self::new(name.to_owned(), image.digest().to_owned(), request);
        config.kernel = kernel_of_environment().filter(|_| level.is_virtual_machine());
        if let Some(process) = spec.process() {
            config.process = ProcessSummary {
                args: process.args().clone().unwrap_or_default(),
                env: process.env().clone().unwrap_or_default(),
                cwd: process.cwd().display().to_string(),
                user: format!("{}:{}", process.user().uid(), process.user().gid()),
            };
        }
        let of_image = image.config().config().as_ref();
        let signal = of_image.and_then(|it| it.stop_signal().clone());
        config.stop_signal = signal.and_then(|it| parse_signal(&it).ok()).unwrap_or(libc::SIGTERM);
        config.labels = of_image.and_then(|it| it.labels().clone()).into_iter().flatten().collect();
        Ok((config, spec))
    }

    pub(crate) fn write(&self, folder: &Path, durability: Durability) -> Result<(), InstanceError> {
        document::write(folder, NAME, self, durability)
    }

    /// None of an instance that is being made.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, InstanceError> {
        document::read(folder, NAME, VERSION)
    }
}

/// Whether a workload that ended is started again, as Docker and podman have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When its exit code is not 0; so many times, if a number is given.
    OnFailure(Option<u32>),
    /// Always, until it is stopped.
    Always,
}

/// What is no restart policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected no, on-failure, on-failure:N or always")]
pub struct NoRestartPolicy;

impl FromStr for RestartPolicy {
    type Err = NoRestartPolicy;

    fn from_str(text: &str) -> Result<Self, NoRestartPolicy> {
        match text.split_once(':') {
            None if text == "no" => Ok(Self::No),
            None if text == "always" || text == "unless-stopped" => Ok(Self::Always),
            None if text == "on-failure" => Ok(Self::OnFailure(None)),
            Some(("on-failure", times)) => {
                times.parse().map(|times| Self::OnFailure(Some(times))).map_err(|_| NoRestartPolicy)
            }
            _ => Err(NoRestartPolicy),
        }
    }
}

impl RestartPolicy {
    /// The policy's name, without its number.
    pub fn name(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::OnFailure(_) => "on-failure",
            Self::Always => "always",
        }
    }

    /// How often at most, 0 for no limit.
    pub fn retries(self) -> u32 {
        match self {
            Self::OnFailure(times) => times.unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether a workload that ended with this code is started again, after so many times.
    pub fn applies(self, code: i32, restarts: u32) -> bool {
        match self {
            Self::No => false,
            Self::Always => true,
            Self::OnFailure(times) => code != 0 && times.is_none_or(|times| restarts < times),
        }
    }
}

/// How a workload's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogOptions {
    /// How large a file becomes, in bytes, before the next one is begun.
    pub max_size: u64,
    /// How many files there are, the one that is written included.
    pub max_file: u32,
}

impl Default for LogOptions {
    /// 4 files of 16 MiB.
    fn default() -> Self {
        Self { max_size: 16 << 20, max_file: 4 }
    }
}

impl fmt::Display for ProcessSummary {
    /// The command as a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.args.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies_are_docker_s() {
        use RestartPolicy::{Always, No, OnFailure};
        for (text, policy) in [
            ("no", No),
            ("always", Always),
            ("on-failure", OnFailure(None)),
            ("on-failure:3", OnFailure(Some(3))),
        ] {
            assert_eq!(text.parse(), Ok(policy), "{text}");
        }
        for bad in ["", "never", "on-failure:", "on-failure:-1", "on-failure:x", "always:3"] {
            assert_eq!(bad.parse::<RestartPolicy>(), Err(NoRestartPolicy), "{bad}");
        }
        assert!(Always.applies(0, 1000) && !No.applies(1, 0));
        assert!(!OnFailure(None).applies(0, 0) && OnFailure(None).applies(1, 1000));
        assert!(OnFailure(Some(2)).applies(137, 1) && !OnFailure(Some(2)).applies(137, 2));
    }

    #[test]
    fn a_configuration_survives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Config::read(dir.path()).unwrap().is_none());
        let mut config = Config::new("web".into(), "sha256:1".into(), Request::default());
        config.health = Some(HealthCheck::new(vec!["true".into()]));
        config.restart = RestartPolicy::OnFailure(Some(3));
        config.request.limits.cpus = Some(1.5);
        config.write(dir.path(), Durability::Synced).unwrap();
        let read = Config::read(dir.path()).unwrap().unwrap();
        assert_eq!((read.health, read.restart), (config.health, config.restart));
        assert_eq!(read.request.limits, config.request.limits);
    }
}
