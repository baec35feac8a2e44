//! The virtual machines: needs a host with a working KVM, see `scripts/kvm-host`.

mod boot;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use isolab_tests::devices::{text, tool};
use isolab_tests::guests::{Initramfs, QUIET, boot, boot_slim, tiny_kernel};
use isolab_tests::{Sandbox, TIME_LIMIT, cached, carried, controlled, dropped, piped, workloads};
use nix::sys::signal::Signal;

const LEVELS: [&str; 2] = ["paravirt", "fullvirt"];

#[test]
fn output_and_exit_code() {
    LEVELS.into_iter().for_each(workloads::output_and_exit_code);
}

#[test]
fn environment() {
    workloads::environment("paravirt");
}

#[test]
fn commands_that_do_not_start() {
    workloads::commands_that_do_not_start("paravirt");
}

#[test]
fn standard_input() {
    workloads::standard_input("paravirt");
}

#[test]
fn output_that_nobody_reads() {
    LEVELS.into_iter().for_each(workloads::output_that_nobody_reads);
}

#[test]
fn signals() {
    LEVELS.into_iter().for_each(workloads::signals);
}

#[test]
fn signals_names_and_the_files_of_names() {
    workloads::further_signals("paravirt");
    workloads::rights_and_limits("paravirt");
    workloads::names("paravirt");
    LEVELS.into_iter().for_each(workloads::name_files);
}

#[test]
fn what_runs_is_controlled_alike() {
    for level in LEVELS {
        controlled::is_the_same(level, "controlled_alone");
        carried::whole(level, "carried_alone");
    }
}

#[test]
#[ignore = "run by what_runs_is_controlled_alike, in a process of its own"]
fn controlled_alone() {
    controlled::alone();
}

#[test]
#[ignore = "run by what_runs_is_controlled_alike, in a process of its own"]
fn carried_alone() {
    carried::alone();
}

#[test]
fn what_goes_through_a_pipe_of_exec_comes_whole() {
    piped::through_exec("paravirt", piped::mebibytes(64));
    piped::through_exec("fullvirt", piped::mebibytes(16));
}

#[test]
fn a_dropped_instance_leaves_nothing() {
    for level in LEVELS {
        dropped::leaves_nothing(level, "dropped_alone");
    }
}

#[test]
#[ignore = "run by a_dropped_instance_leaves_nothing, in a process of its own"]
fn dropped_alone() {
    dropped::alone();
}

#[test]
fn what_a_killed_monitor_left_is_swept() {
    let sandbox = Sandbox::with_busybox();
    let words = ["run", "--isolation", "paravirt", "--name", "killed", "busybox", "sh", "-c"];
    let mut running = sandbox.isolab(&words).arg("echo ready; sleep 1000").start(Stdio::null());
    running.wait_for("ready");
    running.signal(Signal::SIGKILL);
    running.finish();
    let folder = sandbox.data().join("isolab/instances/killed");
    let deadline = Instant::now() + TIME_LIMIT;
    // A helper that frees the machine's memory may still be at it.
    while folder.exists() {
        assert!(Instant::now() < deadline);
        let removed = sandbox.isolab(&["system", "prune"]).finish().success();
        assert!(removed.is_empty() || removed.starts_with("killed (paravirt"), "{removed}");
    }
}

#[test]
fn a_guest_starts_from_its_image_each_time() {
    workloads::a_fresh_root_each_time("paravirt");
}

#[test]
fn a_guest_sees_the_same_files_as_a_container() {
    let container = workloads::file_listing("container");
    LEVELS.into_iter().for_each(|level| assert_eq!(workloads::file_listing(level), container));
}

#[test]
fn a_guest_reaches_the_host_by_its_network() {
    let sandbox = Sandbox::with_busybox();
    let script = "ping -c 1 -W 5 10.78.0.1 >/dev/null && echo reached; ip route
                  basename $(readlink /sys/class/net/eth0/device/driver)";
    tool("ip", &["tuntap", "add", "run0", "mode", "tap"]);
    tool("ip", &["address", "add", "10.78.0.1/24", "dev", "run0"]);
    tool("ip", &["link", "set", "run0", "up"]);
    for (level, driver) in [("paravirt", "virtio_net"), ("fullvirt", "e1000")] {
        let network = "tap=run0,ip=10.78.0.2/24,gateway=10.78.0.1";
        let options = ["run", "--isolation", level, "--network", network];
        let output = sandbox.isolab(&options).args(&["busybox", "sh", "-c", script]).finish();
        let output = output.success();
        for line in ["reached", "default via 10.78.0.1 dev eth0", driver] {
            assert!(output.lines().any(|l| l.trim_end() == line), "{level}: no {line} in {output}");
        }
    }
    tool("ip", &["link", "delete", "run0"]);
    let options = ["run", "--isolation", "container", "--network", "tap=run0,ip=10.78.0.2/24"];
    sandbox.isolab(&options).args(&["busybox", "true"]).finish().fails_with(125, &["paravirt"]);
}

