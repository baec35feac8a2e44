//! The options about health checks.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use isolab_instances::time::parse_duration;
use isolab_instances::{HealthCheck, parse_interval};

/// How to find out whether a workload is well.
#[derive(Debug, clap::Args)]
pub struct Health {
    /// A command in the instance that tells whether it is well, by its exit code; a line for sh, or a
    /// JSON array of words. none is none.
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// From the end of one check to the next.
    #[arg(long = "health-interval", value_name = "TIME", default_value = "30s", value_parser = parse_interval)]
    interval: Duration,
    /// How long a check may take.
    #[arg(long = "health-timeout", value_name = "TIME", default_value = "30s", value_parser = parse_interval)]
    timeout: Duration,
    /// How many failures in a row make it unhealthy.
    #[arg(long = "health-retries", value_name = "N", default_value_t = RETRIES)]
    retries: u32,
    /// How long after the start failures do not count.
    #[arg(long = "health-start-period", value_name = "TIME", default_value = "0s", value_parser = parse_duration)]
    start_period: Duration,
}

const EVERY: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;

impl Default for Health {
    fn default() -> Self {
        Self {
            health_cmd: None,
            interval: EVERY,
            timeout: EVERY,
            retries: RETRIES,
            start_period: Duration::ZERO,
        }
    }
}

impl Health {
    /// The check, if there is to be one.
    pub fn check(&self) -> Result<Option<HealthCheck>> {
        let command = match self.health_cmd.as_deref() {
            None | Some("none") => return Ok(None),
            Some("") => bail!("--health-cmd: the command is empty"),
            Some(words) if words.starts_with('[') => serde_json::from_slice(words.as_bytes())
                .context("--health-cmd: not a JSON array of strings")?,
            Some(line) => ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
        };
        Ok(Some(HealthCheck {
            interval: self.interval,
            timeout: self.timeout,
            retries: self.retries,
            start_period: self.start_period,
            ..HealthCheck::new(command)
        }))
    }
}
