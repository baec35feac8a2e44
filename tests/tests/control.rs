//! Machines under control of other processes: needs a host with a working KVM, see
//! `scripts/kvm-host`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use isolab_tests::guests::boot_slim;
use isolab_tests::unread::Unread;
use isolab_tests::{Done, Running, Sandbox, TIME_LIMIT};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Powers off when its power button is pressed, as systemd-logind or acpid would.
const LISTENING: &str = "exec 3</dev/input/event0; echo listening; \
                         head -c 24 <&3 >/dev/null; echo button pressed; poweroff -f";
/// Writes without end.
const TICKING: &str = "while :; do echo tick; usleep 20000; done";

/// A machine with a control socket.
struct Machine {
    running: Running,
    socket: PathBuf,
    _folders: [TempDir; 2],
}

impl Machine {
    fn start(init: &str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("api");
        let (run, initrd) = boot_slim(init, &["--memory", "128M"]);
        let run = run.arg("--api-socket").arg(&socket).args(options);
        Self { running: run.start(Stdio::null()), socket, _folders: [folder, initrd] }
    }

    fn ask(&self, words: &[&str]) -> Done {
        Sandbox::empty().isolab(&["vm"]).args(words).arg(&self.socket).finish()
    }

    #[track_caller]
    fn answer(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.ask(words).success()).expect("answers are JSON")
    }

    /// The end: status 0, and no socket left behind.
    #[track_caller]
    fn ends_well(self) -> String {
        let output = self.running.finish().success();
        assert!(!self.socket.exists());
        output
    }

    /// The end of a machine whose plug was pulled.
    #[track_caller]
    fn ends_by_force(self) {
        self.running.finish().fails_with(137, &["by force"]);
        assert!(!self.socket.exists());
    }
}

