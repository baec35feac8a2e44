//! Two reports of the same benchmarks: what has changed beyond noise.

use serde::Serialize;

use super::comparison::Verdict;
use super::{Measurement, Report};
use crate::statistics::{Interval, discoveries, of_ratio, p_value};

/// A metric of a subject in both reports.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The workload.
    pub benchmark: String,
    /// The subject.
    pub subject: String,
    /// The metric.
    pub metric: String,
    /// The unit of both medians.
    pub unit: String,
    /// The median of the first.
    pub before: f64,
    /// The median of the second.
    pub after: f64,
    /// The second divided by the first, where that means something.
    pub ratio: Option<f64>,
    /// Where that lies with 95 % confidence.
    pub ratio_interval: Option<Interval>,
    /// How likely chance alone sets the two as far apart.
    pub p: f64,
    /// Whether they differ: of all that are said to, at most 5 % are expected to be chance's.
    pub verdict: Verdict,
}

/// What has changed from one report to another.
#[derive(Clone, Debug, Serialize)]
pub struct Changes {
    /// What both have, in the second one's order.
    pub changes: Vec<Change>,
    /// A sentence for each thing that only one of them has, or that makes the two unlike.
    pub notes: Vec<String>,
}

/// Compares what both reports have. Where they are of unlike hosts there is no ratio.
pub fn changes(before: &Report, after: &Report) -> Changes {
    let mut notes = unlike(before, after);
    let is_like = notes.is_empty();
    notes.push(
        "the two were not interleaved: what else changed between them is in here, too".to_owned(),
    );
    let (mut pairs, mut missing) = (Vec::new(), Vec::new());
    for new in &after.results {
        match before.results.iter().find(|old| is_same(old, new)) {
            Some(old) => pairs.push((old, new)),
            None => missing.push(new),
        }
    }
    let only = |report: &str, of: &Measurement| {
        format!("{} of {} ({}) is in the {report} only", of.metric, of.subject, of.benchmark)
    };
    notes.extend(missing.into_iter().map(|new| only("second", new)));
    let gone = before.results.iter().filter(|old| !after.results.iter().any(|it| is_same(it, old)));
    notes.extend(gone.map(|old| only("first", old)));
    let p_values: Vec<f64> = pairs
        .iter()
        .map(|(old, new)| p_value(&new.summary.samples, &old.summary.samples))
        .collect();
    let called = discoveries(&p_values);
    let changes = pairs.into_iter().zip(p_values).zip(called);
    let changes = changes.map(|(((old, new), p), called)| change(old, new, p, called, is_like));
    Changes { changes: changes.collect(), notes }
}

fn is_same(a: &Measurement, b: &Measurement) -> bool {
    (&a.benchmark, &a.subject, &a.metric, &a.unit) == (&b.benchmark, &b.subject, &b.metric, &b.unit)
}

fn change(old: &Measurement, new: &Measurement, p: f64, called: bool, is_like: bool) -> Change {
    let (before, after) = (old.summary.median, new.summary.median);
    let interval = of_ratio(&new.summary.samples, &old.summary.samples).filter(|_| is_like);
    Change {
        benchmark: new.benchmark.clone(),
        subject: new.subject.clone(),
        metric: new.metric.clone(),
        unit: new.unit.clone(),
        before,
        after,
        ratio: (is_like && before > 0.0).then(|| after / before),
        ratio_interval: interval,
        p,
        verdict: if called { Verdict::of(p, after, before) } else { Verdict::NoDifference },
    }
}

/// What makes times of the two no times of the same thing.
fn unlike(before: &Report, after: &Report) -> Vec<String> {
    let (old, new) = (&before.host, &after.host);
    let facts = [
        ("processor", old.cpu.clone(), new.cpu.clone()),
        ("number of processors", old.cpus.to_string(), new.cpus.to_string()),
        ("kernel", old.kernel.clone(), new.kernel.clone()),
        ("KVM", old.kvm.describe().to_owned(), new.kvm.describe().to_owned()),
        ("mitigations", format!("{:?}", old.mitigations), format!("{:?}", new.mitigations)),
    ];
    let differs = facts.into_iter().filter(|(_, old, new)| old != new);
    differs
        .map(|(fact, old, new)| format!("no ratios: the {fact} was {old} and is {new}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{measured, report_of};

    #[test]
    fn what_changed_is_told_from_what_did_not() {
        let noisy = |base: f64| -> Vec<f64> { (0..8).map(|i| base + f64::from(i % 3)).collect() };
        let before = report_of(vec![
            measured("process", "quicker", noisy(100.0)),
            measured("process", "same", noisy(50.0)),
            measured("process", "gone", noisy(1.0)),
        ]);
        let after = report_of(vec![
            measured("process", "quicker", noisy(80.0)),
            measured("process", "same", noisy(50.0)),
        ]);
        let found = changes(&before, &after);
        assert_eq!(found.changes[0].verdict, Verdict::Less);
        assert!((0.78..0.82).contains(&found.changes[0].ratio.unwrap()), "{found:?}");
        assert_eq!(found.changes[1].verdict, Verdict::NoDifference);
        assert!(found.notes.iter().any(|note| note.contains("gone of process")), "{found:?}");
    }

    #[test]
    fn unlike_hosts_have_no_ratios() {
        let before = report_of(vec![measured("process", "time", vec![1.0; 5])]);
        let mut after = report_of(vec![measured("process", "time", vec![2.0; 5])]);
        after.host.kernel = "7.0".to_owned();
        let found = changes(&before, &after);
        assert_eq!((found.changes[0].ratio, found.changes[0].verdict), (None, Verdict::More));
        assert!(found.notes[0].contains("the kernel was"), "{found:?}");
    }
}
