//! What a user who is not root has of networks, at every level that such a user has. The test's host is a network
//! namespace with a way to a world, which is another; nothing touches the machine's own.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::lifecycle::until;
use crate::networked::{ask, until_answered};
use crate::{Done, Run, busybox_layout, cached, install_isolab, text, tool};

/// The world, as the host knows it; it answers every name with this address, and every page with its word.
const WORLD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const HOST: &str = "192.0.2.1";
const WORD: &str = "the world";
/// Whoever else has this group is not on this host.
const KVM_GROUP: &str = "65036";

/// Serves a word to who asks for a page, and the world's on another.
const SERVER: &str = "mkdir -p /www && echo served >/www/index.html; wget -qO /www/world http://world.example/; \
                      trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait";

/// A host, and nobody on it, who may open /dev/net/tun (as udev has it) and, as one of its group, /dev/kvm.
pub struct Host {
    folder: tempfile::TempDir,
    isolab: PathBuf,
}

impl Host {
    /// The calling thread, and what it starts, is on it from now on.
    pub fn new() -> Self {
        let world = world();
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        tool("ip", &["link", "set", "lo", "up"]);
        let path = format!("/proc/{}/fd/{}", std::process::id(), world.as_raw_fd());
        tool("ip", &["link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", &path]);
        tool("ip", &["address", "add", &format!("{HOST}/24"), "dev", "up0"]);
        tool("ip", &["link", "set", "up0", "up"]);
        tool("ip", &["route", "add", "default", "via", &WORLD.to_string()]);
        inhabit(world);

        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("bin")).unwrap();
        fs::set_permissions(at("bin"), fs::Permissions::from_mode(0o755)).unwrap();
        let isolab = install_isolab(&at("bin"));
        tool("cp", &["-r", text(&busybox_layout()), text(&at("layout"))]);
        fs::write(at("resolv.conf"), format!("nameserver {WORLD}\n")).unwrap();
        fs::create_dir_all(at(".cache/isolab")).unwrap();
        tool("mknod", &["-m", "666", text(&at("tun")), "c", "10", "200"]);
        tool("chown", &["-R", "65534:65534", text(folder.path())]);
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if Path::new("/dev/kvm").exists() {
            tool("mknod", &["-m", "660", text(&at("kvm")), "c", "10", "232"]);
            tool("chgrp", &[KVM_GROUP, text(&at("kvm"))]);
        }
        let host = Self { folder, isolab };
        host.isolab(&["image", "load", text(&host.path("layout"))]).success();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `isolab` as nobody.
    pub fn isolab(&self, words: &[&str]) -> Done {
        self.with_path(&std::env::var("PATH").unwrap_or_default(), words)
    }

    /// Likewise, finding other programs there only.
    fn with_path(&self, path: &str, words: &[&str]) -> Done {
        // The kernels of root's cache, which belong to nobody in particular.
        let script = "mount --bind \"$0/resolv.conf\" /etc/resolv.conf && mount --bind \"$0/tun\" /dev/net/tun && \
                      { [ -z \"$CACHE\" ] || mount --bind \"$CACHE\" \"$0/.cache/isolab\"; } && \
                      { [ ! -e \"$0/kvm\" ] || mount --bind \"$0/kvm\" /dev/kvm; } && \
                      PATH=$NEW_PATH exec /usr/bin/setpriv --reuid 65534 --regid 65534 --groups $GROUP -- \"$@\"";
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", script])
            .arg(self.folder.path())
            .arg(&self.isolab)
            .args(words)
            .env("NEW_PATH", path)
            .env("GROUP", KVM_GROUP)
            .env("CACHE", kernels())
            .env("HOME", self.folder.path())
            .env("XDG_CACHE_HOME", self.path(".cache"))
            .env_remove("XDG_DATA_HOME")
            .stdin(Stdio::null());
        Run::new(command).finish()
    }

