//! Signals by the words that people use for them.

/// A signal by its name, with or without SIG, or by its number.
///
/// # Errors
/// There is no such signal.
pub fn parse_signal(text: &str) -> Result<i32, String> {
    let number = match text.parse::<i32>() {
        Ok(number) => Some(number).filter(|number| (1..=libc::SIGRTMAX()).contains(number)),
        Err(_) => {
            let upper = text.to_ascii_uppercase();
            let name = upper.strip_prefix("SIG").unwrap_or(&upper);
            match name.strip_prefix("RTMIN") {
                Some(rest) => {
                    let offset = if rest.is_empty() {
                        Some(0)
                    } else {
                        rest.strip_prefix('+').and_then(|n| n.parse().ok())
                    };
                    offset
                        .map(|offset: i32| libc::SIGRTMIN() + offset)
                        .filter(|n| *n <= libc::SIGRTMAX())
                }
                None => format!("SIG{name}")
                    .parse::<nix::sys::signal::Signal>()
                    .ok()
                    .map(|it| it as i32),
            }
        }
    };
    number.ok_or_else(|| format!("no signal `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("9", 9),
            ("RTMIN+3", libc::SIGRTMIN() + 3),
        ] {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        for bad in ["", "SIG", "NOSUCH", "0", "-1", "65", "RTMIN+99", "RTMIN3"] {
            assert!(parse_signal(bad).is_err(), "{bad}");
        }
    }
}
