//! What work costs the host: its kernel's counters of the processes that do it (perf_event_open(2)).
//!
//! A meter looks at the threads of a family of processes, and at what they start while it runs: counters are inherited, and
//! what ends adds its own to them. So an instance's monitor, its vCPUs and devices are in it, and at
//! the levels without a machine the workload itself. The kernel's own threads (vhost's, before Linux 6.4; a disk's) are not.

use std::io;

use nix::errno::Errno;
use perf_event::events::{Software, Tracepoint};
use perf_event::{Builder, Counter};
use procfs::process::Process;

use crate::family;

/// Time that processors spent, guests' time included.
pub const CPU: &str = "cpu";
/// A thread gave its processor away, or lost it.
pub const SWITCHES: &str = "context_switches";
/// A page was mapped on its first touch, or read from a disk for it.
pub const FAULTS: &str = "page_faults";
/// Calls of the host's kernel.
pub const SYSTEM_CALLS: &str = "system_calls";

/// What a meter counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// [`CPU`], [`SWITCHES`] and [`FAULTS`], which the kernel counts anyway.
    Time,
    /// [`SYSTEM_CALLS`]. Each call takes the kernel's slower way while they are counted, so that nothing else is
    /// measured meanwhile.
    SystemCalls,
}

/// Whose work is counted.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    /// These processes and their descendants; of this one only the descendants.
    pub roots: Vec<u32>,
    /// But not these and theirs: the other side of a conversation.
    pub without: Vec<u32>,
    /// Also what this thread does and starts from now on.
    pub own: bool,
}

/// Counters that run.
pub struct Meter(Vec<(&'static str, f64, Counter)>);

/// Why nothing is counted.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot count {what} of processes (root, a kernel with perf events, and for system calls debugfs or tracefs)"
)]
pub struct MeterError {
    /// The quantity.
    what: &'static str,
    source: io::Error,
}

impl Meter {
    /// Begins.
    ///
    /// # Errors
    /// The kernel does not count, or not for us.
    pub fn start(counted: Counted, whose: &Whose) -> Result<Self, MeterError> {
        let mut threads = threads(whose).map_err(MeterError::of(CPU))?;
        if whose.own {
            // The calling thread.
            threads.push(0);
        }
        let mut counters = Vec::new();
        for thread in threads {
            let mut add = |what, scale, counter: io::Result<Counter>| match counter {
                Ok(counter) => {
                    counters.push((what, scale, counter));
                    Ok(())
                }
                // It has ended, and with it its work.
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(()),
                Err(error) => Err(MeterError::of(what)(error)),
            };
            match counted {
                Counted::Time => {
                    // Nanoseconds.
                    add(CPU, 1e-3, counter(Builder::new(Software::TASK_CLOCK), thread))?;
                    add(SWITCHES, 1.0, counter(Builder::new(Software::CONTEXT_SWITCHES), thread))?;
                    add(FAULTS, 1.0, counter(Builder::new(Software::PAGE_FAULTS), thread))?;
                }
                Counted::SystemCalls => {
                    let calls = Tracepoint::with_name("raw_syscalls/sys_enter");
                    let calls = calls.map_err(MeterError::of(SYSTEM_CALLS))?;
                    add(SYSTEM_CALLS, 1.0, counter(Builder::new(calls), thread))?;
                }
            }
        }
        Ok(Self(counters))
    }

    /// Ends, and tells each quantity: microseconds of [`CPU`], counts of the others.
    ///
    /// # Errors
    /// None that the manual page knows.
    pub fn stop(self) -> Result<Vec<(&'static str, f64)>, MeterError> {
        let mut sums: Vec<(&'static str, f64)> = Vec::new();
        for (what, scale, mut counter) in self.0 {
            let value = counter.read().map_err(MeterError::of(what))? as f64 * scale;
            match sums.iter_mut().find(|(known, _)| *known == what) {
                Some((_, sum)) => *sum += value,
                None => sums.push((what, value)),
            }
        }
        Ok(sums)
    }
}

impl MeterError {
    fn of(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { what, source }
    }
}

fn counter(mut builder: Builder<'_>, thread: i32) -> io::Result<Counter> {
    // Switches and calls happen in the kernel.
    builder.observe_pid(thread).any_cpu().inherit(true).include_kernel().include_hv().enabled(true);
    builder.build()
}

/// The threads that there are now.
fn threads(whose: &Whose) -> io::Result<Vec<i32>> {
    let roots: Vec<i32> = whose.roots.iter().map(|root| root.cast_signed()).collect();
    let mut family = family::of(&roots, &whose.without).map_err(io::Error::other)?;
    family.remove(&std::process::id().cast_signed());
    let tasks = family.into_iter().filter_map(|pid| Process::new(pid).ok()?.tasks().ok());
    Ok(tasks.flatten().flatten().map(|task| task.tid).collect())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn as_root_what_is_started_is_counted_to_its_end() {
        let work = |script: &str| {
            let meter = Meter::start(Counted::Time, &Whose { own: true, ..Whose::default() });
            let meter = meter.unwrap();
            assert!(Command::new("sh").args(["-c", script]).status().unwrap().success());
            meter.stop().unwrap()
        };
        let of =
            |costs: &[(&str, f64)], what| costs.iter().find(|(name, _)| *name == what).unwrap().1;
        let little = work("true");
        let much = work("i=0; while [ $i -lt 200 ]; do (true); i=$((i + 1)); done");
        // A fork, its end and the wait for it, 200 times.
        assert!(of(&much, FAULTS) > of(&little, FAULTS) + 1000.0, "{little:?} {much:?}");
        assert!(of(&much, SWITCHES) > of(&little, SWITCHES) + 100.0, "{little:?} {much:?}");
        assert!(of(&much, CPU) > of(&little, CPU), "{little:?} {much:?}");
    }
}
