//! What a machine has used, seen from the host: its monitor is this process. What only the guest knows has names that
//! say so.

use std::fs;
use std::time::Duration;

use isolab_guest::GuestUsage;
use isolab_vmm::handle::MachineHandle;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{SysconfVar, sysconf};

use crate::controller::Stats;

/// CPU time and memory are this process's, guest RAM included: whoever runs several machines in one process
/// gets the sum. Network bytes are those of the host's ends, `links`. `usage` is what the guest says.
pub(super) fn collect(
    machine: &MachineHandle,
    links: &[String],
    usage: Option<GuestUsage>,
) -> Stats {
    let disks = machine.disk_traffic();
    let exits = machine.stats();
    let cpu_time = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok().map(Duration::from);
    Stats {
        cpu_time,
        memory: resident(),
        memory_limit: Some(machine.info().memory),
        guest_memory: usage.map(|usage| usage.memory),
        guest_pids: usage.map(|usage| usage.tasks),
        block_read: Some(disks.read),
        block_written: Some(disks.written),
        // What the host's end receives is what the guest has sent.
        network_received: sum(links, "tx_bytes"),
        network_sent: sum(links, "rx_bytes"),
        exits: Some(exits.exits),
        exits_by_device: Some(exits.exits_by_device()),
        ..Stats::default()
    }
}

/// proc_pid_statm(5): the second field, in pages.
fn resident() -> Option<u64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = u64::try_from(sysconf(SysconfVar::PAGE_SIZE).ok()??).ok()?;
    pages.checked_mul(page)
}

/// None without a link, or where one is gone.
fn sum(links: &[String], name: &str) -> Option<u64> {
    let mut counters = links.iter().map(|link| counter(link, name)).peekable();
    counters.peek()?;
    counters.sum()
}

/// Documentation/ABI/testing/sysfs-class-net-statistics.
fn counter(interface: &str, name: &str) -> Option<u64> {
    let value = fs::read_to_string(format!("/sys/class/net/{interface}/statistics/{name}"));
    value.ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_its_loopback_have_figures() {
        assert!(resident().unwrap() > 100_000);
        assert_eq!(counter("lo", "rx_bytes"), counter("lo", "tx_bytes"));
        assert_eq!(sum(&[], "rx_bytes"), None);
        assert_eq!(sum(&["lo".to_owned(), "no-such-interface".to_owned()], "rx_bytes"), None);
    }
}
