//! What a container has used so far, from whichever of its hierarchies tells.

use std::path::Path;

use super::files::{read, read_keyed, read_number};
use super::members::Memberships;

/// What a container has used so far. None where the controller is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of memory in use now, page cache included.
    pub memory_current_bytes: Option<u64>,
    /// The most there ever was.
    pub memory_peak_bytes: Option<u64>,
    /// The most there may be; None where there is no limit, too.
    pub memory_limit_bytes: Option<u64>,
    /// CPU time used, in microseconds.
    pub cpu_usage_microseconds: Option<u64>,
    /// Processes killed because of the memory limit.
    pub oom_kills: Option<u64>,
    /// Processes and threads now.
    pub pids_current: Option<u64>,
    /// Bytes read from block devices.
    pub block_read_bytes: Option<u64>,
    /// Bytes written to block devices. Whether writes through the page cache count, and when, the file system decides.
    pub block_written_bytes: Option<u64>,
}

/// Version 1 says that there is no limit by one of nearly 2^63.
const NO_LIMIT: u64 = 1 << 62;

impl Memberships {
    /// What they say.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = self.unified().map(version_2).unwrap_or_default();
        if let Some(dir) = self.version_1("memory") {
            stats.memory_current_bytes = read_number(dir, "memory.usage_in_bytes");
            stats.memory_peak_bytes = read_number(dir, "memory.max_usage_in_bytes");
            let limit = read_number(dir, "memory.limit_in_bytes");
            stats.memory_limit_bytes = limit.filter(|limit| *limit < NO_LIMIT);
            stats.oom_kills = read_keyed(dir, "memory.oom_control", "oom_kill");
        }
        if let Some(dir) = self.version_1("cpuacct") {
            let nanoseconds = read_number(dir, "cpuacct.usage");
            stats.cpu_usage_microseconds = nanoseconds.map(|nanoseconds| nanoseconds / 1000);
        }
        if let Some(dir) = self.version_1("pids") {
            stats.pids_current = read_number(dir, "pids.current");
        }
        if let Some(text) = self
            .version_1("blkio")
            .and_then(|dir| read(dir, "blkio.throttle.io_service_bytes_recursive"))
        {
            stats.block_read_bytes = Some(sum_of_lines(&text, "Read"));
            stats.block_written_bytes = Some(sum_of_lines(&text, "Write"));
        }
        stats
    }
}

fn version_2(dir: &Path) -> Stats {
    let io = read(dir, "io.stat");
    Stats {
        memory_current_bytes: read_number(dir, "memory.current"),
        // Linux 5.19 and newer.
        memory_peak_bytes: read_number(dir, "memory.peak"),
        // "max" is no number.
        memory_limit_bytes: read_number(dir, "memory.max"),
        cpu_usage_microseconds: read_keyed(dir, "cpu.stat", "usage_usec"),
        oom_kills: read_keyed(dir, "memory.events", "oom_kill"),
        pids_current: read_number(dir, "pids.current"),
        block_read_bytes: io.as_deref().map(|text| sum_of_words(text, "rbytes=")),
        block_written_bytes: io.as_deref().map(|text| sum_of_words(text, "wbytes=")),
    }
}

/// `8:0 Read 4096`, a line for each device and operation, and one `Total` of all.
fn sum_of_lines(text: &str, operation: &str) -> u64 {
    let number = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        (words.next() == Some(operation)).then(|| words.next()?.parse::<u64>().ok())?
    };
    text.lines().filter_map(number).sum()
}

/// `8:0 rbytes=4096 wbytes=0 …`, a line for each device.
fn sum_of_words(text: &str, prefix: &str) -> u64 {
    text.split_whitespace().filter_map(|word| word.strip_prefix(prefix)?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_and_output_are_summed_over_devices() {
        let v1 = "8:0 Read 4096\n8:0 Write 10\n8:0 Sync 1\n8:16 Read 1\nTotal 4107\n";
        assert_eq!((sum_of_lines(v1, "Read"), sum_of_lines(v1, "Write")), (4097, 10));
        let v2 = "254:0 rbytes=5 wbytes=6 rios=7 wios=8 dbytes=0\n254:16 rbytes=1 wbytes=2\n";
        assert_eq!((sum_of_words(v2, "rbytes="), sum_of_words(v2, "wbytes=")), (6, 8));
        assert_eq!(sum_of_words("", "rbytes="), 0);
    }
}
