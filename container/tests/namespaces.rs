//! Namespaces that exist, joined by path, with and without a user namespace. Needs root.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::process::{Child, Command, Stdio as Streams};

use isolab_container::{Container, Stdio, default_process};
use serde_json::{Value, json};

use support::{Fixture, PATH, capture, read_all, run};

fn shell(fixture: &Fixture, script: &str, change: impl FnOnce(&mut Value)) -> String {
    run(fixture.changed(&["sh", "-c", script], change)).unwrap().output
}

/// A process in namespaces of its own, to be joined.
struct Holder {
    unshare: Child,
    inner: u32,
}

impl Holder {
    /// `kinds`: unshare(1)'s options; `script`: what it does there first.
    fn new(kinds: &[&str], script: &str) -> Self {
        let mut command = Command::new("unshare");
        command.args(kinds).args(["--fork", "--kill-child", "sh", "-c"]);
        command.arg(format!("{script}; echo ready; exec sleep 1000")).stdout(Streams::piped());
        let mut unshare = command.spawn().unwrap();
        unshare.stdout.as_mut().unwrap().read_exact(&mut [0u8; 6]).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let inner = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        Holder { unshare, inner }
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/{}/ns/{name}", self.inner)
    }

    /// What /proc says of the namespace.
    fn link(&self, name: &str) -> String {
        fs::read_link(self.path(name)).unwrap().to_str().unwrap().to_owned()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

#[test]
fn namespaces_are_joined_by_path() {
    let fixture = Fixture::new();
    let kinds = ["--pid", "--ipc", "--uts", "--net", "--cgroup", "--time"];
    let holder = Holder::new(&kinds, "hostname joined");
    let names = [
        ("pid", "pid"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("network", "net"),
        ("cgroup", "cgroup"),
        ("time", "time"),
    ];
    let path = |name: &str| holder.path(name);
    // Pinned by a name elsewhere as well.
    symlink(path("net"), fixture.path("pinned")).unwrap();
    let list = names.map(|(_, name)| format!("/proc/self/ns/{name}")).join(" ");
    let output = shell(
        &fixture,
        &format!("for n in {list}; do readlink $n; done; hostname; echo $$"),
        |spec| {
            let all = names.map(|(typ, name)| json!({"type": typ, "path": path(name)}));
            let mut namespaces = vec![json!({"type": "mount"})];
            namespaces.extend(all);
            namespaces[4]["path"] = json!(fixture.path("pinned"));
            spec["linux"]["namespaces"] = json!(namespaces);
            spec["hostname"] = Value::Null;
        },
    );
    let mut lines = output.lines();
    for (_, name) in names {
        let theirs = fs::read_link(path(name)).unwrap();
        assert_eq!(lines.next(), theirs.to_str(), "{name}");
    }
    assert_eq!(lines.next(), Some("joined"));
    // Neither the first there, nor by its id on the host.
    let own: u32 = lines.next().unwrap().parse().unwrap();
    assert!(own > 1 && own < 1000, "{output}");
    for (typ, path, problem) in [
        ("ipc", path("net"), "another type"),
        ("pid", "/dev/zero".into(), "no namespace"),
        ("user", path("net"), "another type"),
    ] {
        let config = fixture.changed(&["true"], |spec| {
            spec["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": typ, "path": path}]);
        });
        let error = Container::create(config).unwrap_err().to_string();
        assert!(error.contains(problem), "{typ}: {error}");
    }
}

/// 65536 ids from this one on are the container's.
const FIRST: u32 = 200_000;

/// A fixture whose files are those of the ids.
fn mapped() -> Fixture {
    let fixture = Fixture::new();
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in ["upper", "work", "rootfs"] {
        chown(fixture.path(path), Some(FIRST), Some(FIRST)).unwrap();
    }
    fixture
}

fn map(spec: &mut Value) {
    let maps = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
    (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (maps.clone(), maps);
}

/// Gives a namespace of the list a path, or adds it.
fn place(spec: &mut Value, typ: &str, path: Option<String>) {
    let all = spec["linux"]["namespaces"].as_array_mut().unwrap();
    all.retain(|one| one["type"] != typ);
    all.push(json!({"type": typ, "path": path}));
}

#[test]
fn a_new_user_namespace_and_the_host_s_network() {
    let holder =
        Holder::new(&["--net", "--ipc", "--uts", "--time"], "ip link set lo up; hostname theirs");
    let names = ["net", "ipc", "uts", "time"];
    let fixture = mapped();
    let script = "for n in net ipc uts time user; do readlink /proc/self/ns/$n; done; hostname; \
                  cat /proc/self/uid_map; id -u; hostname mine || echo not ours; ip link set lo down || echo neither";
    let output = shell(&fixture, script, |spec| {
        map(spec);
        place(spec, "user", None);
        for (typ, name) in ["network", "ipc", "uts", "time"].into_iter().zip(names) {
            place(spec, typ, Some(holder.path(name)));
        }
        spec["hostname"] = Value::Null;
        spec["process"]["capabilities"]["effective"] = json!(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        spec["process"]["capabilities"]["permitted"] = json!(["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        spec["linux"]["seccomp"] = Value::Null;
        // Of the ipc namespace, which belongs to the host's users.
        spec["mounts"].as_array_mut().unwrap().retain(|one| one["type"] != "mqueue");
    });
    let lines: Vec<&str> = output.lines().collect();
    for (line, name) in lines.iter().zip(names) {
        assert_eq!(*line, holder.link(name), "{name}");
    }
    let ours = fs::read_link("/proc/self/ns/user").unwrap();
    assert_ne!(lines[4], ours.to_str().unwrap());
    assert_eq!(lines[5], "theirs");
    let words: Vec<&str> = lines[6].split_whitespace().collect();
    assert_eq!((words.join(" ").as_str(), lines[7]), ("0 200000 65536", "0"));
    // They belong to the host's user namespace: root of another one changes nothing in them.
    assert!(output.contains("not ours") && output.contains("neither"), "{output}");
}

#[test]
fn a_user_namespace_is_joined_with_what_belongs_to_it_and_what_does_not() {
    let outside = Holder::new(&["--uts"], "hostname outside");
    let fixture = mapped();
    let mut first = fixture.changed(&["sh", "-c", "echo ready; exec sleep 1000"], |spec| {
        map(spec);
        place(spec, "user", None);
    });
    let ready = capture(&mut first.stdio);
    let mut first = Container::create(first).unwrap();
    first.start().unwrap();
    fs::File::from(ready).read_exact(&mut [0; 6]).unwrap();
    let path = |name: &str| format!("/proc/{}/ns/{name}", first.pid());
    let link = |name: &str| fs::read_link(path(name)).unwrap().to_str().unwrap().to_owned();

    let second = mapped();
    let script = "for n in user net ipc uts pid; do readlink /proc/self/ns/$n; done; hostname; echo $$; id; \
                  cat /proc/self/uid_map; ip addr add 10.1.2.3/32 dev lo && ip addr; exec sleep 1000";
    let mut config = second.changed(&["sh", "-c", script], |spec| {
        // Without mappings: they are the namespace's own.
        place(spec, "user", Some(path("user")));
        place(spec, "network", Some(path("net")));
        place(spec, "ipc", Some(path("ipc")));
        place(spec, "uts", Some(outside.path("uts")));
        spec["hostname"] = Value::Null;
        for set in ["effective", "permitted", "bounding"] {
            spec["process"]["capabilities"][set]
                .as_array_mut()
                .unwrap()
                .push(json!("CAP_NET_ADMIN"));
        }
    });
    let output = capture(&mut config.stdio);
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    let mut said = String::new();
    let mut reader = std::io::BufReader::new(fs::File::from(output));
    while !said.contains("10.1.2.3") {
        let read = std::io::BufRead::read_line(&mut reader, &mut said).unwrap();
        assert!(read > 0, "{said}");
    }
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..3], [link("user"), link("net"), link("ipc")]);
    assert_eq!(lines[3], outside.link("uts"));
    assert_ne!(lines[4], link("pid"));
    assert_eq!(lines[5..8], ["outside", "1", "uid=0 gid=0"]);

    let process = default_process(
        ["sh", "-c", "id -u; for n in user net pid; do readlink /proc/self/ns/$n; done"]
            .map(String::from)
            .to_vec(),
        vec![PATH.to_owned()],
    );
    let mut stdio = Stdio::null();
    let exec = capture(&mut stdio);
    container.handle().unwrap().exec(&process, stdio).unwrap().wait().unwrap();
    let exec = read_all(exec);
    assert_eq!(exec.lines().collect::<Vec<_>>(), ["0", lines[0], lines[1], lines[4]]);

    // What does not belong to it cannot be changed from there, and is named.
    let config = mapped().changed(&["true"], |spec| {
        place(spec, "user", Some(path("user")));
        place(spec, "uts", Some(outside.path("uts")));
        spec["hostname"] = json!("any");
    });
    let error = Container::create(config).unwrap_err().to_string();
    assert!(error.contains("hostname"), "{error}");
}

#[test]
fn a_mount_namespace_is_joined_and_its_root_is_the_container_s() {
    let holder = Holder::new(&["--mount"], "mount -t tmpfs theirs /mnt");
    let fixture = Fixture::new();
    let script = "readlink /proc/self/ns/mnt; ls -d /bin; ls -d /work /boot; grep -c theirs /proc/self/mountinfo; \
                  echo ready; exec sleep 1000";
    let mut config = fixture.changed(&["sh", "-c", script], |spec| {
        place(spec, "mount", Some(holder.path("mnt")));
    });
    let output = capture(&mut config.stdio);
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    let mut said = String::new();
    let mut reader = std::io::BufReader::new(fs::File::from(output));
    while !said.contains("ready") {
        assert!(std::io::BufRead::read_line(&mut reader, &mut said).unwrap() > 0, "{said}");
    }
    assert!(said.starts_with(&format!("{}\n/bin\n", holder.link("mnt"))), "{said}");
    assert!(said.contains("/boot: No such file") && said.ends_with("0\nready\n"), "{said}");
    // Its mounts are there, for whoever else is.
    let theirs = fs::read_to_string(format!("/proc/{}/mountinfo", holder.inner)).unwrap();
    assert!(
        theirs.contains("theirs") && theirs.contains(fixture.dir.path().to_str().unwrap()),
        "{theirs}"
    );
    assert!(support::mounts_below(fixture.dir.path()).is_empty());

    let process = default_process(
        ["sh", "-c", "readlink /proc/self/ns/mnt; ls -d /bin; ls -d /work"]
            .map(String::from)
            .to_vec(),
        vec![PATH.to_owned()],
    );
    let mut stdio = Stdio::null();
    let exec = capture(&mut stdio);
    container.handle().unwrap().exec(&process, stdio).unwrap().wait().unwrap();
    let exec = read_all(exec);
    let expected = format!("{}\n/bin\n", holder.link("mnt"));
    assert!(exec.contains(&expected) && exec.contains("/work: No such"), "{exec}");
}

#[test]
fn without_pivot_root_the_root_is_the_container_s_and_no_proc_is_left_beneath() {
    let fixture = Fixture::new();
    // A user namespace may mount a procfs where a whole one is in its mount namespace already: that would be the host's,
    // whose masks are the host's.
    let script = "ls -d /bin; ls -d /boot; cat /proc/1/comm; \
                  busybox unshare -r -m -p -f busybox mount -t proc none /tmp && echo mounted";
    let change = |spec: &mut Value| spec["linux"]["seccomp"] = Value::Null;
    let mut config = fixture.changed(&["sh", "-c", script], change);
    config.no_pivot = true;
    let output = run(config).unwrap().output;
    assert!(output.starts_with("/bin\n") && output.contains("/boot: No such file"), "{output}");
    assert!(output.contains("mount: ") && !output.contains("mounted"), "{output}");
    assert!(support::mounts_below(fixture.dir.path()).is_empty());
}
