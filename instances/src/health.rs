//! What finds out whether a workload is well: as the operator says, else as the image does, else as Docker has it.

use std::time::Duration;

use isolab_images::ImageHealthcheck;
use serde::{Deserialize, Serialize};

use crate::time::parse_duration;

/// A command that tells whether the workload is well: by its exit code, 0 or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// From the end of one check to the next.
    pub interval: Duration,
    /// How long a check may take; then it has failed.
    pub timeout: Duration,
    /// How many failures in a row make the workload unhealthy.
    pub retries: u32,
    /// How long after the start failures do not count.
    pub start_period: Duration,
    /// In place of `interval` for that long, until the workload has been well once; none is `interval`.
    #[serde(default)]
    pub start_interval: Option<Duration>,
}

impl HealthCheck {
    /// Docker's and podman's defaults.
    pub fn new(command: Vec<String>) -> Self {
        let (interval, timeout) = (Duration::from_secs(30), Duration::from_secs(30));
        let start_period = Duration::ZERO;
        Self { command, interval, timeout, retries: 3, start_period, start_interval: None }
    }
}

/// What an operator says about health checks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthOptions {
    /// Whether there are none, whatever the image says.
    pub disabled: bool,
    /// The command.
    pub command: Option<Vec<String>>,
    /// From the end of one check to the next.
    pub interval: Option<Duration>,
    /// How long a check may take.
    pub timeout: Option<Duration>,
    /// How many failures in a row make it unhealthy.
    pub retries: Option<u32>,
    /// How long after the start failures do not count.
    pub start_period: Option<Duration>,
    /// In place of `interval` meanwhile, until the first success.
    pub start_interval: Option<Duration>,
}

impl HealthOptions {
    /// Takes Docker's words for the command: `NONE`, `CMD` with a command, `CMD-SHELL` with a line.
    ///
    /// # Errors
    /// What is expected.
    pub fn take_test(&mut self, words: &[String]) -> Result<(), &'static str> {
        self.disabled |= words == ["NONE"];
        self.command = command_of(words)?;
        Ok(())
    }

    /// The check that this and the image's come to; none where neither has a command. A command of an image that is
    /// none of Docker's words is none, as it is to Docker.
    pub fn check(&self, of_image: Option<&ImageHealthcheck>) -> Option<HealthCheck> {
        if self.disabled {
            return None;
        }
        let nothing = ImageHealthcheck::default();
        let of_image = of_image.unwrap_or(&nothing);
        let command = self.command.clone().or_else(|| {
            let words = of_image.test.as_deref().unwrap_or_default();
            command_of(words).ok().flatten()
        })?;
        let time = |nanos: Option<u64>| nanos.filter(|it| *it > 0).map(Duration::from_nanos);
        let usual = HealthCheck::new(command);
        Some(HealthCheck {
            interval: self.interval.or(time(of_image.interval)).unwrap_or(usual.interval),
            timeout: self.timeout.or(time(of_image.timeout)).unwrap_or(usual.timeout),
            retries: self
                .retries
                .or(of_image.retries.filter(|it| *it > 0))
                .unwrap_or(usual.retries),
            start_period: self
                .start_period
                .or(time(of_image.start_period))
                .unwrap_or(usual.start_period),
            start_interval: self.start_interval.or(time(of_image.start_interval)),
            ..usual
        })
    }
}

/// A line of a shell as a command.
pub fn shell_line(line: &str) -> Vec<String> {
    ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
}

/// The command that Docker's words mean; none of NONE, nor of no words, which are those of the image below.
fn command_of(words: &[String]) -> Result<Option<Vec<String>>, &'static str> {
    match words.split_first() {
        Some((first, [])) if first == "NONE" => Ok(None),
        Some((first, [line])) if first == "CMD-SHELL" => Ok(Some(shell_line(line))),
        Some((first, command)) if first == "CMD" && !command.is_empty() => {
            Ok(Some(command.to_vec()))
        }
        None => Ok(None),
        _ => Err("expected [NONE], [CMD, a command and its arguments] or [CMD-SHELL, a line]"),
    }
}

/// Reads an interval of a health check.
///
/// # Errors
/// What could have been written.
pub fn parse_interval(text: &str) -> Result<Duration, &'static str> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_millis(1) { Err("expected 1ms or more") } else { Ok(interval) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn what_the_operator_does_not_say_is_the_image_s() {
        let image = ImageHealthcheck {
            test: Some(words(&["CMD-SHELL", "true"])),
            interval: Some(5_000_000_000),
            timeout: Some(0),
            start_period: None,
            start_interval: Some(1_000_000_000),
            retries: Some(7),
        };
        let shell = HealthCheck::new(shell_line("true"));
        let (interval, start_interval) = (Duration::from_secs(5), Some(Duration::from_secs(1)));
        let of_image = HealthCheck { interval, start_interval, retries: 7, ..shell };
        let said = HealthOptions::default();
        assert_eq!(said.check(Some(&image)), Some(of_image.clone()));
        assert_eq!(said.check(None), None);
        let retries = HealthOptions { retries: Some(1), ..said.clone() };
        assert_eq!(
            retries.check(Some(&image)),
            Some(HealthCheck { retries: 1, ..of_image.clone() })
        );
        let command = HealthOptions { command: Some(words(&["a", "b"])), ..said.clone() };
        let theirs = HealthCheck { command: words(&["a", "b"]), ..of_image };
        assert_eq!(command.check(Some(&image)), Some(theirs));
        assert_eq!(command.check(None), Some(HealthCheck::new(words(&["a", "b"]))));
        let disabled = HealthOptions { disabled: true, ..command };
        assert_eq!(disabled.check(Some(&image)), None);
        for none in [words(&["NONE"]), words(&[]), words(&["RUN", "x"]), words(&["CMD"])] {
            let image = ImageHealthcheck { test: Some(none), ..image.clone() };
            assert_eq!(said.check(Some(&image)), None, "{image:?}");
        }
    }

    #[test]
    fn docker_s_words_are_a_command() {
        for (test, command, disabled) in [
            (words(&["NONE"]), None, true),
            (words(&["CMD", "curl", "-f"]), Some(words(&["curl", "-f"])), false),
            (words(&["CMD-SHELL", "a | b"]), Some(words(&["/bin/sh", "-c", "a | b"])), false),
            (words(&[]), None, false),
        ] {
            let mut said = HealthOptions::default();
            said.take_test(&test).unwrap();
            assert_eq!((said.command, said.disabled), (command, disabled), "{test:?}");
        }
        for bad in [words(&["CMD"]), words(&["CMD-SHELL", "a", "b"]), words(&["curl"])] {
            assert!(HealthOptions::default().take_test(&bad).is_err(), "{bad:?}");
        }
    }
}
