//! Instances on networks: what must be the same at every level. Each test has a host of its own: a network
//! namespace with a loopback interface.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lifecycle::until;
use crate::{Done, Running, Sandbox, TIME_LIMIT, checkout, text, tool};

/// Serves its name to who asks for a page.
const SERVER: &str = "mkdir -p /www && hostname >/www/index.html; echo ready; \
                      trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait";

/// A host without anything but a loopback interface, for the thread that makes it, and a store.
pub struct Host {
    sandbox: Sandbox,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// The calling thread, and what it starts, is in it from now on.
    pub fn new() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tool("ip", &["link", "set", "lo", "up"]);
        Self { sandbox: Sandbox::with_busybox() }
    }

    /// `isolab` with these words.
    pub fn isolab(&self, words: &[&str]) -> Done {
        self.sandbox.isolab(words).finish()
    }

    /// The same, begun.
    pub fn start(&self, words: &[&str]) -> Running {
        self.sandbox.isolab(words).start(Stdio::null())
    }

    /// A file of the test's own.
    pub fn file(&self, name: &str) -> PathBuf {
        self.sandbox.data().join(name)
    }

    /// `isolab run -d` of a server that tells its own name.
    #[track_caller]
    pub fn serve(&self, level: &str, name: &str, options: &[&str]) {
        let begin = ["run", "-d", "--isolation", level, "--name", name, "--hostname", name];
        // A plain process has no host name of its own.
        let begin = if level == "process" { &begin[..6] } else { &begin[..] };
        let script = SERVER.replace("hostname", &format!("echo {name}"));
        let words = [begin, options, &["busybox", "sh", "-c", &script]].concat();
        self.isolab(&words).success();
    }

    /// What a client in an instance of this level says that it got, or that it got nothing. (The -T of Debian's busybox
    /// ends in a segmentation fault.)
    pub fn ask_from(&self, level: &str, options: &[&str], url: &str) -> String {
        let begin = ["run", "--isolation", level];
        let script = format!("timeout 3 wget -qO- {url} || echo nothing");
        let words = [&begin[..], options, &["busybox", "sh", "-c", &script]].concat();
        self.isolab(&words).success().trim_end().to_owned()
    }

    #[track_caller]
    fn field(&self, name: &str, template: &str) -> String {
        let text = self.isolab(&["inspect", "--format", template, name]).success();
        text.trim_end().to_owned()
    }

    /// What of isolab's is on the host: links, tables, folders of networks in use, processes.
    pub fn left(&self) -> Vec<String> {
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let mut left = lines(tool("ip", &["-o", "link"]));
        left.extend(lines(tool("nft", &["list", "tables"])));
        left.retain(|line| line.contains("isl") || line.contains("isolab"));
        let used = self.sandbox.data().join("isolab/networks/run");
        let used = fs::read_dir(used).into_iter().flatten().map(|it| it.unwrap().path());
        left.extend(used.filter(|it| it.is_dir()).map(|it| it.display().to_string()));
        left.extend(responders(self.sandbox.data()));
        left
    }
}

impl Drop for Host {
    /// What a test that failed half-way has left.
    fn drop(&mut self) {
        self.isolab(&["rm", "--force", "--all"]);
        self.isolab(&["ps"]);
    }
}

/// The name services of networks in this folder, but for zombies.
fn responders(data: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains("isolab-dns") && line.contains(text(data))).collect()
}

/// What a client on the host gets; None where nobody answers.
pub fn ask(url: &str) -> Option<String> {
    let output = Command::new("curl").args(["-sS", "--max-time", "10", url]).output().unwrap();
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
}

/// Waits until a server answers so.
#[track_caller]
pub fn until_answered(url: &str, answer: &str) {
    until(&format!("{answer} from {url}"), || ask(url).as_deref() == Some(answer));
}

