//! Instructions that change the configuration only.

use parse_dockerfile::{Command, Flag, HealthcheckArguments, JsonOrStringArray, UnescapedString};
use serde_json::{Value, json};

use super::{Fault, Outcome, StageBuilder};
use crate::build::words;

impl StageBuilder<'_, '_, '_> {
    /// `NAME=value...`, or the old `NAME value with spaces`.
    pub(super) fn pairs(&self, arguments: &str) -> Outcome<Vec<(String, String)>> {
        let words = words::split(arguments, self.escape);
        let Some(first) = words.first() else { return Err("NAME=value is missing".into()) };
        if !first.contains('=') {
            let rest = arguments.trim_start().strip_prefix(first.as_str()).unwrap_or_default();
            if rest.trim().is_empty() {
                return Err(format!("`{first}` has no value; write {first}=value").into());
            }
            return Ok(vec![(self.expand(first)?, self.expand(rest.trim())?)]);
        }
        let mut pairs = Vec::new();
        for word in &words {
            let (name, value) =
                word.split_once('=').ok_or_else(|| format!("`{word}` is no NAME=value"))?;
            let name = self.expand(name)?;
            if name.is_empty() {
                return Err(format!("`{word}` has no name").into());
            }
            pairs.push((name, self.expand(value)?));
        }
        Ok(pairs)
    }

    pub(super) fn expose(&mut self, ports: &[UnescapedString<'_>]) -> Outcome {
        for port in ports {
            for port in words::split(&self.expand(&port.value)?, self.escape) {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                let (first, last) = number.split_once('-').unwrap_or((number, number));
                let parse = |text: &str| text.parse::<u16>();
                let (Ok(first), Ok(last)) = (parse(first), parse(last)) else {
                    return Err(format!("`{port}` is no port").into());
                };
                if !["tcp", "udp", "sctp"].contains(&protocol) || first > last {
                    return Err(format!("`{port}` is no port").into());
                }
                for number in first..=last {
                    let name = format!("{number}/{protocol}");
                    self.stage.config.insert("ExposedPorts", &name, json!({}));
                }
            }
        }
        Ok(())
    }

    pub(super) fn volumes(&mut self, arguments: &JsonOrStringArray<'_, 1>) -> Outcome {
        let paths = match arguments {
            JsonOrStringArray::Json(paths) => &paths.value,
            JsonOrStringArray::String(paths) => paths,
        };
        for path in paths {
            let path = self.expand(&path.value)?;
            if path.is_empty() {
                return Err("a volume's path is empty".into());
            }
            self.stage.config.insert("Volumes", &path, json!({}));
        }
        Ok(())
    }

    pub(super) fn healthcheck(
        &mut self,
        options: &[Flag<'_>],
        arguments: &HealthcheckArguments<'_>,
    ) -> Outcome {
        let mut check = serde_json::Map::new();
        match arguments {
            HealthcheckArguments::Cmd { arguments: Command::Shell(text), .. } => {
                let text = words::join_lines(text.value, self.escape);
                check.insert("Test".to_owned(), json!(["CMD-SHELL", text]));
            }
            HealthcheckArguments::Cmd { arguments, .. } => {
                let test = [vec!["CMD".to_owned()], self.command(arguments)].concat();
                check.insert("Test".to_owned(), json!(test));
            }
            _ => drop(check.insert("Test".to_owned(), json!(["NONE"]))),
        }
        for option in options {
            let value = option.value.as_ref().map(|value| value.value.as_ref()).unwrap_or("");
            let (key, value) = match option.name.value.as_ref() {
                "interval" => ("Interval", json!(nanoseconds(value)?)),
                "timeout" => ("Timeout", json!(nanoseconds(value)?)),
                "start-period" => ("StartPeriod", json!(nanoseconds(value)?)),
                "start-interval" => ("StartInterval", json!(nanoseconds(value)?)),
                "retries" => {
                    let retries = value.parse::<u32>();
                    ("Retries", json!(retries.map_err(|_| format!("`{value}` is no number"))?))
                }
                other => return Err(format!("unknown option --{other}").into()),
            };
            check.insert(key.to_owned(), value);
        }
        self.stage.config.set("Healthcheck", Value::Object(check));
        Ok(())
    }
}

/// Durations as Go writes them: `30s`, `1m30s`, `500ms`.
fn nanoseconds(text: &str) -> Outcome<u64> {
    let wrong = || Fault::Why(format!("`{text}` is no duration such as 30s or 1m30s"));
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let factor = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(wrong()),
        };
        let number: u64 = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(factor).and_then(|n| total.checked_add(n)).ok_or_else(wrong)?;
        rest = behind;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}
