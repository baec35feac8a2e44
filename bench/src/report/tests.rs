use std::collections::BTreeMap;

use super::pair::again;
use super::*;
use crate::host::KvmKind;
use crate::statistics::Interval;

pub(crate) fn measured(subject: &str, metric: &str, samples: Vec<f64>) -> Measurement {
    Measurement {
        benchmark: "startup".to_owned(),
        subject: subject.to_owned(),
        metric: metric.to_owned(),
        unit: "ms".to_owned(),
        rounds: (1..=samples.len() as u32).collect(),
        summary: Summary::of(samples).unwrap(),
    }
}

fn host(kvm: KvmKind) -> Host {
    Host {
        cpu: "a cpu".to_owned(),
        cpus: 2,
        kvm,
        kernel: "6.1".to_owned(),
        mitigations: BTreeMap::new(),
        guest_kernel: None,
        image: Some("busybox".to_owned()),
        image_digest: Some("sha256:0".to_owned()),
    }
}

fn pair(subject: &str) -> Pair {
    Pair {
        benchmark: "startup".to_owned(),
        subject: subject.to_owned(),
        baseline: "process".to_owned(),
        other_work: None,
        control: Some("compute".to_owned()),
    }
}

pub(crate) fn origin() -> Origin {
    Origin {
        begun: "2026-11-28T00:00:00Z".to_owned(),
        version: "0.1.0".to_owned(),
        command: vec!["isolab".to_owned(), "bench".to_owned()],
    }
}

/// Compared with `process`, on hardware.
pub(crate) fn report_of(results: Vec<Measurement>) -> Report {
    let subjects = distinct(results.iter().map(|it| it.subject.as_str()));
    let pairs = subjects.iter().filter(|it| **it != "process").map(|it| pair(it)).collect();
    let findings = Findings { results, pairs, ..Findings::default() };
    Report::new(origin(), host(KvmKind::Hardware), findings)
}

/// Eight samples around `value`.
fn around(value: f64) -> Vec<f64> {
    (0..8).map(|i| value * (1.0 + f64::from(i % 4) / 100.0)).collect()
}

fn kinds(comparison: &Comparison) -> Vec<FaultKind> {
    comparison.faults.iter().map(|fault| fault.kind).collect()
}

#[test]
fn ratios_are_of_medians_to_the_baseline() {
    let report = report_of(vec![
        measured("process", "to_exit", around(3.0)),
        measured("container", "to_exit", around(6.0)),
    ]);
    let compared = report.comparison("startup", "container", "to_exit").unwrap();
    assert!((compared.ratio.unwrap() - 2.0).abs() < 1e-9, "{compared:?}");
    let Interval { low, high } = compared.ratio_interval.unwrap();
    assert!(low <= 2.0 && 2.0 <= high && high - low < 0.2, "{compared:?}");
    assert_eq!((compared.verdict, &compared.faults[..]), (Verdict::More, &[][..]));
    let table = of_metric(&report, "startup", "to_exit");
    let row = |name: &str| table.lines().find(|l| l.contains(name)).unwrap().to_owned();
    assert!(row("process").ends_with(" 1 |"), "{table}");
    assert!(row("container").ends_with(" 2.00x |"), "{table}");
    let table = by_metric(&report, "startup");
    assert!(table.contains("6.09 (2.00x)"), "{table}");
}

#[test]
fn what_fails_the_audit_has_no_ratio() {
    let base = || measured("process", "time", around(3.0));
    let compare = |other: Measurement| report_of(vec![base(), other]).comparisons.remove(0);
    let of = |samples| compare(measured("container", "time", samples));
    for (comparison, kind) in [
        (of(vec![6.0; 3]), FaultKind::NotRepeated),
        (of(vec![6.0, 1.0, 9.0, 3.0, 12.0, 5.0]), FaultKind::TooNoisy),
        (
            compare(Measurement {
                rounds: (2..=9).collect(),
                ..measured("container", "time", around(6.0))
            }),
            FaultKind::NotInterleaved,
        ),
    ] {
        assert!(kinds(&comparison).contains(&kind), "{comparison:?}");
        assert_eq!((comparison.ratio, comparison.ratio_interval), (None, None));
        assert!(table::ratio(&comparison).starts_with("not ") || kind == FaultKind::TooNoisy);
    }
}

