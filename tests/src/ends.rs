//! How the end of a workload is told that does not end by itself.

use std::thread;
use std::time::Duration;

use crate::guests::tiny_kernel;
use crate::lifecycle::{Bench, until};

/// A workload that wants more memory than there is.
pub fn out_of_memory(level: &str) {
    let bench = Bench::new(level);
    // A process of it, and the workload itself.
    for (script, code) in [("tail /dev/zero; exit 3", "3"), ("exec tail /dev/zero", "137")] {
        bench.start(&["--name", "greedy", "--memory", "96M"], script);
        assert_eq!(bench.isolab(&["wait", "greedy"]).success().trim_end(), code, "{script}");
        assert_eq!(bench.field("greedy", "{{.State.OOMKilled}}"), "true", "{script}");
        bench.isolab(&["rm", "greedy"]).success();
    }
    bench.start(&["--name", "modest", "--memory", "96M"], "sleep 1000");
    bench.isolab(&["kill", "modest"]).success();
    assert_eq!(bench.isolab(&["wait", "modest"]).success(), "137\n");
    assert_eq!(bench.field("modest", "{{.State.OOMKilled}}"), "false");
    bench.isolab(&["rm", "modest"]).success();
}

/// Overwrites init's program with zeros, which kills it as soon as it runs again.
const KILL_INIT: &str = "\
    range=$(grep -m 1 r-xp /proc/1/maps); from=$((0x${range%%-*} / 4096)); \
    dd if=/dev/zero of=/proc/1/mem bs=4096 seek=$from count=64 conv=notrunc; sleep 1000";

/// Prints "stuck" on COM1, and does nothing any more.
fn kernel_that_is_stuck() -> Vec<u8> {
    let mut code = vec![0xba, 0xf8, 0x03, 0, 0]; // mov edx, COM1
    code.extend(b"stuck\n".iter().flat_map(|letter| [0xb0, *letter, 0xee])); // mov al, it; out dx, al
    code.extend([0xfa, 0xf4, 0xeb, 0xfd]); // cli; hlt; and again
    code
}

/// A guest whose kernel gives up, or never comes to its init: what is said of it in the foreground and of an
/// instance.
pub fn guests_that_fail(level: &str) {
    let bench = Bench::new(level);
    let begin = ["run", "--isolation", level];
    let died = bench.isolab(&[&begin[..], &["busybox", "sh", "-c", KILL_INIT]].concat());
    let words = ["guest's kernel panicked: Attempted to kill init!", "end of the guest's console:"];
    died.fails_with(125, &words);
    bench.start(
        &["--name", "panic", "--kernel", "stock"],
        "sleep 1; echo c >/proc/sysrq-trigger; sleep 1000",
    );
    assert_eq!(bench.isolab(&["wait", "panic"]).success(), "125\n");
    let error = bench.field("panic", "{{.State.Error}}");
    assert_eq!(error, "the guest's kernel panicked: sysrq triggered crash");
    let console = bench.field("panic", "{{.State.GuestConsole}}");
    assert!(console.contains("Kernel panic - not syncing: sysrq triggered crash"), "{console}");
    // What it is of a run is not of the next.
    bench.isolab(&["start", "panic"]).success();
    assert_eq!(bench.field("panic", "{{.State.Error}}{{.State.GuestConsole}}"), "");
    bench.isolab(&["rm", "--force", "panic"]).success();
    let folder = tempfile::tempdir().unwrap();
    let kernel = tiny_kernel(folder.path(), &kernel_that_is_stuck(), false);
    let kernel = ["--kernel", kernel.to_str().unwrap(), "--start-timeout", "3"];
    for way in [&["--rm"][..], &["-d", "--name", "stuck"]] {
        let words = [&begin[..], &kernel, way, &["busybox", "true"]].concat();
        let words_of_it = ["guest has not come up within 3 seconds", "console:", "stuck"];
        bench.isolab(&words).fails_with(125, &words_of_it);
    }
    assert_eq!(bench.names(&["-a"]), [""; 0]);
}

/// Has far more to do than there are CPUs, for a while; then it stops all processes of the guest, init as well: with the
/// freezer of its cgroup, as no signal does that.
const BUSY_THEN_HUNG: &str = "\
    echo begun; for i in $(seq 32); do (while :; do :; done) & done; sleep 10; \
    echo alive; sleep 2; cd /sys/fs/cgroup && mkdir still && echo 1 >still/cgroup.procs && \
    echo 1 >still/cgroup.freeze; sleep 1000";

/// A guest that hangs is given up. One that is only busy, or that stands still because it was told to, is not.
pub fn a_guest_that_hangs(level: &str) {
    let bench = Bench::new(level);
    bench.start(&["--name", "hung", "--hang-timeout", "4"], BUSY_THEN_HUNG);
    until("it runs", || bench.isolab(&["logs", "hung"]).stdout == "begun\n");
    bench.isolab(&["pause", "hung"]).success();
    // Longer than it may hang.
    thread::sleep(Duration::from_secs(6));
    bench.isolab(&["unpause", "hung"]).success();
    assert_eq!(bench.isolab(&["exec", "hung", "echo", "well"]).success(), "well\n");
    assert_eq!(bench.isolab(&["wait", "hung"]).success(), "125\n");
    assert_eq!(bench.isolab(&["logs", "hung"]).stdout, "begun\nalive\n");
    let error = bench.field("hung", "{{.State.Status}}: {{.State.Error}}");
    assert_eq!(error, "exited: the guest hangs: it has not answered for 4 seconds");
    bench.isolab(&["rm", "hung"]).success();
}

/// What has no guest waits for none.
pub fn no_guest(level: &str) {
    let bench = Bench::new(level);
    for option in ["--start-timeout", "--hang-timeout"] {
        let words = ["run", "--isolation", level, option, "9", "busybox", "true"];
        bench.isolab(&words).fails_with(125, &["cannot wait for a guest"]);
    }
}
