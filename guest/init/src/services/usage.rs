//! Tells what the guest uses of its memory, and how much runs in it.

use std::fs;
use std::io::Write;

use isolab_protocol::GuestUsage;

use super::processes;
use crate::Failure;

/// Writes a [`GuestUsage`] as a line of JSON.
pub fn tell(mut output: impl Write) -> Result<(), Failure> {
    let failed = |what: &str| format!("read /proc/meminfo: {what}");
    let text = fs::read_to_string("/proc/meminfo").map_err(|e| failed(&e.to_string()))?;
    let memory = used(&text).ok_or_else(|| failed("it has no MemTotal or MemAvailable"))?;
    let usage = GuestUsage { memory, tasks: processes::count_tasks()? };
    let line = serde_json::to_string(&usage).map_err(|e| format!("tell of the usage: {e}"))?;
    writeln!(output, "{line}").map_err(|e| format!("tell of the usage: {e}"))
}

/// Bytes that are not free for new programs, by proc_meminfo(5).
fn used(text: &str) -> Option<u64> {
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(field("MemTotal")?.saturating_sub(field("MemAvailable")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_used_is_what_is_not_available() {
        let text = "MemTotal:        1000 kB\nMemFree:          100 kB\nMemAvailable:    400 kB\n";
        assert_eq!(used(text), Some(600 * 1024));
        assert_eq!(used("MemTotal: 5 kB\n"), None);
    }
}