#[test]
fn other_work_and_another_control_are_no_comparison() {
    let results = |control: f64| {
        vec![
            measured("process", "compute", around(1.0)),
            measured("process", "time", around(3.0)),
            measured("container", "compute", around(control)),
            measured("container", "time", around(6.0)),
        ]
    };
    assert!(report_of(results(1.02)).comparisons.iter().all(|it| it.ratio.is_some()));
    let report = report_of(results(1.5));
    let time = report.comparison("startup", "container", "time").unwrap();
    assert_eq!((kinds(time), time.ratio), (vec![FaultKind::Control], None));
    // How far the control is off is told.
    let control = report.comparison("startup", "container", "compute").unwrap();
    assert!((control.ratio.unwrap() - 1.5).abs() < 0.01);
    let other = Pair { other_work: Some("another kernel".to_owned()), ..pair("container") };
    let findings = Findings { results: results(1.0), pairs: vec![other], ..Findings::default() };
    let report = Report::new(origin(), host(KvmKind::Hardware), findings);
    assert_eq!(kinds(&report.comparisons[0]), [FaultKind::NotTheSameWork]);
    assert!(
        report.remarks().iter().any(|it| it.contains("2 of 2 comparisons")),
        "{:?}",
        report.remarks()
    );
}

#[test]
fn an_emulated_host_is_marked_and_has_ratios() {
    let results =
        vec![measured("process", "time", around(3.0)), measured("container", "time", around(6.0))];
    let findings = Findings { results, pairs: vec![pair("container")], ..Findings::default() };
    let report = Report::new(origin(), host(KvmKind::EmulatedIcount), findings);
    assert_eq!(kinds(&report.comparisons[0]), [FaultKind::Emulated]);
    assert!(report.comparisons[0].ratio.is_some());
}

#[test]
fn the_same_under_two_names_is_a_test_of_the_benchmark() {
    let again = again("process");
    let report = report_of(vec![
        measured("process", "time", around(3.0)),
        measured(&again, "time", around(3.0)),
        measured("container", "time", around(6.0)),
    ]);
    assert_eq!(report.comparisons.len(), 1, "it is no subject of its own");
    let test = report.self_test.as_ref().unwrap();
    assert_eq!((test.comparisons, test.called_different, test.failed), (1, 0, false));
    assert!(report.remarks().iter().any(|it| it.contains("0 of 1 metrics")));
}

#[test]
fn a_metric_that_a_subject_lacks_is_a_dash() {
    let report = report_of(vec![
        measured("process", "to_exit", around(3.0)),
        measured("container", "setup", around(1.25)),
    ]);
    let table = medians(&report, "startup", &["to_exit", "setup"]);
    let process = table.lines().find(|l| l.contains("process")).unwrap();
    assert!(process.contains("3.0") && process.contains('-'), "{table}");
}

#[test]
fn json_has_the_promised_shape_and_is_read_back() {
    let report = report_of(vec![measured("process", "to_exit", around(3.0))]);
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["schema"], &json["host"]["kvm"]), (&SCHEMA.into(), &"hardware".into()));
    let first = &json["results"][0];
    for key in [
        "benchmark",
        "subject",
        "metric",
        "unit",
        "rounds",
        "samples",
        "min",
        "median",
        "interval",
        "p95",
        "p99",
        "max",
    ] {
        assert!(!first[key].is_null(), "{key} is missing in {first}");
    }
    let back: Report = serde_json::from_value(json).unwrap();
    assert_eq!(back.results[0].summary, report.results[0].summary);
    // What is documented is what there is.
    let schema = include_str!("../../../docs/reading-the-report.md");
    for key in serde_json::to_value(&report).unwrap().as_object().unwrap().keys() {
        assert!(schema.contains(&format!("`{key}`")), "{key} is not documented");
    }
}
