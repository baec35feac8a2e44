//! `healthcheck`.

use std::time::Duration;

use isolab_instances::HealthCheck;

use super::fields::Fields;
use super::units::duration;
use crate::error::ComposeError;
use crate::file::node::{Node, Value};

/// What a file says about health checks; what it does not say is the image's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
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

impl Health {
    pub(super) fn read(node: Node, what: &str) -> Result<Self, ComposeError> {
        let mut fields = Fields::of(node, format!("{what}: healthcheck"))?;
        let mut health = Self {
            disabled: fields.flag("disable")?.unwrap_or(false),
            interval: fields.read("interval", positive)?,
            timeout: fields.read("timeout", positive)?,
            retries: fields.parse("retries")?,
            start_period: fields.read("start_period", duration)?,
            start_interval: fields.read("start_interval", positive)?,
            command: None,
        };
        if let Some(test) = fields.take("test") {
            health.take_test(test)?;
        }
        fields.finish(&[])?;
        Ok(health)
    }

    fn take_test(&mut self, test: Node) -> Result<(), ComposeError> {
        let place = test.place.clone();
        if let Value::Scalar(line) = test.value {
            self.command = Some(shell(&line.text));
            return Ok(());
        }
        let words = test.into_items("healthcheck.test")?.into_iter();
        let words = words.map(|word| word.into_text("healthcheck.test"));
        let words: Vec<String> = words.collect::<Result<_, _>>()?;
        self.disabled |= words == ["NONE"];
        self.command = match of_words(&words) {
            Ok(command) => command,
            Err(why) => {
                return Err(ComposeError::invalid(&place, format!("healthcheck.test: {why}")));
            }
        };
        Ok(())
    }

    /// The check that this and the image's, as its configuration has it (`Healthcheck`), come to.
    pub fn check(&self, of_image: &serde_json::Value) -> Option<HealthCheck> {
        if self.disabled {
            return None;
        }
        let of_image = &of_image["Healthcheck"];
        let command = self.command.clone().or_else(|| {
            let words = of_image["Test"].as_array()?.iter();
            let words = words.map(|it| it.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            of_words(&words?).ok().flatten()
        })?;
        let nanos =
            |name: &str| of_image[name].as_u64().filter(|it| *it > 0).map(Duration::from_nanos);
        let usual = HealthCheck::new(command);
        let retries = of_image["Retries"].as_u64().and_then(|it| u32::try_from(it).ok());
        Some(HealthCheck {
            interval: self.interval.or_else(|| nanos("Interval")).unwrap_or(usual.interval),
            timeout: self.timeout.or_else(|| nanos("Timeout")).unwrap_or(usual.timeout),
            retries: self.retries.or(retries.filter(|it| *it > 0)).unwrap_or(usual.retries),
            start_period: self
                .start_period
                .or_else(|| nanos("StartPeriod"))
                .unwrap_or(usual.start_period),
            start_interval: self.start_interval.or_else(|| nanos("StartInterval")),
            ..usual
        })
    }
}

fn positive(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let least = Duration::from_millis(1);
    if time < least { Err("expected 1ms or more".to_owned()) } else { Ok(time) }
}

fn shell(line: &str) -> Vec<String> {
    ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
}

/// The command that Docker's words mean; none of NONE.
fn of_words(words: &[String]) -> Result<Option<Vec<String>>, &'static str> {
    match words.split_first() {
        Some((first, [])) if first == "NONE" => Ok(None),
        Some((first, [line])) if first == "CMD-SHELL" => Ok(Some(shell(line))),
        Some((first, command)) if first == "CMD" && !command.is_empty() => {
            Ok(Some(command.to_vec()))
        }
        // Of an image: that of its base.
        None => Ok(None),
        _ => Err("expected [NONE], [CMD, a command and its arguments] or [CMD-SHELL, a line]"),
    }
}