fn release_of(kernel: &str) -> String {
    fs::read_to_string(cached(&format!("kernels/{kernel}/version")))
        .expect("scripts/fetch-kernel and build-kernel write it")
}

#[test]
fn each_level_runs_the_kernel_it_should() {
    let sandbox = Sandbox::with_busybox();
    let run = |level: &str, environment: &str, options: &[&str]| {
        let words = [&["run", "--isolation", level], options, &["busybox", "uname", "-r"]].concat();
        sandbox.isolab(&words).env("ISOLAB_KERNEL", environment).finish()
    };
    let host = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned() + "\n";
    for (level, release) in [
        ("process", host.clone()),
        ("container", host),
        ("paravirt", release_of("slim")),
        ("fullvirt", release_of("stock")),
    ] {
        assert_eq!(run(level, "", &[]).success(), release, "{level}");
        let is_guest = level.ends_with("virt");
        let expected = if is_guest { release_of("slim") } else { release.clone() };
        // An option has more say than the environment.
        assert_eq!(run(level, "slim", &[]).success(), expected, "{level}");
        assert_eq!(run(level, "nosuch", &["--kernel", "slim"]).success(), expected, "{level}");
        match is_guest {
            true => run(level, "nosuch", &[]).fails_with(125, &["no guest kernel `nosuch`"]),
            false => assert_eq!(run(level, "nosuch", &[]).success(), release, "{level}"),
        }
    }
}

#[test]
fn only_the_paravirtual_guest_knows_what_it_is() {
    let sandbox = Sandbox::with_busybox();
    let script = "grep -c ' hypervisor' /proc/cpuinfo; \
                  cat /sys/devices/system/clocksource/clocksource0/available_clocksource \
                      /proc/sys/kernel/random/entropy_avail";
    let run = |level| {
        let words =
            ["run", "--isolation", level, "--kernel", "slim", "busybox", "sh", "-c", script];
        sandbox.isolab(&words).finish().stdout
    };
    let paravirt = run("paravirt");
    assert!(paravirt.starts_with("1\n") && paravirt.contains("kvm-clock"), "{paravirt}");
    let fullvirt = run("fullvirt");
    assert!(fullvirt.starts_with("0\n") && !fullvirt.contains("kvm-clock"), "{fullvirt}");
    // Jiffies alone would keep the tick of an idle guest going.
    assert!(fullvirt.contains("acpi_pm") && !paravirt.contains("acpi_pm"), "{fullvirt}");
    // Less than 256 bits, and getrandom() waits.
    for guest in [paravirt, fullvirt] {
        assert_eq!(guest.lines().last(), Some("256"), "{guest}");
    }
}

#[test]
fn limits_become_processors_and_ram() {
    let sandbox = Sandbox::with_busybox();
    let script = "nproc; grep MemTotal /proc/meminfo";
    let options = ["run", "--isolation", "paravirt", "--cpus", "2", "--memory", "256M"];
    let words = [&options[..], &["busybox", "sh", "-c", script]].concat();
    let output = sandbox.isolab(&words).finish().success();
    let kib: u64 = output.split_whitespace().nth(2).and_then(|word| word.parse().ok()).unwrap();
    assert!(output.starts_with("2\n"), "{output}");
    assert!((192 << 10..256 << 10).contains(&kib), "{output}");
}

#[test]
fn the_stock_kernel_comes_up_and_powers_off_or_reboots() {
    for kernel in ["kernels/stock/vmlinuz", "kernels/slim/vmlinux", "kernels/slim/bzImage"] {
        for end in ["poweroff -f", "reboot -f"] {
            let init = Initramfs::with_script(&format!("echo isolab reached init; {end}"));
            let (run, _dir) = boot(&cached(kernel), init, &["--cmdline", QUIET]);
            let output = run.finish().success();
            assert!(output.contains("isolab reached init"), "{kernel}, {end}: {output}");
        }
    }
}