/// The life of an instance with a port, an address and names.
pub fn a_life(level: &str) {
    let host = Host::new();
    host.isolab(&["network", "create", "front"]).success();
    host.isolab(&["network", "create", "back"]).success();
    let on_front = ["--network", "front"];
    host.serve(
        level,
        "web",
        &[&on_front[..], &["--network-alias", "www", "-p", "8080:80"]].concat(),
    );
    // From the host, by each way.
    until_answered("http://127.0.0.1:8080/", "web");
    let address = host.field("web", "{{.NetworkSettings.Networks.front.IPAddress}}");
    assert_eq!(ask(&format!("http://{address}/")).as_deref(), Some("web"));
    // What is told.
    assert_eq!(host.isolab(&["port", "web"]).success(), "80/tcp -> 0.0.0.0:8080\n");
    assert_eq!(host.isolab(&["port", "web", "80"]).success(), "0.0.0.0:8080\n");
    host.isolab(&["port", "web", "81"]).fails_with(125, &["publishes no port 81/tcp"]);
    let ports = host.isolab(&["ps", "--format", "{{.Ports}}"]).success();
    assert_eq!(ports, "0.0.0.0:8080->80/tcp\n");
    let inspected = host.isolab(&["inspect", "web"]).success();
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let settings = &inspected[0]["NetworkSettings"];
    assert_eq!(settings["Ports"]["80/tcp"][0]["HostPort"], "8080", "{settings}");
    assert_eq!(settings["IPPrefixLen"], 24, "{settings}");
    assert!(settings["Networks"]["front"]["Aliases"].as_array().unwrap().contains(&"www".into()));
    let usage = host.isolab(&["network", "inspect", "front"]).success();
    assert_eq!(serde_json::from_str::<Value>(&usage).unwrap()[0]["endpoints"][0]["owner"], "web");
    // From inside: its own address and name, and the others'.
    let inside = ["exec", "web", "sh", "-c", "ip addr show eth0; cat /etc/hosts /etc/resolv.conf"];
    let inside = host.isolab(&inside).success();
    let gateway = settings["Gateway"].as_str().unwrap();
    for word in [&format!("inet {address}/24"), &format!("nameserver {gateway}")] {
        assert!(inside.contains(word), "no {word} in {inside}");
    }
    assert_eq!(host.isolab(&["exec", "web", "wget", "-qO-", "http://web/"]).success(), "web\n");
    let other = if level == "container" { "process" } else { "container" };
    for name in ["web", "www", "WEB", &address] {
        assert_eq!(host.ask_from(other, &on_front, &format!("http://{name}/")), "web", "{name}");
    }
    // Not from another network, unless one is on both.
    let on_back = ["--network", "back"];
    for place in ["web", &address] {
        assert_eq!(host.ask_from(other, &on_back, &format!("http://{place}/")), "nothing");
    }
    host.serve(other, "both", &[&on_back[..], &on_front].concat());
    let back = host.field("both", "{{.NetworkSettings.Networks.back.IPAddress}}");
    until_answered(&format!("http://{back}/"), "both");
    let ask_both = ["exec", "both", "wget", "-qO-", &format!("http://{address}/")];
    assert_eq!(host.isolab(&ask_both).success(), "web\n");
    let by_name = ["exec", "both", "wget", "-qO-", "http://web/"];
    assert_eq!(host.isolab(&by_name).success(), "web\n");
    host.isolab(&["rm", "--force", "both"]).success();
    // In use, then stopped, started, started again.
    host.isolab(&["network", "rm", "front"]).fails_with(125, &["in use by web"]);
    host.isolab(&["stop", "web"]).success();
    assert_eq!(ask("http://127.0.0.1:8080/"), None);
    assert_eq!(host.isolab(&["ps", "-a", "--format", "{{.Ports}}"]).success(), "\n");
    assert_eq!(host.left(), [""; 0]);
    host.isolab(&["start", "web"]).success();
    until_answered("http://127.0.0.1:8080/", "web");
    host.isolab(&["restart", "web"]).success();
    until_answered("http://127.0.0.1:8080/", "web");
    // Killed, and nothing but it.
    let supervisor = host.field("web", "{{.State.ConmonPid}}").parse().unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    until("the truth", || host.field("web", "{{.State.Status}}") == "exited");
    assert_eq!(host.left(), [""; 0]);
    assert_eq!(host.isolab(&["port", "web"]).success(), "");
    host.isolab(&["start", "web"]).success();
    until_answered("http://127.0.0.1:8080/", "web");
    host.isolab(&["rm", "--force", "web"]).success();
    host.isolab(&["network", "rm", "front", "back"]).success();
    assert_eq!(host.left(), [""; 0]);
}

