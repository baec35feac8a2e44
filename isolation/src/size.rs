//! Numbers of bytes as operators write them, on command lines and in files.

use parse_size::Config;

/// Reads `512M`, `4G`, `1.5gb`, `1048576`: powers of 1024, as podman and Docker have them.
///
/// # Errors
/// What is expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let size = Config::new().with_binary().parse_size(text);
    size.map_err(|_| format!("`{}`: expected a size such as 512M or 1.5G", text.escape_debug()))
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
        for bad in ["", "m", "-1", "1X", "1.2.3m", ".", "inf", "99999999t", "1m2"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
