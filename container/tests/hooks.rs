//! The hooks of a configuration: when and where each runs, what it is told, and what its failure does. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use isolab_container::{Container, ContainerConfig, Error};
use serde_json::{Value, json};

use support::{Fixture, run};

const KINDS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// Writes down what it sees: its arguments and environment, namespaces, and the state.
const WITNESS: &str = r#"#!/bin/sh
exec >> "$LOG/$1"
echo "$0 $* env=$(env | sort | tr '\n' ' ')"
for kind in mnt net pid uts; do readlink /proc/self/ns/$kind; done
ls -d /hooks-were-here /proc/1/root/etc 2>/dev/null
echo "state $(cat)"
echo "$1" >> "$LOG/order"
"#;

struct Hooked {
    fixture: Fixture,
}

impl Hooked {
    /// Logs are in /tmp/log of the root, which both sides see by the same name: `log` on the host's.
    fn new() -> Self {
        let fixture = Fixture::new();
        for path in [fixture.path("witness"), fixture.path("rootfs/bin/witness")] {
            fs::write(&path, WITNESS.replace("tr ", "busybox tr ")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(fixture.path("log")).unwrap();
        Hooked { fixture }
    }

    fn config(&self, hooks: Value) -> ContainerConfig {
        let log = self.fixture.path("log");
        self.fixture.changed(&["sh", "-c", "echo program >> /log/order"], |spec| {
            spec["hooks"] = hooks;
            spec["annotations"] = json!({"a": "b"});
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/log", "type": "bind", "source": log, "options": ["bind"],
            }));
        })
    }

    fn hook(&self, kind: &str) -> Value {
        let inside = kind == "startContainer";
        let path = if inside { "/bin/witness".into() } else { self.fixture.path("witness") };
        let log = if inside { "/log".into() } else { self.fixture.path("log") };
        let env = [format!("LOG={}", log.display()), support::PATH.to_owned()];
        json!({"path": path, "args": ["witness", kind, "two words"], "env": env, "timeout": 60})
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.fixture.path("log").join(name)).unwrap_or_default()
    }

    fn remove_logs(&self) {
        fs::remove_dir_all(self.fixture.path("log")).unwrap();
        fs::create_dir(self.fixture.path("log")).unwrap();
    }
}

fn namespace(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string()
}

#[test]
fn each_kind_at_its_moment_in_its_namespaces_with_the_state() {
    let hooked = Hooked::new();
    let all: serde_json::Map<_, _> =
        KINDS.map(|kind| (kind.to_owned(), json!([hooked.hook(kind)]))).into_iter().collect();
    let config = hooked.config(Value::Object(all));
    let (id, bundle) = (config.id.clone(), config.bundle.clone().unwrap());
    let mut container = Container::create(config).unwrap();
    let pid = container.pid();
    let inner: Vec<String> = ["mnt", "net", "pid", "uts"]
        .map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap().display().to_string())
        .to_vec();
    assert_eq!(hooked.log("order"), "prestart\ncreateRuntime\ncreateContainer\n");
    container.start().unwrap();
    assert_eq!(container.wait().unwrap().code(), 0);
    container.remove().unwrap();
    let order = hooked.log("order");
    let order: Vec<&str> = order.lines().collect();
    // The program runs beside poststart.
    assert_eq!(order[..4], ["prestart", "createRuntime", "createContainer", "startContainer"]);
    assert!(order[4..6].contains(&"program") && order[4..6].contains(&"poststart"), "{order:?}");
    assert_eq!(order[6..], ["poststop"]);

    for (kind, status, inside) in [
        ("prestart", "creating", false),
        ("createRuntime", "creating", false),
        ("createContainer", "creating", true),
        ("startContainer", "created", true),
        ("poststart", "running", false),
        ("poststop", "stopped", false),
    ] {
        let log = hooked.log(kind);
        let lines: Vec<&str> = log.lines().collect();
        assert!(lines[0].contains(&format!("{kind} two words")), "{log}");
        assert!(lines[0].contains("env=LOG=") && !lines[0].contains("HOME="), "{log}");
        let seen: Vec<String> = lines[1..5].iter().map(|line| (*line).to_owned()).collect();
        let outer = ["mnt", "net", "pid", "uts"].map(namespace).to_vec();
        assert_eq!(seen, if inside { inner.clone() } else { outer }, "{kind}");
        let state: Value =
            serde_json::from_str(lines.last().unwrap().strip_prefix("state ").unwrap()).unwrap();
        let mut expected = json!({
            "ociVersion": "1.2.0", "id": id, "status": status, "bundle": bundle, "annotations": {"a": "b"},
        });
        if kind != "poststop" {
            // As seen by the container, in its namespaces.
            expected["pid"] = json!(if inside { 1 } else { pid });
        }
        assert_eq!(state, expected, "{kind}");
    }
}

