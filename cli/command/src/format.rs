//! What the commands' input and output have in common.

use clap::ValueEnum;
pub use isolab_isolation::parse_size;

/// The exit code of a failure of isolab itself, as runc's and podman's: distinct from those of
/// the workload as far as that is possible.
pub const EXIT_OWN_FAILURE: u8 = 125;

/// How facts are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Tells a number of bytes as Docker and podman do: in powers of 1000, with one decimal.
pub fn bytes(count: u64) -> String {
    let mut size = count as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].iter();
    let mut unit = units.next();
    // What would be rounded to 1000.0 is 1.0 of the next unit.
    while size >= 999.95 {
        size /= 1000.0;
        unit = units.next();
    }
    match unit {
        Some(&"B") | None => format!("{count} B"),
        Some(unit) => format!("{size:.1} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_bytes_have_their_unit() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (40_960, "41.0 kB"),
            (999_949, "999.9 kB"),
            (999_951, "1.0 MB"),
            (4_200_000, "4.2 MB"),
            (64 << 30, "68.7 GB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }
}
