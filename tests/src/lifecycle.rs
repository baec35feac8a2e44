//! Instances in the background: what each command does, which must be the same at every level.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::{Done, Sandbox, TIME_LIMIT, isolab_path, text};

/// Says what it is doing, answers SIGUSR1, and ends by SIGTERM with 3.
const SERVICE: &str = "trap 'echo got it' USR1; trap 'echo bye; exit 3' TERM; \
                       echo ready; echo careful >&2; while :; do sleep 0.1; done";

/// A store, and the level that is tested.
pub struct Bench<'a> {
    sandbox: Sandbox,
    level: &'a str,
}

/// Waits until `look` says that it is so.
#[track_caller]
pub fn until(what: &str, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIME_LIMIT;
    while !look() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

impl<'a> Bench<'a> {
    /// With the busybox image.
    pub fn new(level: &'a str) -> Self {
        Self { sandbox: Sandbox::with_busybox(), level }
    }

    /// Its level.
    pub fn level(&self) -> &str {
        self.level
    }

    /// `isolab` with these words.
    pub fn isolab(&self, words: &[&str]) -> Done {
        self.sandbox.isolab(words).finish()
    }

    /// `isolab run -d` of a shell's script, with these options; gives the id.
    #[track_caller]
    pub fn start(&self, options: &[&str], script: &str) -> String {
        let begin = ["run", "-d", "--isolation", self.level];
        let words = [&begin[..], options, &["busybox", "sh", "-c", script]].concat();
        let id = self.isolab(&words).success();
        assert_eq!(id.trim_end().len(), 64, "{id}");
        id.trim_end().to_owned()
    }

    /// A field that `isolab inspect` tells.
    #[track_caller]
    pub fn field(&self, name: &str, template: &str) -> String {
        let text = self.isolab(&["inspect", "--format", template, name]).success();
        text.trim_end().to_owned()
    }

    /// The names that `isolab ps` tells, with these options.
    #[track_caller]
    pub fn names(&self, options: &[&str]) -> Vec<String> {
        let words = [&["ps", "--format", "{{.Names}}"], options].concat();
        let mut names: Vec<_> = self.isolab(&words).success().lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    fn logs(&self, name: &str) -> Done {
        self.isolab(&["logs", name])
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.sandbox.data().join("isolab/instances").join(name)
    }
}

impl Drop for Bench<'_> {
    /// What a test that failed half-way has left.
    fn drop(&mut self) {
        self.isolab(&["rm", "--force", "--all"]);
    }
}

/// One instance, from its start to its removal, and what is done to it meanwhile.
pub fn a_service(level: &str) {
    let bench = Bench::new(level);
    let id = bench.start(&["--name", "web", "--label", "tier=one"], SERVICE);
    assert_eq!(bench.names(&[]), ["web"]);
    until("output in the log", || bench.logs("web").stdout == "ready\n");
    until("errors in the log", || bench.logs("web").stderr == "careful\n");
    // What is told of it.
    let listed: Value =
        serde_json::from_str(&bench.isolab(&["ps", "--format", "json"]).success()).unwrap();
    let row = &listed[0];
    for (field, value) in [("Id", id.as_str()), ("State", "running"), ("Isolation", level)] {
        assert_eq!(row[field], value, "{row}");
    }
    assert_eq!((&row["Names"][0], &row["Command"][0]), (&"web".into(), &"sh".into()), "{row}");
    assert!(row["Image"].as_str().unwrap().contains("busybox"), "{row}");
    let inspected: Value =
        serde_json::from_str(&bench.isolab(&["inspect", &id[..9]]).success()).unwrap();
    let state = &inspected[0]["State"];
    assert_eq!((&state["Status"], &state["Running"]), (&"running".into(), &true.into()));
    for (filter, names) in [
        ("label=tier=one", &["web"][..]),
        ("label=tier=two", &[]),
        ("name=we", &["web"]),
        ("status=exited", &[]),
        ("isolation=none", &[]),
    ] {
        assert_eq!(bench.names(&["--filter", filter]), names, "{filter}");
    }
    // What is done to it.
    assert_eq!(bench.isolab(&["kill", "--signal", "USR1", "web"]).success(), "web\n");
    until("the answer to a signal", || bench.logs("web").stdout.contains("got it"));
    further_processes(&bench);
    standing_still(&bench);
    assert!(bench.isolab(&["top", "web"]).success().contains("trap"));
    let stats = bench.isolab(&["stats", "--no-stream", "--format", "json", "web"]).success();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert!(stats[0]["CPUNano"].as_u64().is_some(), "{stats}");
    bench.isolab(&["rm", "web"]).fails_with(125, &["`web` is running"]);
    let words = ["run", "-d", "--name", "web", "busybox", "true"];
    bench.isolab(&words).fails_with(125, &["the name `web` is"]);
    bench.isolab(&["rename", "web", "other"]).fails_with(125, &["`web` is running"]);
    // Its end.
    assert_eq!(bench.isolab(&["stop", "web"]).success(), "web\n");
    assert_eq!(bench.names(&[]), [""; 0]);
    assert_eq!(bench.names(&["-a", "--filter", "exited=3"]), ["web"]);
    assert_eq!(
        bench.field("web", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}"),
        "exited 3 0"
    );
    assert_eq!(bench.isolab(&["wait", "web"]).success(), "3\n");
    assert!(bench.logs("web").stdout.ends_with("bye\n"));
    bench.isolab(&["exec", "web", "true"]).fails_with(125, &["`web` is exited"]);
    bench.isolab(&["run", "-d", "--name", "web", "busybox", "true"]).fails_with(125, &["kept"]);
    // And again.
    assert_eq!(bench.isolab(&["start", "web"]).success(), "web\n");
    until("both runs in the log", || bench.logs("web").stdout.matches("ready").count() == 2);
    assert_eq!(bench.isolab(&["rm", "--force", "web"]).success(), "web\n");
    assert_eq!(bench.names(&["-a"]), [""; 0]);
    bench.isolab(&["logs", "web"]).fails_with(125, &["no such instance"]);
    assert_eq!(bench.sandbox.instances(), [""; 0]);
}

fn further_processes(bench: &Bench) {
    let exec = |words: &[&str]| bench.isolab(&[&["exec"], words].concat());
    let done = exec(&["web", "sh", "-c", "echo out; exit 5"]);
    assert_eq!((done.code(), done.stdout.as_str()), (Some(5), "out\n"), "{done:?}");
    let words =
        ["-e", "A=1 2", "-w", "/tmp", "-u", "1234", "web", "sh", "-c", "echo $A; pwd; id -u"];
    assert_eq!(exec(&words).success(), "1 2\n/tmp\n1234\n");
    exec(&["web", "nosuch"]).fails_with(127, &["nosuch"]);
    exec(&["web", "/etc"]).fails_with(126, &["/etc"]);
    let copied = bench.sandbox.isolab(&["exec", "-i", "web", "cat"]);
    let input = "0123456789abcdef\n".repeat(10_000);
    assert_eq!(copied.finish_with_input(input.as_bytes()).success(), input);
    // -t without a terminal.
    exec(&["-it", "web", "true"]).fails_with(125, &["terminal"]);
}

fn standing_still(bench: &Bench) {
    assert_eq!(bench.isolab(&["pause", "web"]).success(), "web\n");
    assert_eq!(bench.field("web", "{{.State.Status}} {{.State.Paused}}"), "paused true");
    assert_eq!(bench.names(&["--filter", "status=paused"]), ["web"]);
    bench.isolab(&["unpause", "web"]).success();
    assert_eq!(bench.field("web", "{{.State.Status}}"), "running");
}

/// What stats tells of a guest: the host's own figures, and the guest's word by names that say so.
pub fn figures_of_a_guest(level: &str) {
    let bench = Bench::new(level);
    let script = "dd if=/dev/zero of=/data bs=1M count=24; sync; cat /data >/dev/null; echo written; \
                  sleep 1000 & sleep 1000 & wait";
    bench.start(&["--name", "worker"], script);
    until("it has written", || bench.logs("worker").stdout == "written\n");
    let words = ["stats", "--no-stream", "--format", "json", "worker"];
    let stats: Value = serde_json::from_str(&bench.isolab(&words).success()).unwrap();
    let figure = |name: &str| stats[0][name].as_u64().unwrap_or_else(|| panic!("{name}: {stats}"));
    assert!(figure("BlockOutput") >= 24 << 20, "{stats}");
    assert!(figure("BlockInput") > 1 << 20, "the image is read from a disk: {stats}");
    let (memory, guest) = (figure("MemUsage"), figure("GuestMemory"));
    assert!((1 << 20..512 << 20).contains(&guest) && memory > 24 << 20, "{stats}");
    // The shell and two sleeps.
    assert_eq!((figure("GuestPIDs"), &stats[0]["PIDs"]), (3, &Value::Null), "{stats}");
    assert!(figure("Exits") > 0 && stats[0]["ExitsPerSecond"].is_u64(), "{stats}");
    let devices = stats[0]["ExitsByDevice"].as_object().expect("exits by device");
    let by_device: u64 = devices.values().map(|count| count.as_u64().expect("a count")).sum();
    assert!((1..=figure("Exits")).contains(&by_device), "{stats}");
    let table = bench.isolab(&["stats", "--no-stream", "worker"]).success();
    assert!(table.contains("3*"), "{table}");
    // One that stands still is not asked.
    bench.isolab(&["pause", "worker"]).success();
    let stats: Value = serde_json::from_str(&bench.isolab(&words).success()).unwrap();
    assert_eq!((&stats[0]["GuestMemory"], &stats[0]["GuestPIDs"]), (&Value::Null, &Value::Null));
    bench.isolab(&["rm", "--force", "worker"]).success();
}

/// What cannot be started says so with podman's codes, and leaves nothing.
pub fn failures(level: &str) {
    let bench = Bench::new(level);
    let run = |words: &[&str]| {
        bench.isolab(&[&["run", "-d", "--isolation", level, "--name", "bad"], words].concat())
    };
    run(&["busybox", "nosuch"]).fails_with(127, &["nosuch"]);
    run(&["busybox", "/etc"]).fails_with(126, &["/etc"]);
    run(&["--user", "nobody-knows", "busybox", "true"]).fails_with(125, &["nobody-knows"]);
    run(&["-v", "/a:/b", "busybox", "true"]).fails_with(125, &["--volume"]);
    run(&["--restart", "sometimes", "busybox", "true"]).fails_with(125, &["on-failure"]);
    let evil = ["run", "-d", "--isolation", level, "--name", "../evil", "busybox", "true"];
    bench.isolab(&evil).fails_with(125, &["a name is"]);
    assert_eq!(bench.names(&["-a"]), [""; 0]);
    assert_eq!(bench.sandbox.instances(), [""; 0]);
    for words in [&["stop"][..], &["kill"], &["start"], &["rm"], &["logs"], &["exec"], &["wait"]] {
        let command: &[&str] = if words == ["exec"] { &["gone", "true"] } else { &["gone"] };
        let done = bench.isolab(&[words, command].concat());
        done.fails_with(125, &["no such instance: `gone`"]);
    }
}

/// Instances that are made, watched, started again by themselves, and remove themselves.
pub fn courses(level: &str) {
    let bench = Bench::new(level);
    // Watched from its first byte to its end.
    let words = ["create", "-i", "--isolation", level, "--name", "echo", "busybox", "sh", "-c"];
    bench.isolab(&[&words[..], &["cat; echo done >&2; exit 4"]].concat()).success();
    assert_eq!(bench.names(&["--filter", "status=created"]), ["echo"]);
    let watched = bench.sandbox.isolab(&["start", "-a", "-i", "echo"]);
    let done = watched.finish_with_input(b"one\ntwo\n");
    assert_eq!(done.code(), Some(4), "{done:?}");
    assert_eq!((done.stdout.as_str(), done.stderr.as_str()), ("one\ntwo\n", "done\n"));
    assert_eq!(bench.logs("echo").stdout, "one\ntwo\n");
    bench.isolab(&["rename", "echo", "once"]).success();
    assert_eq!(bench.field("once", "{{.State.ExitCode}} {{.Name}}"), "4 once");
    bench.isolab(&["rm", "once"]).success();
    // Followed to its end.
    bench.start(&["--name", "count"], "for i in 1 2 3; do echo $i; sleep 0.2; done");
    assert_eq!(bench.isolab(&["logs", "--follow", "count"]).success(), "1\n2\n3\n");
    assert_eq!(bench.isolab(&["logs", "--tail", "1", "count"]).success(), "3\n");
    let timed = bench.isolab(&["logs", "--timestamps", "--tail", "1", "count"]).success();
    assert!(timed.starts_with("20") && timed.ends_with("Z 3\n"), "{timed}");
    bench.isolab(&["rm", "count"]).success();
    // Started again so many times.
    bench.start(&["--name", "again", "--restart", "on-failure:2"], "echo run; exit 5");
    assert_eq!(bench.isolab(&["wait", "again"]).success(), "5\n");
    assert_eq!(bench.field("again", "{{.RestartCount}} {{.State.Status}}"), "2 exited");
    assert_eq!(bench.logs("again").stdout, "run\nrun\nrun\n");
    bench.isolab(&["rm", "again"]).success();
    // Gone by itself.
    bench.start(&["--rm", "--name", "brief"], "sleep 0.3; exit 6");
    assert_eq!(bench.isolab(&["wait", "brief"]).success(), "6\n");
    assert_eq!(bench.sandbox.instances(), [""; 0]);
}

/// Says how often it was started, by what it wrote before, and the mode of its root folder, which it changed.
const DIARY: &str = "echo line >>/diary; chmod 711 /; sync; cat /diary; stat -c %a /; \
                     trap 'exit 0' TERM; while :; do sleep 0.1; done";

/// What a workload has written is there when it is started again, whatever ended it, and goes with the
/// instance.
pub fn writes(level: &str) {
    let bench = Bench::new(level);
    bench.start(&["--name", "diary"], DIARY);
    let written = |times: usize| {
        let expected = "line\n".repeat(times) + "711\n";
        until("what it wrote", || bench.logs("diary").stdout.ends_with(&expected));
        bench.logs("diary").stdout.matches("711").count()
    };
    assert_eq!(written(1), 1);
    bench.isolab(&["stop", "diary"]).success();
    bench.isolab(&["start", "diary"]).success();
    assert_eq!(written(2), 2);
    bench.isolab(&["restart", "diary"]).success();
    assert_eq!(written(3), 3);
    kill_process(&bench.field("diary", "{{.State.ConmonPid}}"));
    until("the truth", || bench.field("diary", "{{.State.Status}}") == "exited");
    bench.isolab(&["start", "diary"]).success();
    assert_eq!(written(4), 4);
    // Another one has an image as it is.
    bench.start(&["--name", "other", "--rm"], "cat /diary; sleep 1000");
    until("that there is no diary", || bench.logs("other").stderr.contains("/diary"));
    bench.isolab(&["rm", "--force", "diary", "other"]).success();
    assert_eq!(bench.sandbox.instances(), [""; 0]);
}

/// Whoever sits at an instance leaves it running by the keys that he named, which the workload never sees.
pub fn detach_keys(level: &str) {
    let bench = Bench::new(level);
    let isolab = isolab_path();
    let line = format!(
        "{} run -it --name left --detach-keys ctrl-p,x --isolation {level} busybox cat",
        text(&isolab)
    );
    let mut sitting = Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("XDG_DATA_HOME", bench.sandbox.data())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut keys = sitting.stdin.take().unwrap();
    until("it runs", || {
        bench.isolab(&["inspect", "left"]).code() == Some(0)
            && bench.field("left", "{{.State.Status}}") == "running"
    });
    // A part of them is the workload's.
    keys.write_all(b"one \x10two\r").unwrap();
    until("it reads", || bench.isolab(&["logs", "left"]).stdout.contains("two"));
    keys.write_all(b"\x10x").unwrap();
    assert!(sitting.wait().unwrap().success());
    assert_eq!(bench.field("left", "{{.State.Status}}"), "running");
    bench.isolab(&["rm", "--force", "left"]).success();
}

/// Whether an instance is well.
pub fn health(level: &str) {
    let bench = Bench::new(level);
    let options = [
        "--name",
        "sick",
        "--health-cmd",
        "test -e /tmp/well || { echo ill; exit 1; }",
        "--health-interval",
        "100ms",
        "--health-retries",
        "2",
    ];
    bench.start(
        &options,
        "sleep 0.3; while [ ! -e /tmp/cure ]; do sleep 0.1; done; touch /tmp/well; sleep 1000",
    );
    until("it is found ill", || bench.field("sick", "{{.State.Health.Status}}") == "unhealthy");
    assert_eq!(bench.names(&["--filter", "health=unhealthy"]), ["sick"]);
    bench.isolab(&["exec", "sick", "touch", "/tmp/cure"]).success();
    until("it is found well", || bench.field("sick", "{{.State.Health.Status}}") == "healthy");
    bench.isolab(&["rm", "-f", "sick"]).success();
    health_by_the_image(&bench);
}

/// The checks that an image declares, in the background and in the foreground.
fn health_by_the_image(bench: &Bench) {
    let folder = tempfile::tempdir().unwrap();
    let dockerfile = "FROM busybox\n\
                      HEALTHCHECK --interval=100ms --retries=2 CMD test -e /tmp/well || { echo poorly; exit 1; }\n";
    fs::write(folder.path().join("Dockerfile"), dockerfile).unwrap();
    bench.isolab(&["image", "build", "-t", "checked", text(folder.path())]).success();
    let level = bench.level;
    let started = |name: &str, options: &[&str]| {
        let begin = ["run", "-d", "--isolation", level, "--name", name];
        bench.isolab(&[&begin, options, &["checked", "sleep", "1000"]].concat()).success();
    };
    let status = |name: &str| bench.field(name, "{{.State.Health.Status}}");
    started("own", &[]);
    until("it is found ill by the image", || status("own") == "unhealthy");
    let inspected = bench.isolab(&["inspect", "own"]).success();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(inspected[0]["State"]["Health"]["Log"][0]["Output"], "poorly\n", "{inspected}");
    assert_eq!(inspected[0]["Config"]["Healthcheck"]["Retries"], 2, "{inspected}");
    bench.isolab(&["exec", "own", "touch", "/tmp/well"]).success();
    until("it is found well by the image", || status("own") == "healthy");
    // The command line has the last word.
    started("other", &["--health-cmd", "true"]);
    until("it is found well by another", || status("other") == "healthy");
    started("none", &["--no-healthcheck"]);
    let inspected: Value =
        serde_json::from_str(&bench.isolab(&["inspect", "none"]).success()).unwrap();
    assert_eq!(inspected[0]["State"]["Health"], Value::Null, "{inspected}");
    bench.isolab(&["rm", "-f", "own", "other", "none"]).success();
    // In the foreground, which leaves nothing.
    let script = "touch /tmp/well; trap 'exit 4' TERM; while :; do sleep 0.1; done";
    let words = ["run", "--isolation", level, "--name", "front", "checked", "sh", "-c", script];
    let front = bench.sandbox.isolab(&words).start(Stdio::null());
    until("it is found well in the foreground", || {
        bench.names(&["--filter", "health=healthy"]) == ["front"]
    });
    front.signal(Signal::SIGTERM);
    let done = front.finish();
    assert_eq!((done.code(), done.stderr.as_str()), (Some(4), ""), "{done:?}");
    assert_eq!(bench.sandbox.instances(), [""; 0]);
}

/// More output than the log holds, and a log that is removed meanwhile.
pub fn a_flood(level: &str) {
    let bench = Bench::new(level);
    let options = ["--name", "flood", "--log-opt", "max-size=64K", "--log-opt", "max-file=3"];
    bench.start(
        &options,
        "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; \
                           while :; do echo more; sleep 0.1; done",
    );
    until("the flood is over", || bench.logs("flood").stdout.ends_with("more\n"));
    let size = |name: &str| fs::metadata(bench.folder("flood").join(name)).map(|it| it.len());
    for name in ["log", "log.1", "log.2"] {
        assert!(size(name).unwrap() <= 64 << 10, "{name}");
    }
    assert!(size("log.3").is_err());
    let lines = bench.logs("flood").stdout;
    let numbers = lines.lines().filter_map(|line| line.strip_prefix("line "));
    let numbers: Vec<u32> = numbers.map(|number| number.parse().unwrap()).collect();
    let (first, last) = (numbers[0], *numbers.last().unwrap());
    assert_eq!(last, 19_999);
    assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
    for name in ["log", "log.1", "log.2"] {
        fs::remove_file(bench.folder("flood").join(name)).unwrap();
    }
    until("the log is there again", || bench.logs("flood").stdout.contains("more"));
    bench.isolab(&["rm", "-f", "flood"]).success();
}

/// Kills whoever has to do with an instance, `rounds` times, at moments that differ; afterwards what is
/// told is true, and nothing is left.
pub fn kills(level: &str, rounds: u32) {
    let bench = Bench::new(level);
    for round in 0..rounds {
        let moment = Duration::from_millis(u64::from(round * 37 % 200));
        match round % 3 {
            0 => kill_supervisor(&bench, moment),
            1 => kill_workload(&bench, moment),
            _ => kill_command(&bench, moment),
        }
        bench.isolab(&["rm", "--force", "victim"]);
        assert_eq!(bench.names(&["-a"]), [""; 0], "round {round}");
        // What the command was killed at while it made it has no owner, and is swept.
        bench.isolab(&["system", "prune"]).success();
        assert_eq!(bench.sandbox.instances(), [""; 0], "round {round}");
    }
}

const LASTING: &str = "echo begun; while :; do sleep 0.1; done";

fn kill_process(pid: &str) {
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
}

fn kill_supervisor(bench: &Bench, moment: Duration) {
    bench.start(&["--name", "victim"], LASTING);
    until("output", || bench.logs("victim").stdout == "begun\n");
    let [supervisor, workload] =
        ["{{.State.ConmonPid}}", "{{.State.Pid}}"].map(|field| bench.field("victim", field));
    thread::sleep(moment);
    kill_process(&supervisor);
    until("the truth", || bench.field("victim", "{{.State.Status}}") == "exited");
    assert_eq!(bench.field("victim", "{{.State.ExitCode}}"), "137");
    assert!(bench.field("victim", "{{.State.Error}}").contains("supervisor was killed"));
    assert_eq!(bench.names(&[]), [""; 0]);
    assert_eq!(bench.logs("victim").stdout, "begun\n");
    if workload != "0" {
        let stat = fs::read_to_string(format!("/proc/{workload}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().unwrap_or_default();
        assert!(state.is_empty() || state.starts_with('Z'), "{workload} lives: {stat}");
    }
    bench.isolab(&["start", "victim"]).success();
    assert_eq!(bench.names(&[]), ["victim"]);
}

fn kill_workload(bench: &Bench, moment: Duration) {
    bench.start(&["--name", "victim"], LASTING);
    thread::sleep(moment);
    match bench.field("victim", "{{.State.Pid}}").as_str() {
        "0" => drop(bench.isolab(&["kill", "victim"]).success()),
        pid => kill_process(pid),
    }
    assert_eq!(bench.isolab(&["wait", "victim"]).success(), "137\n");
    assert_eq!(bench.field("victim", "{{.State.Status}} {{.State.ExitCode}}"), "exited 137");
    bench.isolab(&["rm", "victim"]).success();
}

fn kill_command(bench: &Bench, moment: Duration) {
    let words =
        ["run", "-d", "--isolation", bench.level, "--name", "victim", "busybox", "sh", "-c"];
    let command = bench.sandbox.isolab(&words).arg(LASTING).start(Stdio::null());
    thread::sleep(moment / 4);
    command.signal(Signal::SIGKILL);
    let done = command.finish();
    // Whatever it had come to: it runs, or it does not, and that is what is told.
    let told = bench.names(&["--filter", "status=running"]);
    if done.stdout.len() == 65 {
        assert_eq!(told, ["victim"]);
    }
    if told == ["victim"] {
        bench.isolab(&["stop", "-t", "0", "victim"]).success();
        assert_eq!(bench.field("victim", "{{.State.Status}}"), "exited");
    }
}