#[test]
fn a_paused_machine_stands_still_until_it_is_resumed() {
    let mut machine = Machine::start(TICKING, &["--cpus", "2"]);
    machine.running.wait_for("tick");
    let mode = fs::metadata(&machine.socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let info = machine.answer(&["info"]);
    assert_eq!(info["state"], "running");
    assert_eq!((info["cpus"].as_u64(), info["memory"].as_u64()), (Some(2), Some(128 << 20)));
    assert_eq!(info["pid"], machine.running.id());

    for _ in 0..3 {
        assert_eq!(machine.answer(&["pause"])["state"], "paused");
        assert_eq!(machine.answer(&["pause"])["state"], "paused");
        // Each tick is many exits, so a vCPU that ran would be seen.
        let before = machine.answer(&["stats"]);
        let after = machine.answer(&["stats"]);
        assert!(before["exits"].as_u64().unwrap() > 0);
        assert_eq!(before, after);
        assert_eq!(machine.answer(&["resume"])["state"], "running");
        let deadline = Instant::now() + TIME_LIMIT;
        while machine.answer(&["stats"])["exits"] == before["exits"] {
            assert!(Instant::now() < deadline, "the guest does not go on");
        }
    }

    machine.answer(&["pause"]);
    let ended = machine.answer(&["kill"]);
    assert_eq!((&ended["state"], &ended["reason"]), (&"ended".into(), &"stopped".into()));
    let socket = machine.socket.clone();
    machine.ends_by_force();
    let words = ["vm", "info", socket.to_str().unwrap()];
    Sandbox::empty().isolab(&words).finish().fails_with(125, &["cannot reach", "running"]);
}

#[test]
fn stop_and_sigterm_press_the_power_button() {
    let mut machine = Machine::start(LISTENING, &[]);
    machine.running.wait_for("listening");
    // A machine that stands still has to hear it, too.
    machine.answer(&["pause"]);
    assert_eq!(machine.answer(&["stop", "--grace", "100"])["reason"], "power_off");
    assert!(machine.ends_well().contains("button pressed"));

    let mut machine = Machine::start(LISTENING, &["--grace", "100"]);
    machine.running.wait_for("listening");
    machine.running.signal(Signal::SIGTERM);
    assert!(machine.ends_well().contains("button pressed"));
}

/// Whoever asked for the end does not want another start.
#[test]
fn a_guest_that_answers_its_power_button_by_a_reboot_ends_all_the_same() {
    const REBOOTING: &str = "exec 3</dev/input/event0; echo listening; head -c 24 <&3 >/dev/null; \
                             echo button pressed; reboot -f";
    let mut machine = Machine::start(REBOOTING, &["--on-reboot", "reset", "--grace", "100"]);
    machine.running.wait_for("listening");
    machine.running.signal(Signal::SIGTERM);
    let output = machine.ends_well();
    assert_eq!(output.matches("listening").count(), 1, "{output}");
    assert!(output.contains("button pressed"), "{output}");
}

#[test]
fn a_guest_that_ignores_its_power_button_is_stopped_after_the_grace_period() {
    let mut machine = Machine::start(TICKING, &[]);
    machine.running.wait_for("tick");
    machine.ask(&["stop", "--grace", "999999"]).fails_with(2, &["999999"]);
    assert_eq!(machine.answer(&["stop", "--grace", "1"])["reason"], "stopped");
    machine.ends_by_force();

    // Another signal means it.
    let mut machine = Machine::start(TICKING, &["--grace", "86400"]);
    machine.running.wait_for("tick");
    machine.running.signal(Signal::SIGTERM);
    machine.running.signal(Signal::SIGINT);
    machine.ends_by_force();
}

#[test]
fn the_balloon_takes_and_returns_memory() {
    let mut machine = Machine::start(TICKING, &["--balloon", "0"]);
    machine.running.wait_for("tick");
    let settled = |target: u64| {
        let deadline = Instant::now() + TIME_LIMIT;
        while machine.answer(&["balloon"])["actual"] != target {
            assert!(Instant::now() < deadline, "the balloon does not reach {target}");
        }
    };
    let state = machine.answer(&["balloon", "--target", "16M"]);
    assert_eq!(state["target"], 16 << 20);
    settled(16 << 20);
    let guest = &machine.answer(&["balloon"])["guest"];
    let total = guest["total"].as_u64().unwrap();
    assert!(total < 128 << 20 && guest["free"].as_u64().unwrap() < total, "{guest}");
    machine.answer(&["balloon", "--target", "0"]);
    settled(0);
    machine.ask(&["balloon", "--target", "1G"]).fails_with(125, &["target", "RAM"]);
    let devices = &machine.answer(&["stats"])["devices"];
    assert!(devices[0]["device"].as_str().unwrap().contains("balloon"), "{devices}");
    machine.answer(&["kill"]);
    machine.ends_by_force();
}

/// Accesses of all kinds: of the bus's configuration space, of a disk, and of a serial port, for each byte.
const ACCESSES: &str = "disk=$(ls /dev/vda /dev/sda 2>/dev/null); echo counting begins; read -r go; \
                        for i in 1 2 3 4 5 6 7 8; do cat /sys/bus/pci/devices/*/config >/dev/null; done; \
                        dd if=$disk of=/dev/null bs=4096 count=100 iflag=direct 2>/dev/null; \
                        printf '%2000s' x; echo counting ends; read -r go; poweroff -f || reboot -f";

/// What we count is what KVM counts, within 2 %: exits for ports and for devices' memory, which are all that it hands on.
#[test]
fn accesses_are_as_many_as_kvm_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    fs::write(&disk, vec![0x5a; 1 << 20]).unwrap();
    for devices in ["virtio", "emulated"] {
        let socket = folder.path().join(devices);
        let options = ["--memory", "128M", "--devices", devices, "--disk", disk.to_str().unwrap()];
        let (run, _initrd) = boot_slim(ACCESSES, &options);
        let mut running = run.arg("--api-socket").arg(&socket).start(Stdio::piped());
        running.wait_for("counting begins");
        let process = running.id();
        let count = || -> [(&str, u64, u64); 2] {
            let stats = Sandbox::empty().isolab(&["vm", "stats"]).arg(&socket).finish().success();
            let stats: Value = serde_json::from_str(&stats).unwrap();
            let ours = |kind: &str| -> u64 {
                let all = stats["accesses"].as_array().unwrap().iter();
                let of = all.filter(|it| it["access"].as_str().unwrap().starts_with(kind));
                of.map(|it| it["count"].as_u64().unwrap()).sum()
            };
            let kvm = kvm_counters(process);
            [("port", ours("port"), kvm("io_exits")), ("mmio", ours("mmio"), kvm("mmio_exits"))]
        };
        let before = count();
        running.feed(b"go\n");
        running.wait_for("counting ends");
        let after = count();
        for ((name, ours, kvms), (_, ours_before, kvms_before)) in after.into_iter().zip(before) {
            let (ours, kvms) = (ours - ours_before, kvms - kvms_before);
            // A few are the console's and the clock's own.
            let apart = ours.abs_diff(kvms);
            assert!(apart * 50 <= kvms || apart <= 4, "{devices}, {name}: {ours}, KVM {kvms}");
            assert!(name != "port" || ours > 2000, "{devices}: {ours} accesses say nothing");
        }
        running.feed(b"go\n");
        assert!(running.finish().status.success());
    }
}

/// What KVM counts of the only machine of a process (Documentation/virt/kvm/api.rst, the binary statistics' names).
fn kvm_counters(process: u32) -> impl Fn(&str) -> u64 {
    let machines = fs::read_dir("/sys/kernel/debug/kvm").expect("debugfs is mounted");
    let begin = format!("{process}-");
    let mut names = machines.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let name = names.find(|name| name.starts_with(&begin)).expect("KVM knows the machine");
    move |counter| {
        let path = format!("/sys/kernel/debug/kvm/{name}/{counter}");
        let text = fs::read_to_string(path).expect("KVM counts it");
        text.trim().parse().expect("a counter is a number")
    }
}