/// One that is watched: the default network, a port that is free, and its end by a signal.
pub fn watched(level: &str) {
    let host = Host::new();
    let words = ["run", "--isolation", level, "--name", "brief", "-p", "127.0.0.1::80", "busybox"];
    let mut run = host.sandbox.isolab(&words).args(&["sh", "-c", SERVER]).start(Stdio::null());
    run.wait_for("ready");
    let mut port = String::new();
    until("its port", || {
        port = host.isolab(&["port", "brief", "80"]).stdout.trim_end().to_owned();
        port.starts_with("127.0.0.1:") && !port.ends_with(":0")
    });
    until("an answer", || ask(&format!("http://{port}/")).is_some());
    assert!(host.field("brief", "{{.NetworkSettings.Networks}}").contains("isolab0"));
    run.signal(Signal::SIGTERM);
    run.finish().success();
    assert_eq!(host.left(), [""; 0]);
    // Killed at any moment, the next one finds a clean host.
    for moment in [0, 20, 60, 150] {
        let words = ["run", "--isolation", level, "-p", "8080:80", "busybox", "sh", "-c", SERVER];
        let run = host.sandbox.isolab(&words).start(Stdio::null());
        thread::sleep(Duration::from_millis(moment));
        run.signal(Signal::SIGKILL);
        run.finish();
        let deadline = Instant::now() + TIME_LIMIT;
        while !host.left().is_empty() {
            host.isolab(&["ps"]).success();
            assert!(Instant::now() < deadline, "{moment} ms: {:?}", host.left());
        }
    }
}

/// What cannot be is said in one line, with 125, and leaves nothing.
pub fn failures(level: &str) {
    let host = Host::new();
    host.isolab(&["network", "create", "--subnet", "10.9.0.0/29", "small"]).success();
    host.isolab(&["network", "create", "--internal", "closed"]).success();
    host.serve("container", "taker", &["--network", "small,ip=10.9.0.4", "-p", "8080:80"]);
    let fails = |options: &[&str], words: &[&str]| {
        for begin in [&["run", "-d"][..], &["run"]] {
            let named = ["--isolation", level, "--name", "bad"];
            let done = host.isolab(&[begin, &named, options, &["busybox", "true"]].concat());
            assert_eq!(done.stderr.trim_end().lines().count(), 1, "{}", done.stderr);
            done.fails_with(125, words);
            assert_eq!(host.sandbox.instances(), ["taker"]);
        }
    };
    for (options, words) in [
        (&["--network", "nosuch"][..], &["there is no network `nosuch`"][..]),
        (&["--network", "small,ip=10.9.0.4"], &["10.9.0.4", "it is `taker`'s"]),
        (&["--network", "small,ip=10.9.0.1"], &["10.9.0.1", "gateway"]),
        (&["--network", "small,ip=10.8.0.1"], &["10.8.0.1", "no host's"]),
        (&["--network", "small,ip=10.9.0"], &["ip=10.9.0:"]),
        (&["--network", "small,mac=zz"], &["mac=zz:"]),
        (&["--network", "small,speed=1"], &["`speed=1` is unknown"]),
        (&["--network", "small", "--network", "small"], &["small is named twice"]),
        (
            &["--network", "small", "--network", "none"],
            &["none, host and pasta cannot be with other networks"],
        ),
        (&["--network", "small", "-p", "8080:80"], &["port 8080:80/tcp", "taken"]),
        (&["--network", "none", "-p", "80:80"], &["without a network"]),
        (&["--network", "host", "-p", "80:80"], &["host's own interfaces"]),
        (&["--network", "none", "--network-alias", "x"], &["on a network"]),
        (&["--network", "closed", "-p", "80:80"], &["internal"]),
        (&["-p", "192.0.2.7:80:80"], &["192.0.2.7:80:80"]),
    ] {
        fails(options, words);
    }
    if ["process", "container"].contains(&level) {
        fails(&["--network", "tap=vm0,ip=10.0.0.2/24"], &["paravirt"]);
    } else {
        fails(&["--network", "host"], &["cannot share the host's interfaces"]);
    }
    // The name is another's, and what that has stays.
    let words = ["run", "-d", "--isolation", level, "--name", "taker", "--network", "small"];
    let done = host.isolab(&[&words[..], &["busybox", "true"]].concat());
    done.fails_with(125, &["the name `taker` is"]);
    until_answered("http://127.0.0.1:8080/", "taker");
    // Two are all that is free beside the gateway, the taker and two more.
    for name in ["a", "b", "c", "d"] {
        host.serve("container", name, &["--network", "small"]);
    }
    let words = ["run", "--isolation", level, "--network", "small", "busybox", "true"];
    host.isolab(&words).fails_with(125, &["no free address"]);
    // The bridge is gone behind our back: who comes next makes it again, for all.
    host.isolab(&["rm", "--force", "a", "b", "c"]).success();
    let bridge = host.isolab(&["network", "inspect", "small"]).success();
    let bridge: Value = serde_json::from_str(&bridge).unwrap();
    tool("ip", &["link", "delete", bridge[0]["network_interface"].as_str().unwrap()]);
    assert_eq!(host.ask_from(level, &["--network", "small"], "http://d/"), "d");
    assert_eq!(host.ask_from(level, &["--network", "small"], "http://10.9.0.4/"), "taker");
    host.isolab(&["rm", "--force", "taker", "d"]).success();
    assert_eq!(host.left(), [""; 0]);
}

