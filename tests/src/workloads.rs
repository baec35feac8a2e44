//! What must be the same at every level of isolation.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::Sandbox;

/// Output on both streams, arguments with spaces, and the exit code.
pub fn output_and_exit_code(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let done =
        sandbox.run(level, &["sh", "-c", "echo \"out $1\"; echo err >&2; exit 7", "sh", "a  b"]);
    assert_eq!(done.code(), Some(7), "{done:?}");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("out a  b\n", "err\n"));
}

/// The environment, working directory, user and host name of the workload.
pub fn environment(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let run = |options: &[&str], command: &[&str]| {
        let options = [&["run", "--isolation", level], options, &["busybox"], command].concat();
        sandbox.isolab(&options).env("PASSED_ON", "ours").finish().success()
    };
    let mut env: Vec<String> =
        run(&["-e", "A=1 2", "-e", "PASSED_ON", "--hostname", "box"], &["env"])
            .lines()
            .map(str::to_owned)
            .collect();
    env.sort();
    let expected = [
        "A=1 2",
        "HOME=/root",
        "HOSTNAME=box",
        "PASSED_ON=ours",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    assert_eq!(env, expected);
    assert_eq!(run(&["-w", "/var/new"], &["pwd"]), "/var/new\n");
    assert_eq!(run(&["-u", "nobody"], &["sh", "-c", "id -u; id -g"]), "65534\n65534\n");
    assert_eq!(run(&["-u", "1234:99"], &["sh", "-c", "id -u; id -g"]), "1234\n99\n");
    for (user, groups) in [("0", "0"), ("1234:99", "99"), ("1234", "0")] {
        let seen = run(&["-u", user], &["grep", "^Groups", "/proc/self/status"]);
        assert_eq!(seen.split_whitespace().nth(1), Some(groups), "{user}: {seen}");
    }
    for user in ["4294967295", "1000:4294967295"] {
        let words = ["run", "--isolation", level, "-u", user, "busybox", "id"];
        sandbox.isolab(&words).finish().fails_with(125, &[user, "4294967295"]);
    }
    if level != "process" {
        assert_eq!(run(&["--hostname", "box"], &["hostname"]), "box\n");
    }
}

/// 127 for a command that does not exist, 126 for one that cannot be executed.
pub fn commands_that_do_not_start(level: &str) {
    let sandbox = Sandbox::with_busybox();
    sandbox.run(level, &["no-such-command"]).fails_with(127, &["no-such-command"]);
    sandbox.run(level, &["/no/such/command"]).fails_with(127, &["/no/such/command"]);
    sandbox.run(level, &["/etc/passwd"]).fails_with(126, &["/etc/passwd"]);
    sandbox.run(level, &["/etc"]).fails_with(126, &["/etc"]);
}

/// Standard input arrives whole, more of it than any buffer on the way holds, and ends.
pub fn standard_input(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let line = "0123456789abcdef".repeat(4) + "\n";
    let input = line.repeat(300);
    let done = sandbox
        .isolab(&["run", "-i", "--isolation", level, "busybox", "cat"])
        .finish_with_input(input.as_bytes());
    assert_eq!(done.stdout.len(), input.len(), "{}", done.stderr);
    assert_eq!(done.success(), input);
    // Without -i there is none.
    let done = sandbox
        .isolab(&["run", "--isolation", level, "busybox", "cat"])
        .finish_with_input(b"not for you");
    assert_eq!(done.success(), "");
}

/// Who writes to standard output when nobody reads it any more is told so, by SIGPIPE as ever; and
/// half a line comes before the workload waits for an answer to it.
pub fn output_that_nobody_reads(level: &str) {
    let sandbox = Sandbox::with_busybox();
    // Not as PID 1 of a container, which a signal does not kill unless it asks for that.
    let script = "printf question; read answer; (yes $answer); exit $?";
    let run = sandbox.isolab(&["run", "-i", "--isolation", level, "busybox", "sh", "-c", script]);
    let mut running = run.start(Stdio::piped());
    running.wait_for("question");
    running.feed(b"answer\n");
    running.wait_for("answer\nanswer\n");
    let done = running.stop_reading().finish();
    assert_eq!(done.code(), Some(128 + Signal::SIGPIPE as i32), "{done:?}");
}

/// A signal to `isolab run` reaches the workload; one that kills it gives 128 and its number.
pub fn signals(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let script = "trap 'echo got it; exit 42' TERM; echo ready; while :; do sleep 0.1; done";
    let run = sandbox.isolab(&["run", "--isolation", level, "busybox", "sh", "-c", script]);
    let mut running = run.start(Stdio::null());
    running.wait_for("ready");
    running.signal(Signal::SIGTERM);
    let done = running.finish();
    assert_eq!(done.code(), Some(42), "{done:?}");
    assert!(done.stdout.ends_with("got it\n"), "{done:?}");

    let done = sandbox.run(level, &["sh", "-c", "sh -c 'kill -KILL $$'; echo $?; exit 3"]);
    assert_eq!((done.code(), done.stdout.as_str()), (Some(3), "137\n"), "{done:?}");
}

/// Every signal that is not for a process itself goes to the workload, and none ends `isolab run`.
pub fn further_signals(level: &str) {
    const NAMES: [&str; 12] = [
        "USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO", "PWR", "WINCH", "TSTP", "CONT", "XCPU",
        "XFSZ",
    ];
    let sandbox = Sandbox::with_busybox();
    // 37: SIGRTMIN+3, by which systemd is told to power off.
    let script = format!(
        "for name in {} 37; do trap \"echo got $name.\" $name; done; trap 'exit 42' TERM
         echo ready; while :; do sleep 0.1; done",
        NAMES.join(" ")
    );
    let run = sandbox.isolab(&["run", "--isolation", level, "busybox", "sh", "-c", &script]);
    let mut running = run.start(Stdio::null());
    running.wait_for("ready");
    for name in NAMES {
        running.signal(format!("SIG{name}").parse().expect("it is a signal"));
        running.wait_for(&format!("got {name}."));
    }
    running.signal_number(37);
    running.wait_for("got 37.");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.finish().code(), Some(42));
}

