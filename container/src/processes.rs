//! Processes of this host, as procfs tells of them.

use std::time::Duration;

use nix::unistd::Pid;
use procfs::process::{Process, Stat};
use procfs::{Current, FromRead, Uptime};

/// What can be told of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its id here.
    pub host_pid: i32,
    /// Its id in its own pid namespace.
    pub pid: i32,
    /// Its parent's id here.
    pub host_parent: i32,
    /// Its effective user id, in its own user namespace.
    pub uid: u32,
    /// proc(5): R, S, D, Z, T …
    pub state: char,
    /// CPU time of all its threads.
    pub cpu_time: Duration,
    /// Since its start.
    pub elapsed: Duration,
    /// Clock ticks from the host's boot to its start: with the id, they name it for ever.
    pub started_ticks: u64,
    /// Bytes of memory resident.
    pub resident: u64,
    /// Its name.
    pub name: String,
    /// Its arguments, which it can change; none for one that has died or is the kernel's.
    pub arguments: Vec<String>,
}

/// Looks at a process. None if it has gone meanwhile.
pub fn look(pid: Pid) -> Option<ProcessInfo> {
    let process = Process::new(pid.as_raw()).ok()?;
    let stat = stat(pid)?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let effective_uid = field(&status, "Uid").nth(1)?;
    let ticks =
        |ticks: u64| Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64);
    let uptime = Uptime::current().map(|uptime| uptime.uptime_duration()).unwrap_or_default();
    Some(ProcessInfo {
        host_pid: pid.as_raw(),
        pid: field(&status, "NSpid").last().map_or(pid.as_raw(), |id| id as i32),
        host_parent: stat.ppid,
        uid: inside(&process, effective_uid),
        state: stat.state,
        cpu_time: ticks(stat.utime + stat.stime),
        elapsed: uptime.saturating_sub(ticks(stat.starttime)),
        started_ticks: stat.starttime,
        resident: stat.rss * procfs::page_size(),
        name: stat.comm,
        arguments: process.cmdline().unwrap_or_default(),
    })
}

/// Clock ticks from the host's boot to a process's start ([`ProcessInfo::started_ticks`]) and no more. None if it has
/// gone.
pub fn started_ticks(pid: Pid) -> Option<u64> {
    Some(stat(pid)?.starttime)
}

/// The same of a process that lives. A zombie has ended, whoever has yet to hear of it (proc_pid_stat(5), field 3).
pub fn alive_since_ticks(pid: Pid) -> Option<u64> {
    stat(pid).filter(|stat| !['Z', 'X'].contains(&stat.state)).map(|stat| stat.starttime)
}

/// The numbers of one line of proc_pid_status(5). procfs reads all sixty, and would be 22 KB of each executable.
fn field<'a>(status: &'a str, name: &str) -> impl Iterator<Item = u32> + use<'a> {
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().split_whitespace().map_while(|word| word.parse().ok())
}

fn stat(pid: Pid) -> Option<Stat> {
    Stat::from_file(format!("/proc/{pid}/stat")).ok()
}

/// The processes of a pid namespace, which are those that its first process can see.
pub(crate) fn in_pid_namespace_of(first: Pid) -> Vec<Pid> {
    let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(wanted) = namespace(first.as_raw()) else { return Vec::new() };
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    let pids =
        all.map(|process| process.pid).filter(|pid| namespace(*pid).as_ref() == Some(&wanted));
    pids.map(Pid::from_raw).collect()
}

/// Bytes received and sent over all interfaces of a process's network namespace but loopback.
pub(crate) fn network_bytes(pid: Pid) -> Option<(u64, u64)> {
    let interfaces = Process::new(pid.as_raw()).ok()?.dev_status().ok()?;
    let others = interfaces.values().filter(|interface| interface.name != "lo");
    Some(
        others.fold((0, 0), |(received, sent), one| {
            (received + one.recv_bytes, sent + one.sent_bytes)
        }),
    )
}

/// The id in the process's user namespace of one that we see (user_namespaces(7)); 65534 where it has none.
fn inside(process: &Process, outside: u32) -> u32 {
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{}/uid_map", process.pid)) else {
        return outside;
    };
    let found = maps.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map_while(|word| word.parse::<u32>().ok());
        let (inside, first, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let offset = outside.checked_sub(first)?;
        (offset < count).then(|| inside.saturating_add(offset))
    });
    found.unwrap_or(65534)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_what_we_see() {
        let own = look(nix::unistd::getpid()).unwrap();
        assert_eq!(own.pid as u32, std::process::id());
        assert_eq!(own.uid, nix::unistd::geteuid().as_raw());
        assert!(own.arguments == std::env::args().collect::<Vec<_>>() && own.resident > 0);
        assert!(in_pid_namespace_of(nix::unistd::getpid()).contains(&nix::unistd::getpid()));
        assert_eq!(look(Pid::from_raw(i32::MAX)), None);
    }
}
