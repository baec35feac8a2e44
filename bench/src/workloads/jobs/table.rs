//! Jobs and what they cost, on a terminal.

use comfy_table::CellAlignment;

use super::{EXITS, EXITS_OF, INTERRUPTS, LATENCY, THROUGHPUT, metric};
use crate::meter::{CPU, SWITCHES, SYSTEM_CALLS};
use crate::metrics;
use crate::report::{Measurement, Report, plain_table, ratio};

/// Medians: a row for each job and subject. The ratio is that of throughputs, to the baseline's.
pub fn table(report: &Report, benchmark: &str, jobs: &[&str], subjects: &[&str]) -> String {
    let mut table = plain_table(&[
        "job",
        "subject",
        "throughput",
        "latency, us",
        "CPU, us",
        "system calls",
        "switches",
        "exits",
        "interrupts",
        "per",
        "ratio",
    ]);
    for text in [1, 9] {
        if let Some(column) = table.column_mut(text) {
            column.set_cell_alignment(CellAlignment::Left);
        }
    }
    for job in jobs {
        for subject in subjects {
            let found = |quantity| find(report, benchmark, subject, &metric(job, quantity));
            let Some(throughput) = found(THROUGHPUT) else { continue };
            let cell = |quantity, decimals| match found(quantity) {
                Some(found) => format!("{:.decimals$}", found.summary.median),
                None => "-".to_owned(),
            };
            let counted = [INTERRUPTS, SWITCHES].into_iter().find_map(found);
            let work = counted.and_then(|found| found.unit.strip_prefix("per "));
            table.add_row([
                (*job).to_owned(),
                (*subject).to_owned(),
                format!("{:.0} {}", throughput.summary.median, throughput.unit),
                cell(LATENCY, 0),
                cell(CPU, 1),
                cell(SYSTEM_CALLS, 2),
                cell(SWITCHES, 2),
                cell(EXITS[0], 2),
                cell(INTERRUPTS, 3),
                work.unwrap_or("-").to_owned(),
                report
                    .comparison(benchmark, subject, &metric(job, THROUGHPUT))
                    .map_or("-".to_owned(), |it| format!("{} {}", ratio(it), it.baseline)),
            ]);
        }
    }
    table.to_string()
}

/// A sentence for each job at which `slow` has less than a third of `fast`'s throughput: what it
/// leaves the guest for.
pub fn causes(report: &Report, jobs: &[&str], slow: &str, fast: &str) -> Vec<String> {
    let sentence = |job: &&str| {
        let median = |subject: &str, quantity| {
            report.summary(subject, &metric(job, quantity)).map(|summary| summary.median)
        };
        let times = median(fast, THROUGHPUT)? / median(slow, THROUGHPUT)?;
        if times <= 3.0 {
            return None;
        }
        let exits = |subject| -> Option<String> {
            let [all, port, mmio, halt] = EXITS.map(|kind| median(subject, kind));
            let (all, port, mmio, halt) = (all?, port?, mmio?, halt?);
            Some(format!("{all:.1} exits ({port:.1} port, {mmio:.1} memory, {halt:.1} halt)"))
        };
        let work = report.find(slow, &metric(job, INTERRUPTS))?.unit.as_str();
        let told = match (exits(slow), exits(fast)) {
            (Some(slow_exits), Some(fast_exits)) => {
                format!(": {slow_exits} {work} against {fast_exits}")
            }
            _ => String::new(),
        };
        Some(format!("{job}: {slow} is {times:.1} times slower than {fast}{told}"))
    };
    jobs.iter().filter_map(sentence).collect()
}

/// A sentence for each job and subject whose exits are for devices: for which.
pub fn exits_by_device(
    report: &Report,
    benchmark: &str,
    jobs: &[&str],
    subjects: &[&str],
) -> Vec<String> {
    let mut sentences = Vec::new();
    for job in jobs {
        for subject in subjects {
            let Some(all) = find(report, benchmark, subject, &metric(job, EXITS[0])) else {
                continue;
            };
            let begin = metric(job, EXITS_OF);
            let of_subject = report
                .results
                .iter()
                .filter(|it| (it.benchmark.as_str(), it.subject.as_str()) == (benchmark, subject));
            let mut devices: Vec<(&str, f64)> = of_subject
                .filter_map(|it| Some((it.metric.strip_prefix(&begin)?, it.summary.median)))
                // The others together are not what a figure is explained by.
                .filter(|(_, exits)| exits * 20.0 >= all.summary.median)
                .collect();
            devices.sort_by(|(_, one), (_, other)| other.total_cmp(one));
            if devices.is_empty() {
                continue;
            }
            let devices: Vec<String> =
                devices.iter().map(|(device, exits)| format!("{exits:.2} for {device}")).collect();
            sentences.push(format!(
                "{job}, {subject}: of {:.2} exits {} {}",
                all.summary.median,
                all.unit,
                devices.join(", ")
            ));
        }
    }
    sentences
}