    fn run(&self, level: &str, options: &[&str], script: &str) -> Done {
        let begin = ["run", "--isolation", level, "--pull", "never"];
        self.isolab(&[&begin[..], options, &["busybox", "sh", "-c", script]].concat())
    }

    fn field(&self, name: &str, template: &str) -> String {
        let text = self.isolab(&["inspect", "--format", template, name]).success();
        text.trim_end().to_owned()
    }

    /// The processes that move packets for anybody on this host.
    fn connectors(&self) -> Vec<i32> {
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let ids = processes.filter_map(|it| it.file_name().to_str()?.parse::<i32>().ok());
        let is_one = |id: &i32| {
            let line = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let place = fs::read_link(format!("/proc/{id}/ns/net"));
            line.contains("--no-map-gw") && place.is_ok_and(|it| it == own)
        };
        ids.filter(is_one).collect()
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    /// What a test that failed half-way has left.
    fn drop(&mut self) {
        self.isolab(&["rm", "--force", "--all"]);
    }
}

/// Where root's guest kernels are; nowhere on a host that runs no guests.
fn kernels() -> PathBuf {
    match Path::new("/dev/kvm").exists() {
        true => cached("kernels").parent().map(Path::to_owned).unwrap_or_default(),
        false => PathBuf::new(),
    }
}

/// A network namespace that nobody is in.
fn world() -> OwnedFd {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        fs::File::open("/proc/thread-self/ns/net").unwrap().into()
    };
    thread::spawn(make).join().unwrap()
}

/// Brings the world up, with a server of pages and one of names.
fn inhabit(world: OwnedFd) {
    let (telling, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        setns(world.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
        tool("ip", &["address", "add", &format!("{WORLD}/24"), "dev", "eth0"]);
        tool("ip", &["link", "set", "eth0", "up"]);
        let pages = TcpListener::bind(("0.0.0.0", 80)).unwrap();
        let names = UdpSocket::bind(("0.0.0.0", 53)).unwrap();
        telling.send(()).unwrap();
        thread::spawn(move || answer_names(&names));
        for client in pages.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 1024]);
            let page =
                format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{WORD}\n", WORD.len() + 1);
            let _ = client.write_all(page.as_bytes());
        }
    });
    told.recv().unwrap();
}

/// RFC 1035, 4.1: each question of type A with the same answer, all others with none.
fn answer_names(names: &UdpSocket) {
    let mut query = [0; 512];
    while let Ok((length, client)) = names.recv_from(&mut query) {
        let Some(end) = query.get(12..length).and_then(|it| it.iter().position(|byte| *byte == 0))
        else {
            continue;
        };
        let question = &query[12..12 + end + 5];
        let is_a = question[end + 1..end + 3] == [0, 1];
        let count = u8::from(is_a);
        let mut reply = [&query[..2], &[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0], question].concat();
        if is_a {
            reply.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            reply.extend(WORLD.octets());
        }
        let _ = names.send_to(&reply, client);
    }
}

