//! Lengths of time and command lines, as the specification has them.

use std::time::Duration;

/// `10us`, `500ms`, `1.5s`, `1m30s`, `1h5m30s20ms`.
///
/// # Errors
/// What is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{}`: expected a length of time such as 30s or 1m30s", text.escape_debug());
    let mut total = Duration::ZERO;
    let mut rest = text;
    if text.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() && rest != "0" {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let digits = rest.find(|c| !is_number(c)).ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = rest[digits..].find(is_number).map_or(rest.len(), |length| digits + length);
        let seconds = match &rest[digits..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &rest[unit..];
    }
    Ok(total)
}

/// A command line as a shell splits it, without what else a shell does.
///
/// # Errors
/// A quote has no end.
pub fn words(line: &str) -> Result<Vec<String>, String> {
    shlex::split(line).ok_or_else(|| format!("`{}`: a quote has no end", line.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_go_s() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("250ms", 250),
            ("1.5s", 1500),
            ("1m30s", 90_000),
            ("1h5m30s20ms", 3_930_020),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(duration("10us"), Ok(Duration::from_micros(10)));
        for bad in ["", "1", "s", "-1s", "1w", "1s ", "1..s", "999999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn command_lines_are_split_as_a_shell_does() {
        let split = words("sh -c 'echo \"$A b\"' x\\ y \"\"").unwrap();
        assert_eq!(split, ["sh", "-c", "echo \"$A b\"", "x y", ""]);
        assert!(words("echo 'x").is_err());
    }
}
