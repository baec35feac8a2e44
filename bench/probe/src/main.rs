//! Measures what a workload meets inside an instance, at whatever level it runs.
//!
//! ```text
//! isolab-probe cpu|memory [PERCENT]
//! isolab-probe serve ADDRESS:PORT
//! isolab-probe request ADDRESS:PORT BYTES NUMBER|SECONDSs
//! isolab-probe connect ADDRESS:PORT NUMBER
//! ```
//!
//! Each probe does a fixed number of operations, of which PERCENT (100 by default) are done, and writes one line: its
//! name and the nanoseconds that one operation took, `syscall 123.4`. Where the clock is too coarse for so many, it does
//! more of them. A probe that fails ends it: no figure is better than a wrong one.
//!
//! `serve` answers; `request` and `connect` write the number of exchanges with it and the nanoseconds that each took.

mod clock;
mod compute;
mod exchange;
mod kernel;
mod memory;
mod net;
mod paging;
mod processes;
mod timer;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use isolab_link as _;

/// What is measured, how often by default, and how.
struct Probe {
    name: &'static str,
    operations: u32,
    /// Does so many operations, and tells the nanoseconds that each took.
    run: fn(u32) -> io::Result<f64>,
}

const fn probe(name: &'static str, operations: u32, run: fn(u32) -> io::Result<f64>) -> Probe {
    Probe { name, operations, run }
}

/// The processor and the kernel. The first is the control: no kernel takes part in it, so that it costs the same at
/// each level, or something else than the levels is being compared.
const CPU: [Probe; 13] = [
    probe("compute", 4_000_000, compute::mix),
    probe("clock", 100_000, clock::read),
    probe("syscall", 100_000, kernel::system_call),
    probe("signal", 20_000, kernel::signal),
    probe("pipe", 20_000, exchange::pipe),
    probe("context_switch", 10_000, exchange::context_switch),
    probe("futex", 10_000, exchange::futex),
    probe("mmap", 10_000, paging::map),
    probe("page_fault", 8_000, paging::fault),
    probe("thread", 1_000, processes::thread),
    probe("fork", 200, processes::fork),
    probe("exec", 200, processes::exec),
    probe("timer_late", 200, timer::late),
];

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        // What `exec` runs.
        [processes::NOTHING] => return ExitCode::SUCCESS,
        ["cpu"] => measure(&CPU, 100),
        ["memory"] => measure(&memory::PROBES, 100),
        [what @ ("cpu" | "memory"), percent] => match percent.parse() {
            Ok(percent @ 1..=10_000) if what == "cpu" => measure(&CPU, percent),
            Ok(percent @ 1..=10_000) => measure(&memory::PROBES, percent),
            _ => return usage(),
        },
        ["serve", address] => net::serve(address),
        ["request", address, size, amount] => match (size.parse(), net::Amount::parse(amount)) {
            (Ok(size), Some(amount)) => tell(net::request(address, size, amount)),
            _ => return usage(),
        },
        ["connect", address, count] => match positive(count) {
            Some(count) => tell(net::connections(address, count)),
            None => return usage(),
        },
        _ => return usage(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isolab-probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: isolab-probe cpu|memory [PERCENT, 1 to 10000] | serve ADDRESS:PORT | \
         request ADDRESS:PORT BYTES NUMBER|SECONDSs | connect ADDRESS:PORT NUMBER"
    );
    ExitCode::from(2)
}

fn positive(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| *number > 0)
}

fn tell(exchanges: io::Result<net::Exchanges>) -> io::Result<()> {
    let net::Exchanges { count, each } = exchanges?;
    writeln!(io::stdout(), "{count} {each:.1}")
}

/// Whoever started this has work of its own then, on the same processor if there is one only.
const SETTLING: Duration = Duration::from_millis(200);
/// A time of so many steps of the clock is off by 5 % at most.
const STEPS: f64 = 20.0;

fn measure(probes: &[Probe], percent: u32) -> io::Result<()> {
    thread::sleep(SETTLING);
    let shortest = STEPS * clock::step();
    for probe in probes {
        let failed = |error| io::Error::other(format!("{}: {error}", probe.name));
        let operations = operations(probe.operations, percent);
        // Once before it counts: pages are in place and branches known.
        (probe.run)((operations / 10).max(1)).map_err(failed)?;
        let nanoseconds = long_enough(operations, shortest, probe.run).map_err(failed)?;
        writeln!(io::stdout(), "{} {nanoseconds:.3}", probe.name)?;
    }
    Ok(())
}

/// What `run` tells of at least `operations` operations that take `shortest` nanoseconds or longer.
fn long_enough(
    operations: u32,
    shortest: f64,
    run: impl Fn(u32) -> io::Result<f64>,
) -> io::Result<f64> {
    let mut operations = operations;
    loop {
        let nanoseconds = run(operations)?;
        if nanoseconds * f64::from(operations) >= shortest {
            return Ok(nanoseconds);
        }
        operations = operations.checked_mul(2).ok_or_else(|| {
            io::Error::other("no number of operations is long enough for the clock")
        })?;
    }
}

/// At least one.
fn operations(all: u32, percent: u32) -> u32 {
    let wanted = u64::from(all) * u64::from(percent) / 100;
    u32::try_from(wanted).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_probe_tells_a_time() {
        for probe in CPU.iter().chain(&memory::PROBES) {
            let nanoseconds = (probe.run)(operations(probe.operations, 1)).unwrap();
            assert!(nanoseconds > 0.0 && nanoseconds.is_finite(), "{}: {nanoseconds}", probe.name);
        }
    }

    #[test]
    fn a_coarse_clock_gets_more_operations() {
        // Operations of 3 ns, by a clock of 4 ms.
        let time = |operations: u32| (f64::from(operations) * 3.0 / 4e6).floor() * 4e6;
        let each = |operations| Ok(time(operations) / f64::from(operations));
        let told = long_enough(1000, STEPS * 4e6, each).unwrap();
        assert!((2.85..=3.0).contains(&told), "{told}");
        assert!(long_enough(1, 1.0, |_| Ok(0.0)).is_err());
        assert!(clock::step() > 0.0);
    }

    #[test]
    fn names_are_words_and_unlike() {
        let names: BTreeSet<_> = CPU.iter().chain(&memory::PROBES).map(|it| it.name).collect();
        assert_eq!(names.len(), CPU.len() + memory::PROBES.len());
        assert!(names.iter().all(|name| !name.contains(char::is_whitespace)));
    }

    #[test]
    fn some_percent_are_at_least_one() {
        assert_eq!((operations(200, 100), operations(200, 10), operations(2, 1)), (200, 20, 1));
    }
}
