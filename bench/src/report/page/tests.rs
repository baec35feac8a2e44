use std::collections::BTreeMap;

use super::*;
use crate::report::tests::{measured, report_of};

fn report() -> Report {
    let around = |value: f64| (0..6).map(|i| value + f64::from(i) / 70.0).collect::<Vec<_>>();
    report_of(vec![
        measured("process", "to_first_output", around(3.0)),
        measured("process", "setup", around(1.0)),
        measured("process", "workload", around(2.0)),
        measured("container", "to_first_output", around(6.0)),
        measured("container", "setup", around(4.0)),
        measured("a<b> & c", "to_first_output", vec![1.0, 9.0, 4.0, 25.0]),
    ])
}

/// The numbers of a page, by their names: an id, and a value for programs.
fn numbers(page: &str) -> BTreeMap<String, f64> {
    let parts = page.split("<data id=\"").skip(1);
    let number = |part: &str| {
        let (id, rest) = part.split_once("\" value=\"").unwrap();
        let (value, _) = rest.split_once('"').unwrap();
        (id.to_owned(), value.parse().unwrap())
    };
    parts.map(number).collect()
}

#[test]
fn its_numbers_are_the_json_s() {
    let report = report();
    let numbers = numbers(&page(&report));
    let json = serde_json::to_value(&report).unwrap();
    let results = json["results"].as_array().unwrap();
    let mut expected = BTreeMap::new();
    let word = |it: &serde_json::Value| {
        it.as_str().unwrap().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    };
    for it in results {
        let place = ["benchmark", "subject", "metric"].map(|key| word(&it[key])).join("/");
        for key in ["median", "min", "p95", "p99", "max"] {
            expected.insert(format!("{place}/{key}"), it[key].as_f64().unwrap());
        }
        for key in ["low", "high"] {
            expected.insert(format!("{place}/{key}"), it["interval"][key].as_f64().unwrap());
        }
    }
    for it in json["comparisons"].as_array().unwrap() {
        let place = ["benchmark", "subject", "metric"].map(|key| word(&it[key])).join("/");
        if let Some(ratio) = it["ratio"].as_f64() {
            expected.insert(format!("{place}/ratio"), ratio);
        }
    }
    assert_eq!(numbers, expected);
}

#[test]
fn curves_and_exits_are_there_where_they_were_measured() {
    let of = |metric: &str| measured("paravirt", metric, vec![3.0; 5]);
    let some = |metrics: &[&str]| page(&report_of(metrics.iter().map(|it| of(it)).collect()));
    for (metrics, label) in [
        (&["root_randread_512_throughput", "root_randread_1m_throughput"][..], "reading the root"),
        (
            &["volume_randread_4k_throughput", "volume_randread_64k_throughput"],
            "reading the volume",
        ),
        (&["start_1st", "start_10th"], "the start of one more instance"),
        (&["rate_25_p99", "rate_100_p99"], "how much is asked (p99)"),
    ] {
        let title = |page: &str| page.contains(label) && page.contains("<circle");
        assert!(title(&some(metrics)), "{label}");
        assert!(!title(&some(&metrics[..1])), "{label}: one point is no curve");
    }
    let page = some(&["read_exits", "read_throughput"]);
    assert!(page.contains("Bars: exits") && page.contains("read paravirt"), "{page}");
}

#[test]
fn it_has_its_plots_and_nothing_from_elsewhere() {
    let page = page(&report());
    for part in ["Bars: the phases", "Bars: ratios", "Curves: the part", "id=\"remarks\""] {
        assert!(page.contains(part), "no {part}");
    }
    for part in ["<script", "http:", "https:", "url(", "@import", "NaN", "inf\""] {
        assert!(!page.contains(part), "{part} in the page");
    }
    // What was measured is text, whatever it is called.
    assert!(page.contains("a&lt;b&gt; &amp; c") && !page.contains("a<b>"));
}

#[test]
fn what_is_asked_first_is_a_table_where_there_are_several_benchmarks() {
    let one = report();
    assert!(!page(&one).contains("In short"));
    let mut call = measured("process", "syscall", vec![700.0; 6]);
    call.benchmark = "cpu".to_owned();
    let results = one.results.into_iter().chain([call]).collect();
    let page = page(&report_of(results));
    let row = "<a href=\"#cpu\">system call</a></th><td>ms</td><td>700</td><td>-</td>";
    assert!(page.contains("In short") && page.contains(row), "{page}");
}