/// The jobs of a benchmark, in their order.
pub fn names<'a>(report: &'a Report, benchmark: &'a str) -> Vec<&'a str> {
    let metrics = report.metrics(benchmark).into_iter();
    metrics.filter_map(|metric| metric.strip_suffix(metrics::THROUGHPUT)).collect()
}

fn find<'a>(
    report: &'a Report,
    benchmark: &str,
    subject: &str,
    metric: &str,
) -> Option<&'a Measurement> {
    report.results.iter().find(|it| {
        (it.benchmark.as_str(), it.subject.as_str(), it.metric.as_str())
            == (benchmark, subject, metric)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::report::tests::{measured, origin};
    use crate::report::{Findings, Pair};

    fn report() -> Report {
        let measured = |subject: &str, quantity: &str, unit: &str, value: f64| Measurement {
            unit: unit.to_owned(),
            ..measured(subject, &metric("randread", quantity), vec![value; 5])
        };
        let mut results = vec![measured("theirs", THROUGHPUT, "IOPS", 4000.0)];
        for (subject, iops, exits) in [("ours", 8000.0, 1.0), ("slow", 2000.0, 9.0)] {
            results.push(measured(subject, THROUGHPUT, "IOPS", iops));
            for kind in EXITS {
                results.push(measured(subject, kind, "per request", exits));
            }
            results.push(measured(subject, INTERRUPTS, "per request", 0.5));
            for (device, share) in [("ide", 0.6), ("rtc", 0.01), ("apic", 0.3)] {
                let quantity = format!("{EXITS_OF}{device}");
                results.push(measured(subject, &quantity, "per request", exits * share));
            }
        }
        let pair = Pair {
            benchmark: "startup".to_owned(),
            subject: "ours".to_owned(),
            baseline: "theirs".to_owned(),
            other_work: None,
            control: None,
        };
        let findings = Findings { results, pairs: vec![pair], ..Findings::default() };
        Report::new(origin(), Host::detect(None, None), findings)
    }

    #[test]
    fn ratios_are_to_the_rival() {
        let table = table(&report(), "startup", &["randread", "absent"], &["ours", "theirs"]);
        let row = |subject: &str| -> Vec<&str> {
            let mut rows = table.lines().map(|line| line.split('|').map(str::trim).collect());
            rows.find(|cells: &Vec<&str>| cells[2] == subject).unwrap()
        };
        let ours = ["", "randread", "ours", "8000 IOPS", "-", "-", "-", "-", "1.00", "0.500"];
        assert_eq!(row("ours")[..10], ours);
        assert_eq!((row("ours")[11], row("theirs")[11]), ("2.00x theirs", "-"));
        assert!(!table.contains("absent"), "{table}");
    }

    #[test]
    fn what_is_three_times_slower_is_told_with_its_exits() {
        let causes = causes(&report(), &["randread"], "slow", "ours");
        let expected = "randread: slow is 4.0 times slower than ours: 9.0 exits (9.0 port, \
                        9.0 memory, 9.0 halt) per request against 1.0 exits";
        assert!(causes[0].starts_with(expected), "{causes:?}");
        assert!(super::causes(&report(), &["randread"], "theirs", "ours").is_empty());
    }

    #[test]
    fn devices_with_a_part_in_the_exits_are_named() {
        let told = exits_by_device(&report(), "startup", &["randread"], &["theirs", "slow"]);
        let expected = "randread, slow: of 9.00 exits per request 5.40 for ide, 2.70 for apic";
        assert_eq!(told, [expected]);
    }

    #[test]
    fn jobs_are_known_by_their_throughput() {
        assert_eq!(names(&report(), "startup"), ["randread"]);
    }
}