/// Out to the world by address and name, and in by a published port, from each side.
pub fn a_life(level: &str) {
    let host = Host::new();
    let script = "cat /etc/resolv.conf; grep -c '^10.0.2.100' /etc/hosts; \
                  wget -qO- http://192.0.2.2/; wget -qO- http://world.example/";
    // The host's loopback is nobody's but the host's, by whatever address.
    let private = TcpListener::bind("127.0.0.1:7000").unwrap();
    let seen = host.run(level, &["--network", "pasta"], script).success();
    assert_eq!(seen, format!("nameserver 10.0.2.3\n1\n{WORD}\n{WORD}\n"));
    let reach = "for place in 10.0.2.2 127.0.0.1; do timeout 5 wget -qO- http://$place:7000/ && echo reached; done; \
                 echo done";
    assert_eq!(host.run(level, &["--network", "pasta"], reach).success(), "done\n");
    private.set_nonblocking(true).unwrap();
    assert!(private.accept().is_err());
    assert_eq!(host.connectors(), [0; 0]);
    // Without asking, a loopback interface and nobody beside.
    let alone =
        host.run(level, &[], "ls /sys/class/net; wget -qO- http://192.0.2.2/ || echo nothing");
    assert_eq!(alone.success(), "lo\nnothing\n");

    let serve = ["run", "-d", "--isolation", level, "--pull", "never", "--name", "web"];
    let ports = ["-p", "8080:80", "-p", "127.0.0.1::80"];
    let words = [&serve[..], &ports, &["busybox", "sh", "-c", SERVER]].concat();
    host.isolab(&words).success();
    until_answered("http://127.0.0.1:8080/", "served");
    assert_eq!(ask(&format!("http://{HOST}:8080/")).as_deref(), Some("served"));
    let listed = host.isolab(&["port", "web"]).success();
    let second = listed.lines().find_map(|line| line.split_once("127.0.0.1:"));
    let second = second.unwrap_or_else(|| panic!("{listed}")).1;
    assert_eq!(ask(&format!("http://127.0.0.1:{second}/")).as_deref(), Some("served"));
    assert!(listed.contains("80/tcp -> 0.0.0.0:8080\n"), "{listed}");
    let inspected: Value =
        serde_json::from_str(&host.isolab(&["inspect", "web"]).success()).unwrap();
    let settings = &inspected[0]["NetworkSettings"]["Networks"]["pasta"];
    assert_eq!(settings["IPAddress"], "10.0.2.100", "{inspected}");
    assert_eq!(inspected[0]["HostConfig"]["NetworkMode"], "pasta");
    assert_eq!(ask("http://127.0.0.1:8080/world").as_deref(), Some(WORD));
    // Taken by it, and by others.
    let taken = ["--network", "pasta", "-p", "8080:80"];
    host.run(level, &taken, "true").fails_with(125, &["8080", "taken"]);
    // Again, and killed.
    host.isolab(&["restart", "web"]).success();
    until_answered("http://127.0.0.1:8080/", "served");
    assert_eq!(host.connectors().len(), 1);
    let supervisor = host.field("web", "{{.State.ConmonPid}}").parse().unwrap();
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).unwrap();
    until("the packets' mover has ended", || host.connectors().is_empty());
    until("the truth", || host.field("web", "{{.State.Status}}") == "exited");
    assert_eq!(ask("http://127.0.0.1:8080/"), None);
    host.isolab(&["rm", "web"]).success();
}

/// What cannot be is said in one line, with 125.
pub fn failures(level: &str) {
    let host = Host::new();
    host.run(level, &["--network", "isolab0"], "true")
        .fails_with(125, &["isolab0", "root", "pasta"]);
    host.run(level, &["--network-alias", "www", "-p", "80"], "true").fails_with(125, &["root"]);
    host.run(level, &["--network", "pasta", "--network", "host"], "true")
        .fails_with(125, &["pasta"]);
    host.run(level, &["-p", "80:80"], "true").fails_with(125, &["80:80"]);
    host.run(level, &["-p", "[::1]:8080:80"], "true").fails_with(125, &["no IPv6"]);
    // Where there is no such program.
    let words =
        ["run", "--isolation", level, "--pull", "never", "-p", "8080:80", "busybox", "true"];
    let bare = host.path("bin");
    host.with_path(text(&bare), &words).fails_with(125, &["pasta", "PATH", "package passt"]);
    let report = host.with_path(text(&bare), &["check", "--format", "json"]);
    let without = networks_of(&report, "container");
    assert!(without.contains("pasta") && without.contains("passt"), "{without}");
    let report = host.isolab(&["check", "--format", "json"]);
    assert!(!networks_of(&report, "container").contains("networks"), "{report:?}");
    assert_eq!(host.connectors(), [0; 0]);
}

/// What a level is said to be without.
fn networks_of(report: &Done, level: &str) -> String {
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let levels = report["levels"].as_array().unwrap();
    let found = levels.iter().find(|it| it["level"] == level).unwrap();
    found["without"].as_str().unwrap_or_default().to_owned()
}
