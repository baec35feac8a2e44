//! Instructions that change the configuration only.

use serde_json::{Value, json};

use super::{Fault, Outcome, StageBuilder};
use crate::dockerfile::{Instruction, arguments};
use crate::words;

impl StageBuilder<'_, '_> {
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

    pub(super) fn expose(&mut self, ports: &str) -> Outcome {
        for port in words::split(ports, self.escape) {
            for port in words::split(&self.expand(&port)?, self.escape) {
                let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
                let (first, last) = number.split_once('-').unwrap_or((number, number));
                let parse = |text: &str| text.parse::<u16>();
                let (Ok(first), Ok(last)) = (parse(first), parse(last)) else {
                    return Err(format!("`{port}` is no port").into());
                };
                let protocol = protocol.to_ascii_lowercase();
                if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) || first > last {
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

    pub(super) fn volumes(&mut self, text: &str) -> Outcome {
        let paths = arguments::json(text).unwrap_or_else(|| words::split(text, self.escape));
        for path in paths {
            let path = self.expand(&path)?;
            if path.is_empty() {
                return Err("a volume's path is empty".into());
            }
            self.stage.config.insert("Volumes", &path, json!({}));
        }
        Ok(())
    }

    pub(super) fn healthcheck(&mut self, it: &Instruction) -> Outcome {
        let mut check = serde_json::Map::new();
        let (kind, command) = words::first(&it.arguments, self.escape);
        let command = command.trim();
        let test = match (kind.to_ascii_uppercase().as_str(), arguments::json(command)) {
            ("NONE", _) if command.is_empty() => vec!["NONE".to_owned()],
            ("CMD", _) if command.is_empty() => return Err("CMD needs a command".into()),
            ("CMD", Some(words)) => [vec!["CMD".to_owned()], words].concat(),
            ("CMD", None) => vec!["CMD-SHELL".to_owned(), command.to_owned()],
            _ => return Err("HEALTHCHECK is followed by `CMD command` or `NONE`".into()),
        };
        check.insert("Test".to_owned(), json!(test));
        for option in &it.options {
            let value = self.expand(option.value.as_deref().unwrap_or_default())?;
            let value = value.as_str();
            let (key, value) = match option.name.as_str() {
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

/// Durations as Go's time.ParseDuration reads them: `30s`, `1.5s`, `1h30m`, `500ms`.
fn nanoseconds(text: &str) -> Outcome<u64> {
    let wrong = || Fault::Why(format!("`{text}` is no duration such as 30s or 1m30s"));
    let mut rest = text;
    let mut total: u64 = 0;
    if text == "0" {
        return Ok(0);
    }
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, behind) = rest.split_at(rest.find(|c| !is_number(c)).ok_or_else(wrong)?);
        let (unit, behind) = behind.split_at(behind.find(is_number).unwrap_or(behind.len()));
        let factor: u64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(wrong()),
        };
        let part = times(number, factor).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = behind;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// A decimal number, possibly with a fraction, times `factor`; what is less than one is dropped.
fn times(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // More digits than an hour has nanoseconds mean nothing.
    let digits = &fraction[..fraction.len().min(15)];
    let part: u128 = if digits.is_empty() { 0 } else { digits.parse().ok()? };
    let part = part * u128::from(factor) / 10u128.pow(digits.len() as u32);
    whole.checked_mul(factor)?.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_s() {
        for (text, expected) in [
            ("30s", 30_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("500ms", 500_000_000),
            ("1m0.25s", 60_250_000_000),
            ("2us", 2_000),
            ("0", 0),
            ("0s", 0),
            ("0.0000000001s", 0),
        ] {
            assert!(matches!(nanoseconds(text), Ok(found) if found == expected), "{text}");
        }
        for text in ["", "s", "1", "1x", ".s", "1.2.3s", "-1s", "1e3s", "9999999999999h"] {
            assert!(nanoseconds(text).is_err(), "{text}");
        }
    }
}
