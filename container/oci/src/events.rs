//! `events`: what a container uses, and when it runs out of memory, as JSON lines of runc's form (its
//! `types/events.go`), which monitors read.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use isolab_container::{BlockUsage, Counter, OomWatch, Usage};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::control::expect;
use crate::folder::{Root, Status};
use crate::options::Events;

/// Prints events until the container ends or the reader goes.
pub fn events(root: &Root, options: &Events) -> Result<()> {
    let (folder, state) = root.open(&options.id)?;
    let allowed = [Status::Created, Status::Running, Status::Paused];
    expect(&folder, &state, "tell what is used by", &allowed)?;
    let handle = state.handle().context("its process has just ended")?;
    // Others need it meanwhile.
    drop(folder);
    let cgroups = handle.cgroups();
    if cgroups.directories().is_empty() {
        bail!("container {} has no cgroup that would tell what it uses", state.id);
    }
    let stats = || event("stats", &state.id, describe(&cgroups.usage()));
    if options.stats {
        print(&stats());
        return Ok(());
    }
    let mut watch = cgroups.watch_oom()?;
    let mut next = Instant::now() + options.interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        // Rounded up, so that the time has come afterwards.
        let timeout = PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX);
        let mut watched = vec![PollFd::new(handle.pidfd(), PollFlags::POLLIN)];
        if let Some((fd, events)) = watch.as_ref().map(OomWatch::poll) {
            watched.push(PollFd::new(fd, events));
        }
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for events"),
        }
        let oom = watch.as_mut().map_or(0, OomWatch::kills);
        if oom > 0 && !print(&event("oom", &state.id, Value::Null)) {
            return Ok(());
        }
        if handle.has_ended() {
            return Ok(());
        }
        if Instant::now() >= next {
            if !print(&stats()) {
                return Ok(());
            }
            next += options.interval;
        }
    }
}

/// False: nobody reads any more.
fn print(event: &Value) -> bool {
    writeln!(std::io::stdout(), "{event}").is_ok()
}

fn event(kind: &str, id: &str, data: Value) -> Value {
    json!({ "type": kind, "id": id, "data": data })
}

fn describe(usage: &Usage) -> Value {
    let Usage { cpu, memory, .. } = usage;
    let cache = memory.details.get("total_cache").or_else(|| memory.details.get("file"));
    let huge_pages: BTreeMap<&String, Value> = usage
        .huge_pages
        .iter()
        .map(|(size, pages)| {
            (size, json!({ "usage": pages.usage, "max": pages.peak, "failcnt": pages.failures }))
        })
        .collect();
    json!({
        "cpu": {
            "usage": {
                "total": cpu.total,
                "percpu": cpu.by_cpu,
                "kernel": cpu.kernel,
                "user": cpu.user,
            },
            "throttling": {
                "periods": cpu.periods,
                "throttledPeriods": cpu.throttled_periods,
                "throttledTime": cpu.throttled,
            },
        },
        "memory": {
            "cache": cache,
            "usage": counter(&memory.all),
            "swap": counter(&memory.swap),
            "kernel": counter(&memory.kernel),
            "kernelTCP": counter(&memory.kernel_tcp),
            "raw": memory.details,
        },
        "pids": { "current": usage.pids_current, "limit": usage.pids_limit },
        "blkio": {
            "ioServiceBytesRecursive": blocks(&usage.block_bytes),
            "ioServicedRecursive": blocks(&usage.block_requests),
        },
        "hugetlb": huge_pages,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

fn counter(of: &Counter) -> Value {
    json!({ "limit": of.limit, "usage": of.usage, "max": of.peak, "failcnt": of.failures })
}

fn blocks(of: &[BlockUsage]) -> Vec<Value> {
    let one = |block: &BlockUsage| {
        let BlockUsage { major, minor, operation, value } = block;
        json!({ "major": major, "minor": minor, "op": operation, "value": value })
    };
    of.iter().map(one).collect()
}