#[test]
fn a_hook_that_fails_is_the_error_and_leaves_nothing() {
    let hooked = Hooked::new();
    for kind in KINDS {
        hooked.remove_logs();
        let failing =
            json!({"path": "/bin/sh", "args": ["sh", "-c", "echo some reason >&2; exit 7"]});
        let mut hooks = json!({"poststop": [hooked.hook("poststop")]});
        let list = hooks.as_object_mut().unwrap().entry(kind).or_insert(json!([]));
        list.as_array_mut().unwrap().insert(0, failing);
        let mut config = hooked.config(hooks);
        config.id = "hook-fails".into();
        if kind == "poststart" {
            let args = ["sleep", "1000"].map(String::from).to_vec();
            config.spec.process_mut().as_mut().unwrap().set_args(Some(args));
        }
        let at_creation = ["prestart", "createRuntime", "createContainer"].contains(&kind);
        let error = match Container::create(config) {
            Err(error) => {
                assert!(at_creation, "{kind}: {error}");
                error
            }
            Ok(mut container) => {
                assert!(!at_creation, "{kind}");
                let (pid, cgroups) = (container.pid(), container.cgroup_directories());
                let started = container.start();
                if kind == "poststop" {
                    started.as_ref().unwrap();
                    container.wait().unwrap();
                } else {
                    assert_ne!(container.wait().unwrap().code(), 0, "{kind}: it is stopped");
                }
                let removed = container.remove();
                assert!(!Path::new(&format!("/proc/{pid}")).exists());
                assert!(cgroups.iter().all(|path| !path.exists()));
                started.and(removed).unwrap_err()
            }
        };
        assert!(matches!(&error, Error::Hook { .. }), "{kind}: {error}");
        let text = error.to_string();
        assert!(
            text.contains(&format!("hooks.{kind}[0] (/bin/sh)")) && text.contains("some reason"),
            "{text}"
        );
        // All of poststop, whatever failed.
        assert_eq!(
            hooked.log("order").lines().filter(|line| *line == "poststop").count(),
            1,
            "{kind}"
        );
        // The id is free.
        let mut again = hooked.config(json!({}));
        again.id = "hook-fails".into();
        assert_eq!(run(again).unwrap().status.code(), 0);
    }
}

#[test]
fn a_hook_that_takes_too_long_is_killed() {
    let hooked = Hooked::new();
    for kind in ["createRuntime", "createContainer", "startContainer"] {
        let marker = hooked.fixture.path("log/late");
        let late = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("sleep 1000; echo > {}", marker.display())],
            "env": [support::PATH], "timeout": 1});
        let error = match Container::create(hooked.config(json!({kind: [late]}))) {
            Err(error) => error,
            Ok(mut container) => container.start().unwrap_err(),
        };
        let text = error.to_string();
        assert!(text.contains(kind) && text.contains("1 s"), "{text}");
    }
}

#[test]
fn what_is_no_hook_is_refused_before_anything_is_made() {
    let hooked = Hooked::new();
    for (hook, problem) in [
        (json!({"path": "bin/true"}), "not absolute"),
        (json!({"path": "/bin/true", "timeout": 0}), "at least 1 second"),
        (json!({"path": "/bin/true", "timeout": -1}), "at least 1 second"),
    ] {
        for kind in KINDS {
            let error =
                Container::create(hooked.config(json!({kind: [hook]}))).unwrap_err().to_string();
            assert!(
                error.contains(&format!("hooks.{kind}[0]")) && error.contains(problem),
                "{error}"
            );
        }
    }
    let absent = json!({"createRuntime": [{"path": "/absent/hook"}]});
    let error = error_reporter::Report::new(Container::create(hooked.config(absent)).unwrap_err())
        .to_string();
    assert!(
        error.contains("hooks.createRuntime[0] (/absent/hook)") && error.contains("No such file"),
        "{error}"
    );
}
