//! What a container has used in every detail that its controllers tell, for engines and monitors; `stats` is the short
//! form. Units are version 1's: nanoseconds, bytes.

use std::collections::BTreeMap;
use std::path::Path;

use super::files::{read, read_keyed, read_number};
use super::members::Memberships;

/// The clock that user and system time are told in on version 1 (proc(5): USER_HZ), in nanoseconds.
const TICK_NANOSECONDS: u64 = 1_000_000_000 / 100;

/// All figures. Zero where the controller is not there, or does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time.
    pub cpu: CpuUsage,
    /// Memory, swap, and on version 1 what the kernel uses for it.
    pub memory: MemoryUsage,
    /// Processes and threads: now.
    pub pids_current: u64,
    /// The most there may be; 0 for any number.
    pub pids_limit: u64,
    /// Bytes to and from block devices.
    pub block_bytes: Vec<BlockUsage>,
    /// Requests to block devices.
    pub block_requests: Vec<BlockUsage>,
    /// By page size, as in `2MB`.
    pub huge_pages: BTreeMap<String, Counter>,
}

/// CPU time in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// All.
    pub total: u64,
    /// Of it in user mode.
    pub user: u64,
    /// Of it in the kernel.
    pub kernel: u64,
    /// Of it on each CPU; version 2 does not tell.
    pub by_cpu: Vec<u64>,
    /// Periods in which there was something to run under a quota.
    pub periods: u64,
    /// Of them, those in which the quota was used up.
    pub throttled_periods: u64,
    /// For how long it was, over all CPUs.
    pub throttled: u64,
}

/// Memory in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// All.
    pub all: Counter,
    /// Memory and swap together.
    pub swap: Counter,
    /// The kernel's; version 1 alone.
    pub kernel: Counter,
    /// Of network buffers; version 1 alone.
    pub kernel_tcp: Counter,
    /// `memory.stat`, as the kernel words it.
    pub details: BTreeMap<String, u64>,
}

/// Something that is counted and limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    /// Now.
    pub usage: u64,
    /// The most there ever was.
    pub peak: u64,
    /// The most there may be; `u64::MAX` for any.
    pub limit: u64,
    /// How often the limit was hit.
    pub failures: u64,
}

/// Of one block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockUsage {
    /// Its number.
    pub major: u64,
    /// Its number.
    pub minor: u64,
    /// `Read`, `Write` and on version 1 others.
    pub operation: String,
    /// Bytes or requests.
    pub value: u64,
}

impl Memberships {
    /// What they say.
    pub fn usage(&self) -> Usage {
        let mut usage = self.unified().map(version_2).unwrap_or_default();
        if let Some(dir) = self.version_1("cpuacct") {
            let [user, kernel] = ["user", "system"].map(|key| {
                read_keyed(dir, "cpuacct.stat", key).unwrap_or_default() * TICK_NANOSECONDS
            });
            let by_cpu = read(dir, "cpuacct.usage_percpu").unwrap_or_default();
            let by_cpu = by_cpu.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let total = number(dir, "cpuacct.usage");
            usage.cpu = CpuUsage { total, user, kernel, by_cpu, ..CpuUsage::default() };
        }
        if let Some(dir) = self.version_1("cpu") {
            let key = |key: &str| read_keyed(dir, "cpu.stat", key).unwrap_or_default();
            usage.cpu.periods = key("nr_periods");
            usage.cpu.throttled_periods = key("nr_throttled");
            usage.cpu.throttled = key("throttled_time");
        }
        if let Some(dir) = self.version_1("memory") {
            usage.memory = MemoryUsage {
                all: counter_1(dir, "memory"),
                swap: counter_1(dir, "memory.memsw"),
                kernel: counter_1(dir, "memory.kmem"),
                kernel_tcp: counter_1(dir, "memory.kmem.tcp"),
                details: details(dir),
            };
        }
        if let Some(dir) = self.version_1("pids") {
            (usage.pids_current, usage.pids_limit) = pids(dir);
        }
        if let Some(dir) = self.version_1("blkio") {
            let of = |file: &str| block_1(&read(dir, file).unwrap_or_default());
            usage.block_bytes = of("blkio.throttle.io_service_bytes_recursive");
            usage.block_requests = of("blkio.throttle.io_serviced_recursive");
        }
        if let Some(dir) = self.version_1("hugetlb") {
            let one = |size: &str| counter_1(dir, &format!("hugetlb.{size}"));
            usage.huge_pages = by_page_size(dir, "limit_in_bytes", one);
        }
        usage
    }
}

fn version_2(dir: &Path) -> Usage {
    let cpu = |key: &str| read_keyed(dir, "cpu.stat", key).unwrap_or_default();
    let details = details(dir);
    let all = Counter {
        usage: number(dir, "memory.current"),
        // Linux 5.19 and newer.
        peak: number(dir, "memory.peak"),
        limit: limit(dir, "memory.max"),
        failures: read_keyed(dir, "memory.events", "max").unwrap_or_default(),
    };
    // Together with memory, as version 1 tells it.
    let swap = Counter {
        usage: all.usage.saturating_add(number(dir, "memory.swap.current")),
        peak: 0,
        limit: all.limit.saturating_add(limit(dir, "memory.swap.max")),
        failures: read_keyed(dir, "memory.swap.events", "max").unwrap_or_default(),
    };
    let io = read(dir, "io.stat").unwrap_or_default();
    let (pids_current, pids_limit) = pids(dir);
    let huge_pages = by_page_size(dir, "max", |size| Counter {
        usage: number(dir, &format!("hugetlb.{size}.current")),
        peak: 0,
        limit: limit(dir, &format!("hugetlb.{size}.max")),
        failures: read_keyed(dir, &format!("hugetlb.{size}.events"), "max").unwrap_or_default(),
    });
    Usage {
        cpu: CpuUsage {
            total: cpu("usage_usec") * 1000,
            user: cpu("user_usec") * 1000,
            kernel: cpu("system_usec") * 1000,
            by_cpu: Vec::new(),
            periods: cpu("nr_periods"),
            throttled_periods: cpu("nr_throttled"),
            throttled: cpu("throttled_usec") * 1000,
        },
        memory: MemoryUsage { all, swap, details, ..MemoryUsage::default() },
        pids_current,
        pids_limit,
        block_bytes: block_2(&io, ["rbytes", "wbytes"]),
        block_requests: block_2(&io, ["rios", "wios"]),
        huge_pages,
    }
}

