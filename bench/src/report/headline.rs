//! The figures that a reader asks for first, of all benchmarks in one table.

use super::table::{medians_and_ratios, plain_table};
use super::{FaultKind, Report, distinct, is_again};

/// A benchmark, a metric of it, and what that is in a reader's words.
const ASKED_FIRST: [(&str, &str, &str); 17] = [
    ("startup", "to_first_output", "start to the first line"),
    ("startup", "to_gone", "start until nothing is left"),
    ("density", "memory_each", "memory of one more instance"),
    ("cpu", "syscall", "system call"),
    ("cpu", "context_switch", "context switch"),
    ("cpu", "page_fault", "page fault"),
    ("cpu", "exec", "fork and exec"),
    ("memory", "load_64m", "load from 64 MiB"),
    ("disk", "volume_randread_4k_latency", "random read of 4 KiB"),
    ("disk", "volume_write_4k_fsync_latency", "write of 4 KiB and fsync"),
    ("net", "send_host_throughput", "one TCP stream to the host"),
    ("net", "request_64_peer_latency", "round trip of 64 bytes"),
    ("tiers", "to_ready", "three tiers: until ready"),
    ("tiers", "static_throughput", "three tiers: a static page"),
    ("tiers", "cached_throughput", "three tiers: from the cache"),
    ("tiers", "read_throughput", "three tiers: from the database"),
    ("tiers", "write_throughput", "three tiers: an order"),
];

/// One of them.
pub(super) struct Headline {
    pub benchmark: &'static str,
    pub metric: &'static str,
    pub what: &'static str,
    pub unit: String,
}

/// Those that the report has, if it is of several benchmarks.
pub(super) fn headlines(report: &Report) -> Vec<Headline> {
    if report.benchmarks().len() < 2 {
        return Vec::new();
    }
    let found = ASKED_FIRST.into_iter().filter_map(|(benchmark, metric, what)| {
        let unit = report.of(benchmark).find(|it| it.metric == metric)?.unit.clone();
        Some(Headline { benchmark, metric, what, unit })
    });
    found.collect()
}

/// The subjects that are different levels, each once: not the one that is measured again, nor those that do other work.
pub(super) fn subjects(report: &Report) -> Vec<&str> {
    let does_other_work = |subject: &str| {
        report.comparisons.iter().any(|it| {
            it.subject == subject
                && it.faults.iter().any(|fault| fault.kind == FaultKind::NotTheSameWork)
        })
    };
    // Peers have benchmarks of their own.
    let has_headlines = |benchmark: &str| ASKED_FIRST.iter().any(|(it, ..)| *it == benchmark);
    let results = report.results.iter().filter(|it| has_headlines(&it.benchmark));
    let subjects = distinct(results.map(|it| it.subject.as_str())).into_iter();
    subjects.filter(|it| !is_again(it) && !does_other_work(it)).collect()
}

/// The table, for a terminal; nothing for a report of one benchmark.
pub fn in_short(report: &Report) -> String {
    let headlines = headlines(report);
    if headlines.is_empty() {
        return String::new();
    }
    let subjects = subjects(report);
    let header: Vec<&str> =
        ["in short", "unit"].into_iter().chain(subjects.iter().copied()).collect();
    let mut table = plain_table(&header);
    for Headline { benchmark, metric, what, unit } in headlines {
        let cells = medians_and_ratios(report, benchmark, metric, &subjects);
        table.add_row([what.to_owned(), unit].into_iter().chain(cells));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{THROUGHPUT, TO_FIRST_OUTPUT};
    use crate::report::tests::{measured, report_of};
    use crate::workloads::{density, disk, net, startup, tiers};

    #[test]
    fn the_table_is_of_levels_that_do_the_same() {
        let mut results = Vec::new();
        for (subject, factor) in [("process", 1.0), ("container", 2.0), ("process (again)", 1.0)] {
            let samples =
                |base: f64| (0..6).map(|i| factor * (base + f64::from(i) / 99.0)).collect();
            results.push(measured(subject, "to_first_output", samples(3.0)));
            let mut call = measured(subject, "syscall", samples(700.0));
            call.benchmark = "cpu".to_owned();
            results.push(call);
        }
        let report = report_of(results);
        assert_eq!(subjects(&report), ["process", "container"]);
        let text = in_short(&report);
        let cells: Vec<Vec<&str>> =
            text.lines().map(|line| line.split('|').map(str::trim).collect()).collect();
        assert_eq!(cells[0][1..5], ["in short", "unit", "process", "container"]);
        assert_eq!(cells[2][1..2], ["start to the first line"]);
        assert_eq!(cells[2][3..5], ["3.03", "6.05 (2.00x)"]);
        assert_eq!(cells[3][1..2], ["system call"]);
        assert_eq!(cells.len(), 4, "{text}");
        let one = report_of(vec![measured("process", "to_first_output", vec![1.0; 5])]);
        assert_eq!(in_short(&one), "");
    }

    /// What `bench cpu` and `memory` measure is said by another program: the test `a_report` looks there.
    #[test]
    fn its_metrics_are_the_benchmarks_own() {
        for (benchmark, metric, _) in ASKED_FIRST {
            let is_of = |jobs: &[&str]| jobs.iter().any(|job| metric.starts_with(job));
            assert!(
                match benchmark {
                    "startup" => metric == TO_FIRST_OUTPUT || metric == startup::TO_GONE,
                    "density" => metric == density::MEMORY_EACH,
                    "disk" => is_of(&disk::levels::QUICK),
                    "net" => is_of(&net::levels::QUICK),
                    "tiers" =>
                        metric == tiers::TO_READY
                            || tiers::KINDS
                                .iter()
                                .any(|kind| metric == format!("{kind}{THROUGHPUT}")),
                    _ => true,
                },
                "{benchmark} has no {metric}"
            );
        }
    }
}
