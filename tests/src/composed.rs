//! Projects of several services: what `isolab compose` does at any level, each test on a host of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::lifecycle::until;
use crate::networked::{Host, ask, until_answered};
use crate::{Done, text, tool};

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

/// What is asked and told besides: files as they come out, waiting for health, following logs, signals, dependants.
pub fn other_commands(level: &str) {
    let file = format!(
        "x-isolation: {level}\nservices:\n  \
           db:\n    image: busybox\n    command: {}\n    \
             healthcheck: {{test: 'wget -qO- http://127.0.0.1/', interval: 200ms, retries: 100}}\n  \
           app:\n    image: busybox\n    command: {}\n    depends_on: {{db: {{condition: service_healthy, restart: true}}}}\n  \
           aside: {{image: busybox, command: sleep 1000, stop_signal: KILL, network_mode: none}}\n",
        server("db"),
        "sh -c 'trap \"echo heard; exit 0\" TERM; trap \"echo told\" USR1; echo ready; while :; do sleep 0.1; done'",
    );
    let project = Composed::new(&file);
    assert_eq!(project.compose(&["config", "--services"]).success(), "db\napp\naside\n");
    let told = project.compose(&["config", "--format", "json"]).success();
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["services"]["app"]["depends_on"]["db"]["restart"], true, "{told}");
    // What is printed is a file again.
    let written = project.path("written.yaml");
    project.compose(&["config", "--output", text(&written)]).success();
    let again = project.host.isolab(&["compose", "-f", text(&written), "-p", "p", "config"]);
    assert_eq!(again.success(), fs::read_to_string(&written).unwrap());
    project.compose(&["up", "-d", "--wait"]).success();
    let health = project.compose(&["ps", "--format", "{{.Status}}", "db"]).success();
    assert!(health.contains("(healthy)"), "{health}");
    assert_eq!(project.compose(&["ps", "--services"]).success(), "app\naside\ndb\n");
    assert_eq!(project.compose(&["ps", "--quiet"]).success().lines().count(), 3);
    // A signal reaches the workload; who follows it hears what it says, and its end.
    let path = project.path("compose.yaml");
    let words = ["compose", "-f", text(&path), "-p", "p", "logs", "--follow", "app"];
    let mut logs = project.host.start(&words);
    logs.wait_for("app-1  | ready");
    project.compose(&["kill", "--signal", "USR1", "app"]).success();
    logs.wait_for("app-1  | told");
    project.compose(&["kill", "-s", "TERM", "app"]).success();
    logs.wait_for("app-1  | heard");
    assert!(logs.finish().status.success());
    until("its end", || project.states().contains("p-app-1 exited"));
    assert_eq!(project.compose(&["ps", "--status", "exited", "--services"]).success(), "app\n");
    project.compose(&["start", "app"]).success();
    // Who says so starts anew with what it depends on, and nobody else does.
    let started = |name: &str| {
        project.host.isolab(&["inspect", "--format", "{{.State.StartedAt}}", name]).success()
    };
    let names = ["p-app-1", "p-db-1", "p-aside-1"];
    let before = names.map(started);
    project.compose(&["restart", "db"]).success();
    let after = names.map(started);
    let is_new = [0, 1, 2].map(|at| before[at] != after[at]);
    assert_eq!(is_new, [true, true, false], "{before:?} {after:?}");
    project.compose(&["restart", "--no-deps", "db"]).success();
    assert_eq!(started("p-app-1"), after[0]);
    project.compose(&["kill"]).success();
    until("the end of all", || {
        project.states() == "p-app-1 exited, p-aside-1 exited, p-db-1 exited"
    });
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
        ("volumes: ['./file:/x']", "paravirt", "paravirt can see read-only and not otherwise"),
        ("volumes: ['./file:/x']", "fullvirt", "fullvirt can see read-only and not otherwise"),
        ("volumes: ['/dev/null:/x:ro']", "paravirt", "is no folder and no file"),
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

/// Secrets and configurations are files in the instances of each of these levels: with the owner and mode that they have
/// on the host, and for nobody there to write.
pub fn files(levels: &[&str]) {
    let mut file =
        "secrets: {key: {file: ./key}}\nconfigs: {settings: {file: ./settings}}\nservices:\n"
            .to_owned();
    for level in levels {
        file += &format!(
            "  {level}:\n    image: busybox\n    x-isolation: {level}\n    command: sleep 1000\n    stop_signal: KILL\n    \
             mem_limit: 96m\n    network_mode: none\n    read_only: true\n    configs: [settings]\n    \
             secrets: [key, {{source: key, target: /etc/shop/deep/key}}]\n"
        );
    }
    let project = Composed::new(&file);
    let key = project.path("key");
    // No text, and not a whole number of anything.
    fs::write(&key, (0..5000_u32).map(|at| (at * 7 % 256) as u8).collect::<Vec<_>>()).unwrap();
    chown(&key, Some(7), Some(65534)).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o440)).unwrap();
    project.write("settings", "of the first\n");
    let sum = tool("sha256sum", &[text(&key)]);
    let (sum, _) = sum.split_once(' ').unwrap();
    project.compose(&["up", "-d"]).success();
    let exec = |level: &str, words: &[&str]| {
        project.compose(&[&["exec", "-T"], &words[..2], &[level], &words[2..]].concat())
    };
    for level in levels {
        let as_user = |user: &str, line: &str| exec(level, &["--user", user, "sh", "-c", line]);
        for place in ["/run/secrets/key", "/etc/shop/deep/key"] {
            let seen = as_user("0", &format!("stat -c '%u %g %a' {place}")).success();
            assert_eq!(seen, "7 65534 440\n", "{level}");
            // Who is of its group can read it, as on the host.
            let seen = as_user("9:65534", &format!("sha256sum <{place}")).success();
            assert_eq!(seen, format!("{sum}  -\n"), "{level}");
            let written = as_user("0", &format!("echo x >>{place}"));
            assert!(written.stderr.contains("Read-only file system"), "{level}: {written:?}");
        }
        let others = as_user("9:9", "cat /run/secrets/key");
        assert!(others.stderr.contains("Permission denied"), "{level}: {others:?}");
        assert_eq!(as_user("0", "cat /settings").success(), "of the first\n", "{level}");
    }
    // A machine has a file as it was when it was started.
    project.write("settings", "of the second\n");
    project.compose(&["restart", "--timeout", "0"]).success();
    for level in levels {
        assert_eq!(
            exec(level, &["--user", "0", "cat", "/settings"]).success(),
            "of the second\n",
            "{level}"
        );
    }
    project.write("settings", &"x".repeat((4 << 20) + 1));
    for level in levels.iter().filter(|level| level.ends_with("virt")) {
        let fails = project.compose(&["restart", "--timeout", "0", level]);
        fails.fails_with(125, &["settings: single files of a machine are 4 MiB at most"]);
    }
    fs::remove_file(&key).unwrap();
    project.compose(&["up", "-d"]).fails_with(125, &["compose.yaml:", "there is no", "key"]);
    project.compose(&["down", "--volumes"]).success();
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
