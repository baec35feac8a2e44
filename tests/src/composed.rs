//! Projects of several services: what `isolab compose` does at any level, each test on a host of its own.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::lifecycle::until;
use crate::networked::{Host, ask, until_answered};
use crate::{Done, text};

/// A project's folder, on a host of its own.
pub struct Composed {
    /// The host.
    pub host: Host,
    folder: TempDir,
}

/// Serves the index page that it makes, with the words that it is given.
fn server(words: &str) -> String {
    format!(
        "sh -c 'mkdir -p /www; echo {words} >/www/index.html; echo {words} serves; trap \"exit 0\" TERM; \
         httpd -f -p 80 -h /www & wait'"
    )
}

impl Composed {
    /// One with this compose.yaml, whose project is called `p`.
    pub fn new(file: &str) -> Self {
        let composed = Self { host: Host::new(), folder: tempfile::tempdir().unwrap() };
        composed.write("compose.yaml", file);
        composed
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `isolab compose` with these words.
    pub fn compose(&self, words: &[&str]) -> Done {
        let file = self.path("compose.yaml");
        self.host.isolab(&[&["compose", "-f", text(&file), "-p", "p"], words].concat())
    }

    /// The names and states of its instances.
    fn states(&self) -> String {
        let format = "--format={{.Names}} {{.State}}";
        let listed = self.compose(&["ps", "--all", format]).success();
        let mut lines: Vec<&str> = listed.lines().collect();
        lines.sort();
        lines.join(", ")
    }

    /// Nothing is left of it: no instance, network, volume or trace on the host.
    fn assert_gone(&self) {
        assert_eq!(self.host.isolab(&["ps", "--all", "--quiet"]).success(), "");
        assert_eq!(self.host.isolab(&["volume", "ls", "--quiet"]).success(), "");
        let networks = self.host.isolab(&["network", "ls", "--quiet"]).success();
        assert!(!networks.contains("p_"), "{networks}");
        assert_eq!(self.host.left(), [""; 0]);
    }
}

/// The life of a project of four services, with all that is waited for.
pub fn a_life(level: &str) {
    let file = format!(
        "services:\n  \
           web:\n    image: busybox\n    command: {}\n    ports: ['${{PORT:-8080}}:80']\n    \
             depends_on:\n      app: {{condition: service_healthy}}\n      \
                                once: {{condition: service_completed_successfully}}\n    networks: [front]\n    \
             environment: {{WORDS: '${{WORDS:-usual}}'}}\n    labels: {{tier: web}}\n  \
           app:\n    image: busybox\n    command: {}\n    \
             healthcheck: {{test: 'wget -qO- http://127.0.0.1/', interval: 200ms, retries: 100}}\n    \
             networks: {{front: {{aliases: [backend]}}, back: }}\n    volumes: ['data:/data']\n  \
           once:\n    image: busybox\n    command: sh -c 'echo seen >/data/seen'\n    volumes: ['data:/data']\n    \
             networks: [back]\n  \
           never:\n    image: busybox\n    profiles: [never]\n\
         networks: {{front: , back: {{internal: true}}}}\nvolumes: {{data: }}\n",
        server("web"),
        server("app"),
    );
    let project = Composed::new(&file);
    project.compose(&["up", "-d", "--isolation", level]).success();
    assert_eq!(project.states(), "p-app-1 running, p-once-1 exited, p-web-1 running");
    until_answered("http://127.0.0.1:8080/", "web");
    assert_eq!(project.compose(&["port", "web", "80"]).success(), "0.0.0.0:8080\n");
    // By name and alias from inside; not over a network that it is not on.
    let exec =
        |service: &str, line: &str| project.compose(&["exec", "-T", service, "sh", "-c", line]);
    for name in ["app", "backend", "p-app-1"] {
        assert_eq!(exec("web", &format!("wget -qO- http://{name}/")).success(), "app\n", "{name}");
    }
    assert_eq!(exec("app", "cat /data/seen").success(), "seen\n");
    assert_eq!(exec("web", "echo $WORDS; exit 7").status.code(), Some(7));
    // What is told.
    let logs = project.compose(&["logs"]).success();
    assert!(
        logs.contains("web-1   | web serves\n") && logs.contains("app-1   | app serves\n"),
        "{logs}"
    );
    let logs = project.compose(&["logs", "--no-log-prefix", "-n", "1", "app"]).success();
    assert_eq!(logs, "app serves\n");
    let inspect = ["inspect", "--format", "{{json .Config.Labels}}", "p-web-1"];
    let labels = project.host.isolab(&inspect).success();
    for words in [
        "\"com.docker.compose.project\":\"p\"",
        "\"com.docker.compose.service\":\"web\"",
        "\"tier\":\"web\"",
    ] {
        assert!(labels.contains(words), "no {words} in {labels}");
    }
    assert!(project.compose(&["top", "app"]).success().contains("httpd"));
    let stats = project.compose(&["stats", "--no-stream", "--format", "{{.Name}}"]).success();
    assert_eq!(stats.lines().count(), 2, "{stats}");
    // Again: what is as it is to be stays, what has changed is another.
    let id = |name: &str| project.host.isolab(&["inspect", "--format", "{{.Id}}", name]).success();
    let before = (id("p-web-1"), id("p-app-1"));
    project.compose(&["up", "-d", "--isolation", level]).success();
    assert_eq!((id("p-web-1"), id("p-app-1")), before);
    project.write("new.env", "PORT=8081\nWORDS=new\n");
    let new = project.path("new.env");
    project.compose(&["--env-file", text(&new), "up", "-d", "--isolation", level]).success();
    assert!(id("p-web-1") != before.0 && id("p-app-1") == before.1);
    until_answered("http://127.0.0.1:8081/", "web");
    assert_eq!(exec("web", "echo $WORDS").success(), "new\n");
    // Stopped, started, killed behind our back: its labels are all that is needed.
    project.compose(&["stop"]).success();
    assert_eq!(project.states(), "p-app-1 exited, p-once-1 exited, p-web-1 exited");
    project.compose(&["start"]).success();
    until_answered("http://127.0.0.1:8081/", "web");
    project.compose(&["restart", "app"]).success();
    let supervisor =
        project.host.isolab(&["inspect", "--format", "{{.State.ConmonPid}}", "p-app-1"]);
    let supervisor = supervisor.success().trim().parse().unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    until("the truth", || project.states().contains("p-app-1 exited"));
    project.compose(&["up", "-d", "--isolation", level, "--scale", "app=2"]).success();
    assert!(project.states().contains("p-app-1 running, p-app-2 running"), "{}", project.states());
    project.compose(&["up", "-d", "--isolation", level]).success();
    assert!(!project.states().contains("p-app-2"), "{}", project.states());
    // Without its files, and its volumes last.
    project.host.isolab(&["compose", "-p", "p", "--project-directory", "/", "down"]).success();
    assert_eq!(project.host.isolab(&["volume", "ls", "--quiet"]).success(), "p_data\n");
    project.compose(&["down", "--volumes"]).success();
    project.assert_gone();
}

/// What goes wrong is told with the service and what it wrote last, and what cannot be is refused before anything is.
pub fn failures(level: &str) {
    let project = Composed::new("services:\n  s: {image: busybox, command: 'true'}\n");
    let service = |lines: &str, others: &str| {
        let lines: String = lines.lines().map(|line| format!("    {line}\n")).collect();
        project.write(
            "compose.yaml",
            &format!("services:\n  s:\n    image: busybox\n{lines}{others}"),
        );
    };
    let fails = |words: &[&str]| {
        project.compose(&["up", "-d", "--isolation", level]).fails_with(125, words);
        project.compose(&["down", "--volumes", "--remove-orphans"]).success();
        project.assert_gone();
    };
    let on =
        |condition: &str| format!("command: 'true'\ndepends_on: {{d: {{condition: {condition}}}}}");
    service(
        &on("service_completed_successfully"),
        "  d: {image: busybox, command: sh -c 'echo last words; exit 3'}\n",
    );
    fails(&["`s` waits for `d`, which has ended with 3", "last words"]);
    service(
        &on("service_healthy"),
        "  d: {image: busybox, command: sleep 1000, stop_signal: KILL, healthcheck: {test: 'echo poorly; false', \
         interval: 50ms, retries: 2}}\n",
    );
    fails(&["`s` waits for `d`, which is unhealthy: poorly"]);
    service(
        &on("service_healthy"),
        "  d: {image: busybox, command: sleep 1000, stop_signal: KILL}\n",
    );
    fails(&["`s` waits for `d`, which has no health check"]);
    service("command: /no/such/command", "");
    fails(&["service `s`: cannot start p-s-1", "/no/such/command"]);
    service("user: nobody-there", "");
    fails(&["compose.yaml:2: service `s` cannot run at level", "nobody-there"]);
}

/// What only some levels can is refused at others by the service, its place and its level, before anything is made.
pub fn levels() {
    let project = Composed::new("");
    fs::create_dir(project.path("folder")).unwrap();
    project.write("file", "");
    for (lines, level, words) in [
        ("volumes: ['./folder:/x']", "fullvirt", "no PC hardware shares a folder"),
        ("volumes: ['./file:/x']", "paravirt", "is no folder"),
        ("network_mode: host", "paravirt", "host"),
        ("devices: ['/dev/null:/dev/x']", "paravirt", "device"),
        ("sysctls: {net.ipv4.ip_forward: 1}", "process", "kernel parameters"),
    ] {
        let file = format!(
            "services:\n  first: {{image: busybox, command: sleep 1000}}\n  s:\n    image: busybox\n    {lines}\n"
        );
        project.write("compose.yaml", &file);
        let one = format!("s={level}");
        let place = format!("compose.yaml:3: service `s` cannot run at level {level}");
        project.compose(&["up", "-d", "--isolation", &one]).fails_with(125, &[&place, words]);
        project.assert_gone();
    }
}

/// In the foreground: lines with their instances' names, the end by a signal, and the code of one service.
pub fn watched(level: &str) {
    let file = format!(
        "services:\n  web:\n    image: busybox\n    command: {}\n    ports: ['8080:80']\n  \
         other: {{image: busybox, command: sleep 1000, stop_signal: KILL}}\n",
        server("web")
    );
    let project = Composed::new(&file);
    let path = project.path("compose.yaml");
    let words = ["compose", "-f", text(&path), "-p", "p", "up", "--isolation", level];
    let mut up = project.host.start(&words);
    up.wait_for("web-1    | web serves");
    until_answered("http://127.0.0.1:8080/", "web");
    up.signal(Signal::SIGINT);
    assert_eq!(up.finish().status.code(), Some(130));
    assert_eq!(ask("http://127.0.0.1:8080/"), None);
    assert_eq!(project.states(), "p-other-1 exited, p-web-1 exited");
    project.compose(&["down"]).success();
    project.write(
        "compose.yaml",
        "services:\n  a: {image: busybox, command: sh -c 'echo ends; exit 5'}\n  \
         b: {image: busybox, command: sleep 1000, stop_signal: KILL}\n",
    );
    let done = project.compose(&["up", "--isolation", level, "--exit-code-from", "a"]);
    assert_eq!(done.status.code(), Some(5), "{}", done.stderr);
    assert!(done.stdout.contains("a-1  | ends\n"), "{}", done.stdout);
    assert_eq!(project.states(), "p-a-1 exited, p-b-1 exited");
    project.compose(&["down"]).success();
    project.assert_gone();
}

/// A level for each service, on one network.
pub fn mixed(levels: &[&str]) {
    let mut file = "services:\n".to_owned();
    for level in levels {
        let served = server(level);
        file += &format!(
            "  {level}:\n    image: busybox\n    x-isolation: {level}\n    command: {served}\n    mem_limit: 96m\n"
        );
    }
    let project = Composed::new(&file);
    project.compose(&["up", "-d"]).success();
    for from in levels {
        for to in levels {
            // A guest's kernel may have the command running before it is scheduled.
            let line = format!("until timeout 5 wget -qO- http://{to}/; do sleep 0.1; done");
            let answer = project.compose(&["exec", "-T", from, "sh", "-c", &line]).success();
            assert_eq!(answer, format!("{to}\n"), "{from}");
        }
    }
    project.compose(&["down", "--volumes"]).success();
    project.assert_gone();
}
