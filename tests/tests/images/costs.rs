//! `isolab bench image`: every figure is there, and they fit together.

use isolab_tests::Sandbox;
use serde_json::Value;

/// The median of `metric` at `subject`.
fn median(report: &Value, subject: &str, metric: &str) -> f64 {
    let results = report["results"].as_array().unwrap();
    let found = results.iter().find(|m| m["subject"] == subject && m["metric"] == metric);
    let found = found.unwrap_or_else(|| panic!("no {metric} of {subject} in {report}"));
    assert_eq!(found["samples"].as_array().unwrap().len(), 1, "{found}");
    found["median"].as_f64().unwrap()
}

fn bench(options: &[&str]) -> Value {
    let words = [&["bench", "image", "--runs", "1", "--format", "json"], options].concat();
    serde_json::from_str(&Sandbox::with_busybox().isolab(&words).finish().success()).unwrap()
}

#[test]
fn first_use_is_measured_with_an_empty_store_and_a_full_one() {
    let report = bench(&["--isolation", "process,container"]);
    for level in ["process", "container"] {
        let figure = |metric| median(&report, level, metric);
        assert!(figure("load") > 0.0 && figure("cached_to_first_output") > 0.0);
        assert!(figure("load_to_first_output") > figure("load"));
    }
    assert_eq!(report["host"]["image"], "busybox");
}

#[test]
fn stores_are_measured_beside_podman_s() {
    let report = bench(&["--peers", "podman", "--size", "4M", "--layers", "3"]);
    for engine in ["isolab", "podman"] {
        let figure = |metric| median(&report, engine, metric);
        assert!(figure("load_and_unpack") > 0.0);
        // The files, and whatever is beside them.
        assert!(figure("disk") - figure("disk_to_push") > 4.0, "{report}");
        assert!(figure("disk_to_push") > 0.0, "{report}");
    }
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let sandbox = Sandbox::empty();
    let run = |words: &[&str]| sandbox.isolab(&[&["bench", "image"], words].concat()).finish();
    run(&["--peers", "docker"]).fails_with(2, &["docker", "podman"]);
    run(&["--isolation", "process", "--image", "none"]).fails_with(125, &["none"]);
    run(&["--peers", "podman", "--size", "99T"]).fails_with(125, &["--size", "--layers"]);
    run(&["--isolation", "process,process"]).fails_with(125, &["twice"]);
}