fn number(dir: &Path, file: &str) -> u64 {
    read_number(dir, file).unwrap_or_default()
}

/// Version 2 says `max` where there is no limit.
fn limit(dir: &Path, file: &str) -> u64 {
    match read(dir, file) {
        Some(text) => text.trim().parse().unwrap_or(u64::MAX),
        None => 0,
    }
}

fn pids(dir: &Path) -> (u64, u64) {
    (number(dir, "pids.current"), read_number(dir, "pids.max").unwrap_or(0))
}

fn counter_1(dir: &Path, prefix: &str) -> Counter {
    let of = |suffix: &str| number(dir, &format!("{prefix}.{suffix}"));
    Counter {
        usage: of("usage_in_bytes"),
        peak: of("max_usage_in_bytes"),
        limit: of("limit_in_bytes"),
        failures: of("failcnt"),
    }
}

fn details(dir: &Path) -> BTreeMap<String, u64> {
    let text = read(dir, "memory.stat").unwrap_or_default();
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// The page sizes that have a file `hugetlb.SIZE.SUFFIX`.
fn by_page_size(
    dir: &Path,
    suffix: &str,
    counter: impl Fn(&str) -> Counter,
) -> BTreeMap<String, Counter> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let size = |name: String| {
        let mut parts = name.strip_prefix("hugetlb.")?.splitn(2, '.');
        let size = parts.next()?.to_owned();
        (parts.next() == Some(suffix)).then(|| (size.clone(), counter(&size)))
    };
    names.filter_map(size).collect()
}

/// `8:0 Read 4096`, a line for each device and operation, and one `Total 4096` of all.
fn block_1(text: &str) -> Vec<BlockUsage> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (major, minor) = device(words.next()?)?;
        let operation = words.next()?.to_owned();
        Some(BlockUsage { major, minor, operation, value: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(line).collect()
}

/// `8:0 rbytes=4096 wbytes=0 …`, a line for each device. `keys`: those of reading and writing.
fn block_2(text: &str, keys: [&str; 2]) -> Vec<BlockUsage> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let Some(operation) = keys.iter().position(|known| *known == key) else { continue };
            let operation = ["Read", "Write"][operation].to_owned();
            if let Ok(value) = value.parse() {
                found.push(BlockUsage { major, minor, operation, value });
            }
        }
    }
    found
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::Membership;
    use super::*;

    fn of(controllers: &[&str], files: &[(&str, &str)]) -> Usage {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
        Memberships(vec![Membership { controllers, directory: dir.path().into() }]).usage()
    }

    #[test]
    fn version_2_is_told_in_version_1_s_units() {
        let usage = of(
            &[],
            &[
                ("cpu.stat", "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_throttled 2\n"),
                ("memory.current", "100\n"),
                ("memory.max", "max\n"),
                ("memory.swap.current", "5\n"),
                ("memory.stat", "anon 60\nfile 40\n"),
                ("pids.current", "3\n"),
                ("pids.max", "max\n"),
                ("io.stat", "8:0 rbytes=4096 wbytes=1 rios=2 wios=1 dbytes=0\n"),
                ("hugetlb.2MB.max", "4096\n"),
                ("hugetlb.2MB.current", "0\n"),
            ],
        );
        assert_eq!((usage.cpu.total, usage.cpu.throttled_periods), (30_000, 2));
        assert_eq!((usage.memory.all.usage, usage.memory.all.limit), (100, u64::MAX));
        assert_eq!((usage.memory.swap.usage, usage.memory.details["file"]), (105, 40));
        assert_eq!((usage.pids_current, usage.pids_limit), (3, 0));
        assert_eq!(usage.huge_pages["2MB"].limit, 4096);
        let bytes: Vec<_> =
            usage.block_bytes.iter().map(|one| (one.operation.as_str(), one.value)).collect();
        assert_eq!(bytes, [("Read", 4096), ("Write", 1)]);
        assert_eq!(usage.block_requests.len(), 2);
    }

    #[test]
    fn version_1_is_told_as_it_is() {
        let usage = of(
            &["memory", "cpu", "cpuacct", "blkio"],
            &[
                ("cpuacct.usage", "99\n"),
                ("cpuacct.usage_percpu", "90 9 \n"),
                ("cpuacct.stat", "user 3\nsystem 1\n"),
                ("cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 7\n"),
                ("memory.usage_in_bytes", "100\n"),
                ("memory.failcnt", "6\n"),
                ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 4\nTotal 4\n"),
            ],
        );
        let cpu = usage.cpu;
        assert_eq!((cpu.total, cpu.user, cpu.by_cpu), (99, 30_000_000, vec![90, 9]));
        assert_eq!((cpu.periods, cpu.throttled_periods, cpu.throttled), (4, 1, 7));
        assert_eq!((usage.memory.all.usage, usage.memory.all.failures), (100, 6));
        assert_eq!(usage.block_bytes.len(), 1);
    }
}
