//! What the host's kernel counts for an instance. Of containers and processes these are their own processes; of a
//! machine it is the monitor, whose threads are its vCPUs and devices.

use std::fs;

use isolab_isolation::Level;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use crate::site::{Member, Site};

/// Where KVM tells what machines do, if debugfs is mounted: a folder `PID-FD` for each.
const KVM: &str = "/sys/kernel/debug/kvm";

/// Counters, or what came to them. None: this host or level has no such counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Counters {
    /// Calls of read(2), write(2) and their like (proc(5), io: syscr and syscw).
    pub reads_and_writes: Option<u64>,
    /// Context switches because a thread waited.
    pub waits: Option<u64>,
    /// Context switches because another thread's turn came.
    pub preemptions: Option<u64>,
    /// Nanoseconds of CPU time.
    pub cpu: Option<u64>,
    /// Exits of vCPUs: to KVM where it tells them, otherwise those that came to the monitor.
    pub exits: Option<u64>,
    /// Interrupts that KVM gave the guest.
    pub interrupts: Option<u64>,
    /// Bytes that it received over networks.
    pub network_received: Option<u64>,
    /// Bytes that it sent.
    pub network_sent: Option<u64>,
}

impl Counters {
    /// Those of an instance that runs.
    pub fn of(site: &Site, member: &Member) -> Self {
        let stats = site.catalogue.stats(&member.instance).unwrap_or_default();
        let mut counters = Self {
            cpu: stats.cpu_time.map(|time| time.as_nanos() as u64),
            network_received: stats.network_received,
            network_sent: stats.network_sent,
            ..Self::default()
        };
        let entry = &member.instance.entry;
        let pids = match entry.level {
            Level::Paravirt | Level::Fullvirt => {
                let kvm = kvm_folder(entry.monitor);
                let kvm = |name: &str| {
                    fs::read_to_string(format!("{}/{name}", kvm.as_ref()?))
                        .ok()?
                        .trim()
                        .parse()
                        .ok()
                };
                counters.exits = kvm("exits").or(stats.exits);
                counters.interrupts = kvm("irq_injections");
                vec![entry.monitor]
            }
            Level::Process | Level::Container => {
                let processes = site.catalogue.processes(&member.instance).unwrap_or_default();
                processes.into_iter().filter_map(|process| process.host_pid).collect()
            }
        };
        pids.into_iter().for_each(|pid| counters.add_process(pid));
        counters
    }

    /// A process that ends meanwhile takes its counters along.
    fn add_process(&mut self, pid: u32) {
        let Ok(process) = Process::new(pid as i32) else { return };
        if let Ok(io) = process.io() {
            *self.reads_and_writes.get_or_insert(0) += io.syscr + io.syscw;
        }
        let Ok(tasks) = process.tasks() else { return };
        for status in tasks.flatten().filter_map(|task| task.status().ok()) {
            *self.waits.get_or_insert(0) += status.voluntary_ctxt_switches.unwrap_or(0);
            *self.preemptions.get_or_insert(0) += status.nonvoluntary_ctxt_switches.unwrap_or(0);
        }
    }

    fn since(&self, before: &Self) -> Self {
        let part = |now: Option<u64>, then: Option<u64>| {
            now.zip(then).map(|(now, then)| now.saturating_sub(then))
        };
        Self {
            reads_and_writes: part(self.reads_and_writes, before.reads_and_writes),
            waits: part(self.waits, before.waits),
            preemptions: part(self.preemptions, before.preemptions),
            cpu: part(self.cpu, before.cpu),
            exits: part(self.exits, before.exits),
            interrupts: part(self.interrupts, before.interrupts),
            network_received: part(self.network_received, before.network_received),
            network_sent: part(self.network_sent, before.network_sent),
        }
    }
}

/// What came to the counters of each instance, by name.
pub fn spent(
    before: &[(String, Counters)],
    after: &[(String, Counters)],
) -> Vec<(String, Counters)> {
    let of = |name: &str| before.iter().find(|(known, _)| known == name);
    let spent = |(name, after): &(String, Counters)| {
        of(name).map(|(_, before)| (name.clone(), after.since(before)))
    };
    after.iter().filter_map(spent).collect()
}

fn kvm_folder(pid: u32) -> Option<String> {
    let begin = format!("{pid}-");
    let names = fs::read_dir(KVM).ok()?.flatten().map(|entry| entry.file_name());
    let mut names = names.filter_map(|name| name.into_string().ok());
    names.find(|name| name.starts_with(&begin)).map(|name| format!("{KVM}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_counted_is_not_nothing() {
        let named = |waits| vec![("db".to_owned(), Counters { waits, ..Counters::default() })];
        let spent = |before, after| spent(&named(before), &named(after))[0].1.waits;
        assert_eq!(spent(Some(3), Some(10)), Some(7));
        assert_eq!(spent(None, Some(10)), None);
        // A process has ended.
        assert_eq!(spent(Some(10), Some(3)), Some(0));
    }

    #[test]
    fn a_process_that_works_is_seen() {
        let count = || {
            let mut counters = Counters::default();
            counters.add_process(std::process::id());
            counters
        };
        let before = count();
        fs::read("/proc/self/maps").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        let spent = count().since(&before);
        assert!(spent.reads_and_writes.unwrap() > 0 && spent.waits.unwrap() > 0, "{spent:?}");
    }
}
