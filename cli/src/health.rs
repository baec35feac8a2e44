//! The options about health checks.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use isolab_instances::time::parse_duration;
use isolab_instances::{HealthOptions, parse_interval, shell_line};

/// How to find out whether a workload is well. What is not said is the image's, of its HEALTHCHECK.
#[derive(Debug, Default, clap::Args)]
pub struct Health {
    /// A command in the instance that tells whether it is well, by its exit code; a line for sh, or a
    /// JSON array of words. none is none. By default the image's.
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// From the end of one check to the next; by default the image's, or 30s.
    #[arg(long = "health-interval", value_name = "TIME", value_parser = parse_interval)]
    interval: Option<Duration>,
    /// How long a check may take; by default the image's, or 30s.
    #[arg(long = "health-timeout", value_name = "TIME", value_parser = parse_interval)]
    timeout: Option<Duration>,
    /// How many failures in a row make it unhealthy; by default the image's, or 3.
    #[arg(long = "health-retries", value_name = "N")]
    retries: Option<u32>,
    /// How long after the start failures do not count; by default the image's, or no time.
    #[arg(long = "health-start-period", value_name = "TIME", value_parser = parse_duration)]
    start_period: Option<Duration>,
    /// Do not look whether it is well, whatever the image says.
    #[arg(long, conflicts_with = "health_cmd")]
    no_healthcheck: bool,
}

impl Health {
    /// What is asked for.
    pub fn options(&self) -> Result<HealthOptions> {
        let command = match self.health_cmd.as_deref() {
            None | Some("none") => None,
            Some("") => bail!("--health-cmd: the command is empty"),
            Some(words) if words.starts_with('[') => serde_json::from_slice(words.as_bytes())
                .context("--health-cmd: not a JSON array of strings")?,
            Some(line) => Some(shell_line(line)),
        };
        Ok(HealthOptions {
            disabled: self.no_healthcheck || self.health_cmd.as_deref() == Some("none"),
            command,
            interval: self.interval,
            timeout: self.timeout,
            retries: self.retries,
            start_period: self.start_period,
            start_interval: None,
        })
    }
}