#[test]
fn the_console_works_in_both_directions_and_ctrl_a_x_quits() {
    let script = "echo listening; read line; echo \"got $line\"; read line; echo never";
    let (run, _dir) = boot_slim(script, &[]);
    // Not a terminal: Ctrl-a x is then ordinary input, and a signal is what quits.
    let mut running = run.start(Stdio::piped());
    // What is sent before anybody has opened the line is lost, as on a real one.
    running.wait_for("listening");
    running.feed(b"hello\n");
    running.wait_for("got hello");
    running.signal(Signal::SIGINT);
    let done = running.finish();
    assert_eq!(done.code(), Some(137), "{done:?}");
    assert!(!done.stdout.contains("never"));
}

#[test]
fn several_processors_come_up() {
    let script = "echo cpus $(grep -c ^processor /proc/cpuinfo); poweroff -f";
    let (run, _dir) = boot_slim(script, &["--cpus", "4"]);
    let output = run.finish().success();
    assert!(output.contains("cpus 4"), "{output}");
}

#[test]
fn statistics_count_exits_by_reason_and_device() {
    let (run, _dir) = boot_slim("echo up; poweroff -f", &["--stats"]);
    let done = run.finish();
    assert!(done.status.success(), "{done:?}");
    assert!(done.stderr.contains("com1") && done.stderr.contains("port write"), "{done:?}");
}

#[test]
fn a_guest_that_ends_early_shows_its_console() {
    let sandbox = Sandbox::with_busybox();
    let words = ["run", "--isolation", "paravirt", "--memory", "32M", "busybox", "true"];
    let done = sandbox.isolab(&words).finish();
    // Not enough for the kernel and the image: a clear end, whichever of the two says so.
    assert_eq!(done.code(), Some(125), "{done:?}");
    assert!(done.stderr.contains("console") || done.stderr.contains("memory"), "{done:?}");
}

#[test]
fn the_benchmark_reports_all_four_levels_in_the_promised_shape() {
    let sandbox = Sandbox::with_busybox();
    // Of the stock kernel's starts, which take fifteen times as long, the probes below have some.
    let words = ["bench", "startup", "--kernel", "slim", "--runs", "2", "--format", "json"];
    let report = sandbox.isolab(&words).finish().success();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report["host"]["cpu"].is_string());
    let results = report["results"].as_array().unwrap();
    for level in ["process", "container", "paravirt", "fullvirt"] {
        for metric in ["to_first_output", "to_exit", "to_gone", "setup", "workload"] {
            let found = results.iter().find(|r| r["subject"] == level && r["metric"] == metric);
            let found = found.unwrap_or_else(|| panic!("no {metric} of {level}"));
            assert_eq!(found["samples"].as_array().unwrap().len(), 2);
            assert!(found["median"].as_f64().unwrap() > 0.0, "{found}");
            assert_eq!(found["unit"], "ms");
        }
    }
    let init =
        |level| results.iter().any(|r| r["subject"] == level && r["metric"] == "to_guest_init");
    assert!(init("paravirt") && init("fullvirt") && !init("container"));
}

/// The probe is one static file: it runs wherever there is a kernel.
#[test]
fn the_probe_runs_at_all_four_levels() {
    let slim = ["--kernel", "slim"];
    for (kind, control, kernel) in [("cpu", "compute", &[][..]), ("memory", "load_16k", &slim)] {
        let words = ["bench", kind, "--runs", "1", "--operations", "1", "--format", "json"];
        let report = Sandbox::empty().isolab(&words).args(kernel).finish().success();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        for level in ["process", "container", "paravirt", "fullvirt"] {
            assert!(figure(&report, level, control) > 0.0);
        }
        if kernel.is_empty() {
            assert!(figure(&report, "fullvirt-stock", control) > 0.0);
        }
        // One sample is no comparison.
        let compared = report["comparisons"].as_array().unwrap();
        assert!(compared.len() > 20 && compared.iter().all(|it| it["ratio"].is_null()), "{report}");
    }
}

