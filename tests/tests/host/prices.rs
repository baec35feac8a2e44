//! `isolab bench`: the whole price list with tiny counts at the levels that need no KVM, its report in all forms, and what a
//! failure or a key press leaves.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use isolab_tests::networked::Host;
use isolab_tests::{Done, Run, Sandbox, TIME_LIMIT, checkout, isolab_path, text};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use serde_json::Value;

const LEVELS: [&str; 2] = ["--isolation", "process,container"];

/// The calling thread, and what it starts, is in a network namespace of its own: a start's network is not the machine's.
fn without_the_machine_s_network() {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The subjects that a report has `metric` of `benchmark` for, with the number of samples.
fn measured(report: &Value, benchmark: &str, metric: &str) -> Vec<(String, usize)> {
    let results = report["results"].as_array().unwrap().iter();
    let wanted = results.filter(|it| it["benchmark"] == benchmark && it["metric"] == metric);
    let count = |it: &Value| it["samples"].as_array().unwrap().len();
    wanted.map(|it| (it["subject"].as_str().unwrap().to_owned(), count(it))).collect()
}

fn three(count: usize) -> [(String, usize); 3] {
    ["process", "container", "process (again)"].map(|name| (name.to_owned(), count))
}

#[test]
fn the_price_list_is_one_report_in_three_forms() {
    without_the_machine_s_network();
    let sandbox = Sandbox::with_busybox();
    let out = sandbox.data().join("results");
    let words = ["bench", "all", "--runs", "4", "--operations", "1", "--out", text(&out)];
    // Nobody has built the images of the tiers; disk and net have a test of their own.
    let without = ["--without", "disk,net"];
    let told = ["--progress", "plain", "--peers", "runc"];
    let done = sandbox.isolab(&words).args(&LEVELS).args(&without).args(&told).finish();
    for line in ["startup: warming up\n", "cpu: round 1 of 4\n", "density: round 4 of 4\n"] {
        assert_eq!(done.stderr.matches(line).count(), 1, "{line} in {}", done.stderr);
    }
    let table = done.success();
    let report = read(&out.join("report.json"));
    assert_eq!(report["schema"], "isolab-bench-report/1");
    for (benchmark, metric) in [
        ("startup", "to_first_output"),
        ("startup", "to_gone"),
        ("startup", "cpu_time"),
        ("cpu", "compute"),
        ("cpu", "exec"),
        ("cpu", "timer_late"),
        ("memory", "load_16k"),
        ("memory", "walk_64m_huge"),
    ] {
        assert_eq!(measured(&report, benchmark, metric), three(4), "{metric} in {report}");
        assert!(table.contains(metric), "no {metric} in {table}");
    }
    let two = ["process", "container"].map(|name| (name.to_owned(), 4));
    assert_eq!(measured(&report, "density", "start_10th"), two, "{report}");
    let runtimes = ["isolab-oci", "runc"].map(|name| (name.to_owned(), 4));
    assert_eq!(measured(&report, "runtimes", "to_exit"), runtimes, "{report}");
    let notes = report["notes"].as_array().unwrap();
    let is_told = |note: &&Value| note.as_str().unwrap().starts_with("tiers is left out: ");
    assert_eq!(notes.iter().filter(is_told).count(), 1, "{notes:?}");
    // The same subject twice is a test of the benchmark, and no comparison.
    let compared = report["self_test"]["comparisons"].as_u64().unwrap();
    assert!(compared > 25, "{report}");
    let comparisons = report["comparisons"].as_array().unwrap();
    let expected = |it: &Value| if it["benchmark"] == "runtimes" { "runc" } else { "container" };
    assert!(comparisons.iter().all(|it| it["subject"] == expected(it)), "{comparisons:?}");
    for it in comparisons {
        let is_sound = it.get("faults").is_none_or(|faults| {
            faults.as_array().unwrap().iter().all(|fault| fault["kind"] == "emulated")
        });
        assert_eq!(it["ratio"].is_number(), is_sound, "a ratio is what passes the audit: {it}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    for part in [
        "Bars: the phases",
        "Curves: the start of one more instance",
        "id=\"startup\"",
        "id=\"cpu\"",
        "id=\"memory\"",
        "id=\"density\"",
        "id=\"remarks\"",
    ] {
        assert!(page.contains(part), "no {part}");
    }
    // The very digits: who parses them may lose the last.
    let json = fs::read_to_string(out.join("report.json")).unwrap();
    let (_, median) = json.split_once("\"median\": ").unwrap();
    let (median, _) = median.split_once(',').unwrap();
    let number = format!("id=\"startup/process/to_first_output/median\" value=\"{median}\"");
    assert!(page.contains(&number), "no {number}");
    assert_eq!(fs::read_to_string(out.join("report.txt")).unwrap(), table);
    assert!(!out.join("report.journal").exists(), "there is nothing to go on with");
    let json = out.join("report.json");
    let same = sandbox.isolab(&["bench", "compare", text(&json), text(&json)]).finish().success();
    assert!(same.contains("0 of ") && same.contains("changed beyond noise"), "{same}");
}

/// Each job's figures at two levels, with what they cost. What is not there is no figure.
#[track_caller]
fn has_jobs(report: &Value, benchmark: &str, jobs: &[&str]) {
    let two = ["process", "container"].map(|name| (name.to_owned(), 1));
    for job in jobs {
        for quantity in ["throughput", "latency", "cpu", "context_switches", "page_faults"] {
            // A stream has none of its own.
            let is_stream = job.starts_with("send") && quantity == "latency";
            let expected = if is_stream { &[][..] } else { &two };
            let metric = format!("{job}_{quantity}");
            assert_eq!(measured(report, benchmark, &metric), expected, "{metric} in {report}");
        }
        let results = report["results"].as_array().unwrap().iter();
        let throughput = format!("{job}_throughput");
        for found in results.filter(|it| it["metric"] == throughput) {
            assert!(found["median"].as_f64().unwrap() > 0.0, "{found}");
        }
    }
}

#[test]
fn disks_and_networks_are_measured_at_the_levels() {
    let host = Host::new();
    let report = |words: &[&str], jobs: &[&str]| -> Value {
        let begin = [&["bench"], words, &["--runs", "1", "--format", "json", "--jobs"]].concat();
        let jobs = jobs.join(",");
        let report = host.isolab(&[&begin[..], &[jobs.as_str()], &LEVELS].concat()).success();
        serde_json::from_str(&report).unwrap()
    };
    let jobs = ["root_randread_4k", "volume_write_4k_fsync"];
    has_jobs(&report(&["disk", "--size", "4M", "--requests", "50"], &jobs), "disk", &jobs);
    let jobs = ["send_host", "request_64_peer", "connect_host"];
    has_jobs(&report(&["net", "--mebibytes", "4", "--requests", "50"], &jobs), "net", &jobs);
    assert_eq!(host.left(), [""; 0], "nothing is left");
    let run = |words: &[&str]| host.isolab(&[&["bench"], words].concat());
    run(&["disk", "--jobs", "root_magic"]).fails_with(125, &["root_magic", "volume_randread_1m"]);
    run(&["disk", "--disk", "/dev/null"]).fails_with(125, &["--peers"]);
    run(&["net", "--isolation", "process", "--peers", "qemu"]).fails_with(2, &["cannot be used"]);
}

#[test]
fn a_shop_is_measured_at_the_levels() {
    let host = Host::new();
    for tier in ["web", "app", "db"] {
        let image = checkout().join(format!("target/tiers-images/shop-{tier}.tar"));
        host.isolab(&["image", "load", text(&image)]).success();
    }
    let words = [
        "bench",
        "tiers",
        "--runs",
        "1",
        "--apps",
        "1",
        "--rates",
        "25",
        "--duration",
        "1",
        "--requests",
        "20",
    ];
    let report = host.isolab(&[&words[..], &["--format", "json"], &LEVELS].concat()).success();
    let report: Value = serde_json::from_str(&report).unwrap();
    let two = ["process", "container"].map(|name| (name.to_owned(), 1));
    for metric in [
        "to_ready",
        "static_throughput",
        "read_p99",
        "write_cpu",
        "rate_25_p50",
        "apps_1_throughput",
        "trace_app_ask_the_database",
    ] {
        assert_eq!(measured(&report, "tiers", metric), two, "{metric} in {report}");
    }
    assert_eq!(host.left(), [""; 0], "nothing is left");
}

#[test]
fn starts_are_measured_beside_an_engine_s_and_with_cold_caches() {
    without_the_machine_s_network();
    let sandbox = Sandbox::with_busybox();
    let report = |words: &[&str]| -> Value {
        let begin = ["bench", "startup", "--runs", "1", "--format", "json"];
        let report = sandbox.isolab(&[&begin, words].concat()).finish().success();
        serde_json::from_str(&report).unwrap()
    };
    let engines = report(&["--peers", "podman"]);
    for metric in ["to_first_output", "to_exit", "to_gone", "cpu_time"] {
        let found = measured(&engines, "engines", metric);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        // With the OCI runtime that this host's cgroups let run.
        let [ours, theirs] = names[..] else { panic!("{metric} in {engines}") };
        assert!(ours == "isolab run" && theirs.starts_with("podman run"), "{names:?}");
    }
    let cold = report(&["--cold", "--isolation", "process"]);
    let process = [("process".to_owned(), 1)];
    assert_eq!(measured(&cold, "startup_cold", "to_first_output"), process, "{cold}");
}

#[test]
fn a_key_press_keeps_what_was_measured_and_it_goes_on_from_there() {
    let sandbox = Sandbox::empty();
    let out = sandbox.data().join("results");
    let words = ["bench", "cpu", "--runs", "30", "--operations", "1", "--out", text(&out)];
    let bench = || sandbox.isolab(&words).args(&LEVELS);
    let running = bench().start(Stdio::null());
    // The plan and two whole rounds.
    let journal = out.join("cpu.journal");
    let deadline = Instant::now() + TIME_LIMIT;
    while fs::read_to_string(&journal).is_ok_and(|text| text.lines().count() < 7)
        || !journal.exists()
    {
        assert!(Instant::now() < deadline, "nothing is kept");
        thread::sleep(Duration::from_millis(5));
    }
    running.signal(Signal::SIGINT);
    let done = running.finish();
    assert_eq!(done.code(), Some(130), "{done:?}");
    let report = read(&out.join("cpu.json"));
    assert_eq!(report["interrupted"], true);
    let kept = measured(&report, "cpu", "syscall");
    let rounds = kept[0].1;
    assert!((2..30).contains(&rounds), "{kept:?}");
    assert_eq!(kept, three(rounds), "whole rounds");
    let first = report["results"][0]["samples"][0].clone();

    let done = bench().arg("--resume").finish();
    assert!(done.status.success(), "{done:?}");
    let report = read(&out.join("cpu.json"));
    assert_eq!(measured(&report, "cpu", "syscall"), three(30));
    assert_eq!(report["results"][0]["samples"][0], first, "it was not measured again");
    // Another plan is another run.
    fs::write(&journal, "\"isolab bench cpu --runs 2\"\n").unwrap();
    bench().arg("--resume").finish().fails_with(125, &["of another run", "--runs 2"]);
}

#[test]
fn who_fails_has_no_figure() {
    let sandbox = Sandbox::with_busybox();
    let run = |command: &[&str]| -> Done {
        let words = ["bench", "startup", "--runs", "4", "--no-network", "--format", "json"];
        sandbox.isolab(&[&words, &LEVELS[..], &["--"], command].concat()).finish()
    };
    // A container has a host's name of its own.
    let only_here = "[ \"$(hostname)\" = \"$1\" ] && echo ready";
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let done = run(&["sh", "-c", only_here, "sh", &host]);
    assert_eq!(done.code(), Some(125), "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    let names = measured(&report, "startup", "to_exit");
    assert_eq!(names, [("process".to_owned(), 4)], "{report}");
    assert_eq!(report["comparisons"].as_array().unwrap().len(), 0);
    let failure = &report["failures"][0];
    assert_eq!((&failure["subject"], &failure["round"]), (&"container".into(), &0.into()));
    assert!(done.stderr.contains("startup of container failed"), "{}", done.stderr);
}

#[test]
fn the_memory_of_many_is_counted() {
    let sandbox = Sandbox::with_busybox();
    let words = ["bench", "density", "--instances", "10", "--runs", "1", "--format", "json"];
    let report = sandbox.isolab(&words).args(&LEVELS).finish().success();
    let report: Value = serde_json::from_str(&report).unwrap();
    let names = ["process", "container"].map(|name| (name.to_owned(), 1));
    for metric in ["start_1st", "start_10th", "memory_each", "instances_per_gib"] {
        assert_eq!(measured(&report, "density", metric), names, "{metric} in {report}");
    }
    assert_eq!(sandbox.instances(), [""; 0], "nothing is left");
}

#[test]
fn times_and_operations_are_bounded() {
    let sandbox = Sandbox::empty();
    let run = |words: &[&str]| sandbox.isolab(&[&["bench"], words].concat()).finish();
    run(&["cpu", "--time", "5"]).fails_with(2, &["--time", "90s"]);
    run(&["cpu", "--time", "9m", "--runs", "5"]).fails_with(2, &["cannot be used with"]);
    run(&["cpu", "--operations", "0"]).fails_with(2, &["--operations"]);
    run(&["cpu", "--resume"]).fails_with(2, &["--out"]);
    run(&["compare", "/no/a", "/no/b"]).fails_with(125, &["cannot read /no/a"]);
    run(&["compare", "/etc/passwd", "/etc/passwd"]).fails_with(125, &["no report"]);
}

/// Debian's cloud kernel, which paravirt prefers to the stock one, has no driver for fullvirt's network card.
#[test]
fn levels_are_compared_by_a_kernel_that_all_of_them_can_run() {
    let sandbox = Sandbox::with_busybox();
    let cache = tempfile::tempdir().unwrap();
    for kernel in ["cloud", "stock"] {
        let folder = cache.path().join("isolab/kernels").join(kernel);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("vmlinuz"), "").unwrap();
        fs::write(folder.join("version"), format!("6.1-of-{kernel}\n")).unwrap();
    }
    // What is asked is the choice: no guest is to start, whatever this host has.
    let without_kvm = "[ ! -e /dev/kvm ] || mount --bind /dev/null /dev/kvm; exec \"$0\" \"$@\"";
    for (levels, expected) in [("paravirt", "cloud"), ("paravirt,fullvirt", "stock")] {
        let mut run = Command::new("unshare");
        run.args(["--mount", "sh", "-c", without_kvm]).arg(isolab_path());
        run.args(["bench", "startup", "--no-network", "--runs", "1", "--isolation", levels]);
        run.env("XDG_DATA_HOME", sandbox.data()).env("XDG_CACHE_HOME", cache.path());
        let done = Run::new(run).finish();
        let head = format!("guest kernel  {expected} (6.1-of-{expected})\n");
        assert!(done.stdout.contains(&head), "{levels}: {done:?}");
    }
}