/// A name is one instance's at a time, is no path, and is not too long to be a host name's origin.
pub fn names(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let run = |name: &str, command: &[&str]| {
        let words = ["run", "-i", "--isolation", level, "--name", name, "busybox"];
        sandbox.isolab(&[&words, command].concat())
    };
    let mut first =
        run("twin", &["sh", "-c", "echo here; read line; echo $line"]).start(Stdio::piped());
    first.wait_for("here");
    run("twin", &["true"]).finish().fails_with(125, &["name `twin` is a running instance's"]);
    first.feed(b"still here\n");
    assert_eq!(first.finish().success(), "here\nstill here\n");
    let long = "n".repeat(100);
    assert_eq!(
        run(&long, &["sh", "-c", "echo $HOSTNAME"]).finish().success(),
        "n".repeat(64) + "\n"
    );
    run("twin", &["true"]).finish().success();
    run("../../evil", &["true"]).finish().fails_with(125, &["../../evil"]);
    assert_eq!(sandbox.instances(), [""; 0]);
}

/// `localhost` and the own name have an address, and the image's files do not say otherwise.
pub fn name_files(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let script = "cat /etc/hostname /etc/hosts; echo >>/etc/hosts && echo writable";
    let words = ["run", "--isolation", level, "--hostname", "box", "busybox", "sh", "-c", script];
    let output = sandbox.isolab(&words).finish().success();
    assert!(output.ends_with("writable\n"), "{output}");
    if level != "process" {
        let hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\tbox\n";
        assert_eq!(output, format!("box\n{hosts}writable\n"));
    }
}

/// What the workload writes is gone at the next run, and a background process does not keep the
/// run from ending.
pub fn a_fresh_root_each_time(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let script = "sleep 1000 & echo x > /var/mark; ls /var";
    let done = sandbox.run(level, &["sh", "-c", script]);
    if level != "process" {
        assert_eq!(done.success(), "mark\n");
    }
    assert_eq!(sandbox.run(level, &["ls", "/var"]).success(), "");
}

/// The image's files, with their owners, modes and links, as a listing from inside.
pub fn file_listing(level: &str) -> String {
    let sandbox = Sandbox::with_busybox();
    // Without the files that are the instance's own.
    let script =
        "cd /; find bin etc root tmp usr var | sort | grep -v -e ^etc/host -e ^etc/resolv |
                  xargs stat -c '%A %u:%g %N'";
    sandbox.run(level, &["sh", "-c", script]).success()
}

/// Capabilities, resource limits and the like, as the kernel tells them of the workload.
pub fn rights_and_limits(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let run = |options: &[&str], script: &str| {
        let words = ["run", "--isolation", level];
        let words = [&words, options, &["busybox", "sh", "-c", script]].concat();
        sandbox.isolab(&words).finish().success()
    };
    let options = [
        "--ulimit",
        "nofile=100:200",
        "--umask",
        "0027",
        "--oom-score-adj",
        "300",
        "--group-add",
        "7",
        "--security-opt",
        "no-new-privileges",
        "--cap-drop",
        "NET_RAW",
    ];
    let script = "ulimit -n; ulimit -Hn; umask; cat /proc/self/oom_score_adj; id -G; \
                  grep ^NoNewPrivs /proc/self/status; grep ^CapBnd /proc/self/status";
    let seen = run(&options, script);
    let (lines, capabilities) = seen.trim_end().rsplit_once('\n').expect("several lines");
    assert_eq!(lines, "100\n200\n0027\n300\n0 7\nNoNewPrivs:\t1", "{level}");
    let bounding = capabilities.trim_start_matches("CapBnd:").trim();
    let bounding = u64::from_str_radix(bounding, 16).expect("hexadecimal digits");
    // capability.h: CAP_NET_RAW is 13, CAP_CHOWN 0.
    assert_eq!((bounding >> 13 & 1, bounding & 1), (0, 1), "{level}: {seen}");
    // What a user other than root is given by name, it keeps.
    let seen = run(&["-u", "1000", "--cap-add", "NET_RAW"], "grep ^CapEff /proc/self/status");
    assert!(seen.trim_end().ends_with("0000000000002000"), "{level}: {seen}");
    if level == "process" {
        return;
    }
    let options = ["--shm-size", "1M", "--sysctl", "kernel.shmmax=12345"];
    let script = "df -k /dev/shm | tail -1 | awk '{print $2}'; cat /proc/sys/kernel/shmmax";
    assert_eq!(run(&options, script), "1024\n12345\n", "{level}");
}