#[test]
fn clients_of_every_kind_leave_the_machine_alone() {
    let mut machine = Machine::start(TICKING, &[]);
    machine.running.wait_for("tick");
    machine.ask(&["balloon"]).fails_with(125, &["no balloon"]);

    // The same path again, while it is in use.
    let socket = machine.socket.to_str().unwrap();
    let (second, _initrd) = boot_slim(TICKING, &["--api-socket", socket]);
    second.finish().fails_with(125, &["api-socket", "in use"]);

    let mut stream = BufReader::new(UnixStream::connect(&machine.socket).unwrap());
    let mut line = String::new();
    for request in
        [&b"\xff\0garbage\n"[..], b"{\"command\":\"format\"}\n", b"{\"command\":\"info\"}\n"]
    {
        stream.get_mut().write_all(request).unwrap();
        line.clear();
        stream.read_line(&mut line).unwrap();
        let is_info = request.ends_with(b"info\"}\n");
        assert!(line.starts_with(if is_info { "{\"ok\":" } else { "{\"error\":" }), "{line}");
    }
    // Clients that say nothing, and one that never stops.
    let idle: Vec<_> = (0..4).map(|_| UnixStream::connect(&machine.socket).unwrap()).collect();
    let mut endless = UnixStream::connect(&machine.socket).unwrap();
    while endless.write_all(&[b'['; 65536]).is_ok() {}
    assert_eq!(machine.answer(&["info"])["state"], "running");
    machine.running.wait_for("tick");
    // None of them holds up the end.
    machine.answer(&["kill"]);
    machine.ends_by_force();
    drop((idle, stream));
}

/// Prints faster than anybody could read.
const FLOODING: &str = "while :; do echo 0123456789abcdef0123456789abcdef; done";

#[derive(Debug)]
enum End {
    Signal(Signal),
    Request(&'static [&'static str]),
}

/// A host that does not read holds up nobody: the machine can be asked things, paused and ended, and
/// `kill` answers when it is so.
#[test]
fn a_machine_whose_output_nobody_reads_ends_when_it_is_told_to() {
    let ends = [
        ("/dev/ttyS0", End::Request(&["kill"])),
        ("/dev/ttyS0", End::Signal(Signal::SIGTERM)),
        ("/dev/ttyS0", End::Signal(Signal::SIGINT)),
        ("/dev/hvc0", End::Request(&["stop", "--grace", "1"])),
        ("/dev/hvc0", End::Signal(Signal::SIGINT)),
    ];
    for (console, end) in ends {
        let folder = tempfile::tempdir().expect("a folder");
        let socket = folder.path().join("api");
        let script = format!("({FLOODING}) >{console}");
        let options = ["--memory", "128M", "--grace", "1", "--stats"];
        let (run, _initrd) = boot_slim(&script, &options);
        let kind = if console == "/dev/hvc0" { "virtio" } else { "serial" };
        let run = run.arg("--api-socket").arg(&socket).args(&["--console", kind]);
        let mut machine: Unread = run.start_unread();
        machine.wait_until_full();
        let ask = |words: &[&str]| -> Value {
            let done = Sandbox::empty().isolab(&["vm"]).args(words).arg(&socket).finish();
            serde_json::from_str(&done.success()).expect("answers are JSON")
        };
        assert_eq!(ask(&["pause"])["state"], "paused");
        assert_eq!(ask(&["resume"])["state"], "running");
        match end {
            End::Signal(signal) => machine.signal(signal),
            End::Request(words) => assert_eq!(ask(words)["reason"], "stopped"),
        }
        assert!(machine.finish().is_some(), "{console} {end:?}: it exits, and was not killed");
        assert!(!socket.exists());
    }
}

/// What a machine holds does not outlive an execve: not the start after a reboot, and nothing that
/// it might run.
#[test]
fn every_descriptor_is_closed_at_an_execve() {
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(1 << 20).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let vsock = format!("cid=3,path={}", folder.path().join("vsock").display());
    let disk = disk.path().to_str().unwrap();
    let virtio = [
        "--disk",
        disk,
        "--net",
        "tap",
        "--vsock",
        &vsock,
        "--rng",
        "--balloon",
        "0",
        "--console",
        "virtio",
        "--cpus",
        "2",
    ];
    let emulated = ["--devices", "emulated", "--disk", disk, "--net", "tap"];
    for options in [&virtio[..], &emulated] {
        let script = "[ -e /dev/hvc0 ] && echo up >/dev/hvc0 || echo up; sleep 1000";
        let mut machine = Machine::start(script, options);
        machine.running.wait_for("up");
        let folder = format!("/proc/{}/fdinfo", machine.running.id());
        let mut seen = 0;
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let number: u32 = entry.file_name().to_str().unwrap().parse().unwrap();
            let Ok(info) = fs::read_to_string(entry.path()) else { continue };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
            let target = fs::read_link(format!("{folder}/../fd/{number}"));
            let kept = flags & libc::O_CLOEXEC as u32 == 0;
            assert!(!kept || number < 3, "{number} is {target:?}: {info}");
            seen += 1;
        }
        assert!(seen > 10, "{seen} descriptors");
        machine.answer(&["kill"]);
        machine.running.finish();
    }
}