#[test]
fn the_bare_machine_is_measured_beside_its_peers() {
    let words = ["bench", "all", "--peers", "qemu,kvmtool", "--isolation", "process"];
    let little = ["--quick", "--runs", "1", "--operations", "1", "--without", "density,tiers"];
    let sandbox = Sandbox::with_busybox();
    let out = sandbox.data().join("results");
    let bench = sandbox.isolab(&words).args(&little).args(&["--format", "json", "--out"]);
    let report = bench.arg(&out).finish().success();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let results = report["results"].as_array().unwrap();
    for subject in ["vmm", "qemu-microvm"] {
        for (metric, unit) in [
            ("to_guest_init", "ms"),
            ("to_exit", "ms"),
            ("to_gone", "ms"),
            ("memory_at_init", "KiB"),
            ("private_dirty_at_init", "KiB"),
            ("memory_overhead", "KiB"),
            ("private_dirty_overhead", "KiB"),
            ("exits", "count"),
        ] {
            let found = results.iter().find(|r| r["subject"] == subject && r["metric"] == metric);
            let found = found.unwrap_or_else(|| panic!("no {metric} of {subject} in {report}"));
            assert!(found["median"].as_f64().unwrap() > 0.0, "{found}");
            assert_eq!(found["unit"], unit);
        }
    }
    for (subject, job) in [("vmm-virtio", "randread_4k_qd1"), ("qemu-q35", "write_fsync_4k")] {
        assert!(figure(&report, subject, &format!("{job}_throughput")) > 0.0);
    }
    for (subject, job) in [("vmm-e1000", "tcp_send"), ("qemu-pc-e1000", "request")] {
        assert!(figure(&report, subject, &format!("{job}_throughput")) > 0.0);
    }
    let text = fs::read_to_string(out.join("report.txt")).unwrap();
    for benchmark in ["machines", "disk_machines", "net_machines"] {
        assert_eq!(text.matches(&format!("\n{benchmark}: medians")).count(), 1, "{text}");
    }
    // The levels' own table has no peers in it.
    let header = text.lines().find(|line| line.starts_with("| in short")).unwrap();
    assert_eq!(
        header.split_whitespace().collect::<Vec<_>>().join(" "),
        "| in short | unit | process |"
    );
    // What is not installed is said, not silently skipped.
    let is_told = |note: &serde_json::Value| note.as_str().unwrap().contains("kvmtool");
    assert!(report["notes"].as_array().unwrap().iter().any(is_told), "{report}");
}

/// Under Kata's name, which needs a guest image of its own: the shim that containerd has for runc, by the same protocol.
#[test]
fn a_container_of_containerd_s_is_measured_beside_ours() {
    let folder = tempfile::tempdir().unwrap();
    let path = std::env::var("PATH").unwrap();
    let mut shims = std::env::split_paths(&path).map(|it| it.join("containerd-shim-runc-v2"));
    let shim = shims.find(|it| it.exists()).unwrap();
    std::os::unix::fs::symlink(shim, folder.path().join("containerd-shim-kata-v2")).unwrap();
    let with_kata = format!("{}:{path}", text(folder.path()));
    let words = ["bench", "startup", "--peers", "kata", "--kernel", "slim", "--runs", "1"];
    let sandbox = Sandbox::empty();
    let bench = |path: &str| {
        let report = sandbox.isolab(&words).args(&["--format", "json"]).env("PATH", path);
        serde_json::from_str::<serde_json::Value>(&report.finish().success()).unwrap()
    };
    let report = bench(&with_kata);
    for subject in ["isolab run (paravirt)", "ctr run (kata)"] {
        for metric in ["to_first_output", "to_exit", "to_gone", "cpu_time", "context_switches"] {
            assert!(figure(&report, subject, metric) > 0.0);
        }
    }
    // It has the host's kernel.
    let compared = report["comparisons"].as_array().unwrap();
    assert!(compared.len() >= 5 && compared.iter().all(|it| it["ratio"].is_null()), "{report}");
    let faults = compared[0]["faults"].as_array().unwrap();
    let other = faults.iter().find(|it| it["kind"] == "not_the_same_work").unwrap();
    let why = other["text"].as_str().unwrap();
    assert!(why.starts_with("another guest kernel, Linux version"), "{why}");
    assert!(!Path::new("/sys/fs/cgroup/default").exists());
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains("isolab-bench") && !mounts.contains("/snapshots/"), "{mounts}");

    let report = bench(&path);
    let absent = "kata is left out: no containerd-shim-kata-v2 on PATH";
    assert!(report["notes"].as_array().unwrap().iter().any(|it| it == absent), "{report}");
}

/// A figure of `report`, which must be there.
#[track_caller]
fn figure(report: &serde_json::Value, subject: &str, metric: &str) -> f64 {
    let results = report["results"].as_array().expect("a list");
    let found = results.iter().find(|r| r["subject"] == subject && r["metric"] == metric);
    found.unwrap_or_else(|| panic!("no {metric} of {subject} in {report}"))["median"]
        .as_f64()
        .expect("a number")
}

