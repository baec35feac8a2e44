//! What is on the disk, told and pruned.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use isolab_tests::{Run, Sandbox, busybox_layout, text};
use serde_json::Value;

fn cache(sandbox: &Sandbox) -> PathBuf {
    sandbox.data().join("cache")
}

/// With a cache of its own: the other tests need theirs.
fn isolab(sandbox: &Sandbox, arguments: &[&str]) -> Run {
    sandbox.isolab(arguments).env("XDG_CACHE_HOME", text(&cache(sandbox)))
}

fn json(sandbox: &Sandbox, arguments: &[&str]) -> Value {
    let printed = isolab(sandbox, arguments).args(&["--format", "json"]).finish().success();
    serde_json::from_str(&printed).unwrap()
}

#[test]
fn prune_takes_all_that_df_calls_reclaimable_and_nothing_that_is_used() {
    let sandbox = Sandbox::with_busybox();
    isolab(&sandbox, &["image", "load", "--tag", "idle"]).arg(busybox_layout()).finish().success();
    let context = tempfile::tempdir().unwrap();
    fs::write(context.path().join("Dockerfile"), "FROM busybox\nRUN echo x >/made\n").unwrap();
    let build = ["image", "build", "-t", "built", text(context.path())];
    isolab(&sandbox, &build).finish().success();
    let kernel = cache(&sandbox).join("isolab/kernels/stock");
    fs::create_dir_all(&kernel).unwrap();
    fs::write(kernel.join("vmlinuz"), [1; 100_000]).unwrap();

    let script = "echo ready; read line";
    let mut running =
        isolab(&sandbox, &["run", "-i", "busybox", "sh", "-c", script]).start(Stdio::piped());
    running.wait_for("ready");
    let before = json(&sandbox, &["system", "df"]);
    let count = |usage: &Value, part: &str| {
        (usage[part]["total"].as_u64().unwrap(), usage[part]["active"].as_u64().unwrap())
    };
    // `idle` is another name of the same image.
    assert_eq!(count(&before, "images"), (2, 1));
    assert_eq!(count(&before, "instances"), (1, 1));
    assert_eq!(count(&before, "kernels"), (1, 0));
    assert!(before["build_cache"]["size"].as_u64() > Some(0), "{before}");
    let table = isolab(&sandbox, &["system", "df"]).finish().success();
    assert!(table.lines().any(|line| line.starts_with("build cache")), "{table}");

    // Without being told so, nothing goes but what a killed monitor, or another version, left.
    assert_eq!(isolab(&sandbox, &["system", "prune"]).finish().success(), "");
    let outdated = sandbox.data().join("isolab/instances/.scratch-v0.ext4");
    fs::write(&outdated, [1; 8192]).unwrap();
    let reclaimable = json(&sandbox, &["system", "df"])["instances"]["reclaimable"].clone();
    assert_eq!(reclaimable, 8192);
    assert_eq!(isolab(&sandbox, &["system", "prune"]).finish().success(), "freed 8.2 kB\n");
    assert!(!outdated.exists());
    assert_eq!(json(&sandbox, &["system", "df"])["images"], before["images"]);
    let pruned = json(&sandbox, &["system", "prune", "--all"]);
    assert_eq!(pruned["kernels"], serde_json::json!(["stock"]));
    assert_eq!(pruned["images"]["untagged"].as_array().unwrap().len(), 1, "{pruned}");
    let after = json(&sandbox, &["system", "df"]);
    assert_eq!((count(&after, "images"), count(&after, "kernels")), ((1, 1), (0, 0)));
    let parts = ["images", "layers", "disks", "build_cache", "unfinished", "kernels"];
    for part in parts {
        assert_eq!(after[part]["reclaimable"], 0, "{part}: {after}");
    }
    let sum = |usage: &Value, field: &str| {
        parts.iter().map(|part| usage[*part][field].as_u64().unwrap()).sum::<u64>()
    };
    assert_eq!(sum(&after, "size"), sum(&before, "size") - sum(&before, "reclaimable"));

    running.feed(b"\n");
    running.finish().success();
    let table = isolab(&sandbox, &["system", "prune", "--images"]).finish().success();
    assert!(table.contains("untagged") && table.contains("freed"), "{table}");
    let empty = json(&sandbox, &["system", "df"]);
    assert_eq!((count(&empty, "images"), sum(&empty, "size")), ((0, 0), 0));
}
