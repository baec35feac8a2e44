//! `healthcheck`.

use std::time::Duration;

use isolab_instances::{HealthOptions, shell_line};

use super::fields::Fields;
use super::units::duration;
use crate::error::ComposeError;
use crate::file::node::{Node, Value};

/// What a file says about health checks; what it does not say is the image's.
pub(super) fn read(node: Node, what: &str) -> Result<HealthOptions, ComposeError> {
    let mut fields = Fields::of(node, format!("{what}: healthcheck"))?;
    let mut health = HealthOptions {
        disabled: fields.flag("disable")?.unwrap_or(false),
        interval: fields.read("interval", positive)?,
        timeout: fields.read("timeout", positive)?,
        retries: fields.parse("retries")?,
        start_period: fields.read("start_period", duration)?,
        start_interval: fields.read("start_interval", positive)?,
        command: None,
    };
    if let Some(test) = fields.take("test") {
        take_test(&mut health, test)?;
    }
    fields.finish(&[])?;
    Ok(health)
}

fn take_test(health: &mut HealthOptions, test: Node) -> Result<(), ComposeError> {
    let place = test.place.clone();
    if let Value::Scalar(line) = test.value {
        health.command = Some(shell_line(&line.text));
        return Ok(());
    }
    let words = test.into_items("healthcheck.test")?.into_iter();
    let words = words.map(|word| word.into_text("healthcheck.test"));
    let words: Vec<String> = words.collect::<Result<_, _>>()?;
    health
        .take_test(&words)
        .map_err(|why| ComposeError::invalid(&place, format!("healthcheck.test: {why}")))
}

fn positive(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    let least = Duration::from_millis(1);
    if time < least { Err("expected 1ms or more".to_owned()) } else { Ok(time) }
}