/// What is asserted is what so many pieces of work cost, however long they take.
#[test]
fn disks_and_networks_are_measured_beside_qemus() {
    let out = tempfile::tempdir().unwrap();
    let bench = |words: &[&str], subjects: &[&str], jobs: &[&str]| {
        let words = [&["bench"], words, &["--peers", "qemu", "--runs", "1"]].concat();
        let run = Sandbox::empty().isolab(&words).args(&["--only", &subjects.join(",")]);
        let run = run.args(&["--jobs", &jobs.join(",")]).arg("--out").arg(out.path());
        let table = run.finish().success();
        let report = fs::read_to_string(out.path().join(format!("{}.json", words[1]))).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        for (subject, job) in subjects.iter().flat_map(|s| jobs.iter().map(move |job| (s, job))) {
            assert!(table.contains(subject) && table.contains(job), "{table}");
            let throughput = figure(&report, subject, &format!("{job}_throughput"));
            assert!(throughput > 0.0, "{subject}, {job}: {throughput}");
            for quantity in ["exits", "exits_port", "exits_mmio", "exits_halt", "interrupts"] {
                figure(&report, subject, &format!("{job}_{quantity}"));
            }
        }
        assert!(table.contains(&format!("{} |", subjects[1])), "a ratio to it: {table}");
        report
    };
    let subjects = ["vmm-virtio", "qemu-q35", "vmm-emulated", "qemu-microvm", "qemu-pc-ide"];
    let disk = ["disk", "--size", "8M", "--requests", "400"];
    let report = bench(&disk, &subjects, &["randread_4k_qd1"]);
    for subject in subjects {
        // One request at a time: the device is told of each, and its end is an interrupt.
        let interrupts = figure(&report, subject, "randread_4k_qd1_interrupts");
        assert!((0.9..1.2).contains(&interrupts), "{subject}: {interrupts}");
        let exits = figure(&report, subject, "randread_4k_qd1_exits");
        assert!(exits > 0.5, "{subject}: {exits}");
    }
    assert!(figure(&report, "vmm-emulated", "randread_4k_qd1_exits_port") > 10.0);
    let net = ["net", "--mebibytes", "4", "--requests", "200"];
    let report = bench(&net, &["vmm-virtio", "qemu-q35"], &["tcp_send", "request"]);
    assert!(figure(&report, "vmm-virtio", "request_exits") > 0.5);
    // The tap is gone.
    assert!(!fs::read_to_string("/proc/net/dev").unwrap().contains("bench"));
}

/// The operator has the last word over a guest that ignores signals, waits for a host that does not
/// read, or never comes up.
#[test]
fn signals_end_a_machine_whose_guest_does_not_answer_them() {
    let sandbox = Sandbox::with_busybox();
    let run = |level: &str, options: &[&str], command: &[&str]| {
        let words = [&["run", "--isolation", level], options, &["busybox"], command].concat();
        sandbox.isolab(&words)
    };
    let deaf = "trap '' INT TERM HUP QUIT; echo ready; while :; do sleep 1; done";
    for (level, signals) in [
        ("paravirt", &[Signal::SIGINT, Signal::SIGQUIT][..]),
        ("fullvirt", &[Signal::SIGHUP, Signal::SIGTERM]),
        // Its time limit.
        ("paravirt", &[Signal::SIGTERM]),
    ] {
        let mut machine = run(level, &[], &["sh", "-c", deaf]).start(Stdio::null());
        machine.wait_for("ready");
        signals.iter().for_each(|signal| machine.signal(*signal));
        let done = machine.finish();
        assert_eq!(done.code(), Some(137), "{level} {signals:?}: {done:?}");
    }

    let mut machine = run("paravirt", &[], &["yes"]).start_unread();
    machine.wait_until_full();
    machine.signal(Signal::SIGTERM);
    machine.signal(Signal::SIGTERM);
    assert_eq!(machine.finish(), Some(137));

    // cli; hlt; and again, if anything should wake it.
    let dir = tempfile::tempdir().unwrap();
    let silent = tiny_kernel(dir.path(), &[0xfa, 0xf4, 0xeb, 0xfc], false);
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let options = ["--kernel", text(&silent)];
        let mut machine = run("paravirt", &options, &["true"]).start_unread();
        machine.wait_for_thread("vcpu0");
        machine.signal(signal);
        assert_eq!(machine.finish(), Some(code));
    }
}
