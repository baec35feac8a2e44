//! Numbers of bytes as operators write them, on command lines and in files.

/// Reads `512M`, `4G`, `1.5gb`, `1048576`: powers of 1024, as podman and Docker have them.
///
/// # Errors
/// What is expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{}`: expected a size such as 512M or 1.5G", text.escape_debug());
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(wrong()),
    };
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    if digits.is_empty() || !digits.chars().all(is_number) {
        return Err(wrong());
    }
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(wrong);
    }
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let size = number * (1_u64 << shift) as f64;
    // Above it, a double has no units any more.
    if size < 2_f64.powi(53) { Ok(size as u64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        for (text, size) in [
            ("0", 0),
            ("4096", 4096),
            ("1b", 1),
            ("64k", 64 << 10),
            ("64KB", 64 << 10),
            ("512M", 512 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for bad in
            ["", "m", "-1", "1X", "10 M", "1.2.3m", ".", "1e3", "inf", "99999999t", "9999999.5t"]
        {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