/// `none` is a loopback interface, `host` all that the host has, at the levels that can.
pub fn words(level: &str) {
    let host = Host::new();
    let links = |options: &[&str]| {
        let begin = ["run", "--isolation", level];
        let list = ["busybox", "sh", "-c", "ip -o link | cut -d: -f2 | cut -d@ -f1 | tr -d '\\n'"];
        host.isolab(&[&begin[..], options, &list].concat()).success()
    };
    tool("ip", &["link", "add", "dummy7", "type", "bridge"]);
    assert_eq!(links(&["--network", "none"]).trim(), "lo");
    match level {
        "process" => assert_eq!(links(&[]).trim(), "lo dummy7"),
        _ => assert_eq!(links(&[]).trim(), "lo"),
    }
    if ["process", "container"].contains(&level) {
        assert_eq!(links(&["--network", "host"]).trim(), "lo dummy7");
    }
    assert_eq!(links(&["--network", "isolab0"]).trim(), "lo eth0");
    // IPv6 at once, beside IPv4.
    host.isolab(&["network", "create", "--ipv6", "six"]).success();
    host.serve(level, "v6", &["--network", "six"]);
    let address = host.field("v6", "{{.NetworkSettings.GlobalIPv6Address}}");
    until_answered(&format!("http://[{address}]/"), "v6");
    assert_eq!(host.ask_from(level, &["--network", "six"], &format!("http://[{address}]/")), "v6");
    host.isolab(&["rm", "--force", "v6"]).success();
    assert_eq!(host.left(), [""; 0]);
}

/// Many at once on one network, of several levels: each finds each other one by its name, and nothing is left of them.
pub fn a_crowd(counts: &[(&str, usize)]) {
    let host = Host::new();
    host.isolab(&["network", "create", "crowd"]).success();
    let mut names = Vec::new();
    for (level, count) in counts {
        for index in 0..*count {
            let name = format!("{level}-{index}");
            let memory = if level.ends_with("virt") { &["--memory", "96M"][..] } else { &[] };
            host.serve(level, &name, &[&["--network", "crowd"], memory].concat());
            names.push(name);
        }
    }
    // A guest's kernel may have the command running before it is scheduled: asked again until all answer.
    let script = format!(
        "for name in {}; do until [ \"$(timeout 5 wget -qO- http://$name/)\" = $name ]; do sleep 0.1; done; \
         echo $name; done",
        names.join(" ")
    );
    for (level, _) in counts {
        let asked = host.isolab(&["exec", &format!("{level}-0"), "sh", "-c", &script]).success();
        assert_eq!(asked.lines().collect::<Vec<_>>(), names, "{level}");
    }
    let addresses: std::collections::BTreeSet<String> =
        names.iter().map(|name| host.field(name, "{{.NetworkSettings.IPAddress}}")).collect();
    assert_eq!(addresses.len(), names.len());
    host.isolab(&["rm", "--force", "--all"]).success();
    host.isolab(&["network", "rm", "crowd"]).success();
    assert_eq!(host.left(), [""; 0]);
    assert_eq!(host.sandbox.instances(), [""; 0]);
}

/// A service as people run it: `scripts/make-nginx-image` makes the image.
pub fn nginx(level: &str) {
    let image = checkout().join("target/nginx-image.tar");
    assert!(image.exists(), "{} is missing: scripts/test makes it", image.display());
    let host = Host::new();
    host.isolab(&["image", "load", text(&image)]).success();
    let words = ["run", "-d", "--name", "web", "-p", "8080:80", "--isolation", level, "nginx"];
    host.isolab(&words).success();
    until_answered("http://127.0.0.1:8080/", "<title>Welcome to nginx!</title>");
    let listed = host.isolab(&["exec", "web", "ls", "/var/www/html"]).success();
    assert_eq!(listed, "index.html\n");
    until("its log", || host.isolab(&["logs", "web"]).stdout.contains("\"GET / HTTP/1.1\" 200"));
    let stats = host.isolab(&["stats", "--no-stream", "--format", "json", "web"]).success();
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert!(stats[0]["CPUNano"].as_u64().is_some_and(|it| it > 0), "{stats}");
    host.isolab(&["stop", "--time", "600", "web"]).success();
    // By its own stop signal: what is killed has 137.
    assert_eq!(host.field("web", "{{.State.Status}} {{.State.ExitCode}}"), "exited 0");
    assert_eq!(ask("http://127.0.0.1:8080/"), None);
    host.isolab(&["rm", "web"]).success();
    assert_eq!(host.left(), [""; 0]);
}
