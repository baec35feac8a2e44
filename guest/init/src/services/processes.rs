//! Tells of the guest's processes what proc(5) has.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use isolab_protocol::ProcessRecord;
use nix::unistd::{SysconfVar, getpid, sysconf};

use crate::Failure;

/// PID 1, and the parent of the kernel's own threads.
const INIT: u32 = 1;
const KTHREADD: u32 = 2;

/// Writes a line for each process of the workload's: not init, the kernel's threads, or this one.
pub fn list(mut output: impl Write) -> Result<(), Failure> {
    let failed = |error: io::Error| format!("list /proc: {error}");
    for record in records()? {
        let parent = if record.parent == INIT { 0 } else { record.parent };
        let line = serde_json::to_string(&ProcessRecord { parent, ..record });
        let line = line.map_err(|error| failed(error.into()))?;
        writeln!(output, "{line}").map_err(failed)?;
    }
    Ok(())
}

/// How many threads those processes have.
pub fn count_tasks() -> Result<u64, Failure> {
    let threads = |pid| fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    Ok(records()?.iter().map(|record| threads(record.pid) as u64).sum())
}

/// One that has ended meanwhile is left out.
fn records() -> Result<Vec<ProcessRecord>, Failure> {
    let failed = |error: io::Error| format!("list /proc: {error}");
    let uptime = fs::read_to_string("/proc/uptime").map_err(failed)?;
    let uptime = uptime.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    let clock = Clock {
        uptime: (uptime.unwrap_or(0.0f64) * 1000.0) as u64,
        ticks: sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100).max(1) as u64,
    };
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .map_err(failed)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let own = getpid().as_raw() as u32;
    let others = pids.into_iter().filter(|pid| ![INIT, KTHREADD, own].contains(pid));
    let records = others.filter_map(|pid| read(pid, &clock));
    Ok(records.filter(|record| record.parent != KTHREADD).collect())
}

struct Clock {
    /// Milliseconds since the start.
    uptime: u64,
    /// A second.
    ticks: u64,
}

fn read(pid: u32, clock: &Clock) -> Option<ProcessRecord> {
    let folder = format!("/proc/{pid}");
    let uid = fs::metadata(&folder).ok()?.uid();
    let stat = fs::read_to_string(format!("{folder}/stat")).ok()?;
    let arguments = fs::read(format!("{folder}/cmdline")).ok()?;
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096) as u64;
    let record = parse(pid, &stat, clock, page)?;
    Some(ProcessRecord { uid, command: command(&arguments, record.command), ..record })
}

/// proc_pid_stat(5). The name is in parentheses and may have any, so that the last one counts. Without the
/// owner; its name stands for the command.
fn parse(pid: u32, stat: &str, clock: &Clock, page: u64) -> Option<ProcessRecord> {
    let (front, rest) = stat.rsplit_once(')')?;
    let (_, name) = front.split_once('(')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Field 3, the state, is the first behind the name.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let milliseconds = |ticks: u64| ticks.saturating_mul(1000) / clock.ticks;
    Some(ProcessRecord {
        pid,
        parent: field(4)? as u32,
        uid: 0,
        state: fields.first()?.chars().next()?,
        cpu_time: milliseconds(field(14)?.saturating_add(field(15)?)),
        elapsed: clock.uptime.saturating_sub(milliseconds(field(22)?)),
        resident: field(24)?.saturating_mul(page),
        command: vec![format!("[{name}]")],
    })
}

fn command(arguments: &[u8], otherwise: Vec<String>) -> Vec<String> {
    let arguments = arguments.strip_suffix(b"\0").unwrap_or(arguments);
    if arguments.is_empty() {
        return otherwise;
    }
    arguments.split(|byte| *byte == 0).map(|a| String::from_utf8_lossy(a).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_proc_is_taken_apart_whatever_the_name_is() {
        let stat = "7 (a) b (c) S 3 7 7 0 -1 4194304 10 0 0 0 150 50 0 0 20 0 1 0 500 9 12 rest";
        let clock = Clock { uptime: 9000, ticks: 100 };
        let record = parse(7, stat, &clock, 4096).unwrap();
        assert_eq!((record.parent, record.state), (3, 'S'));
        assert_eq!((record.cpu_time, record.elapsed, record.resident), (2000, 4000, 12 * 4096));
        assert_eq!(record.command, ["[a) b (c]"]);
        assert_eq!(parse(7, "7 (a) S 3", &clock, 4096), None);
        assert_eq!(command(b"sh\0-c\0\0", vec![]), ["sh", "-c", ""]);
        assert_eq!(command(b"", record.command), ["[a) b (c]"]);
    }
}
