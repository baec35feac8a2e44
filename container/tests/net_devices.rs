//! Network devices that become a container's, in network namespaces made for the test. Needs root.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use isolab_container::Container;
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::{Value, json};

use support::{Fixture, run};

/// Puts this thread, and with it what it starts, into a network namespace of its own, and makes what `script` makes.
fn alone(script: &str) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip(script);
}

/// Runs the lines by ip(8), and tells what it said.
fn ip(script: &str) -> String {
    let mut said = String::new();
    for line in script.lines() {
        let output = Command::new("ip").args(line.split_whitespace()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ip {line}: {errors}");
        said += &String::from_utf8(output.stdout).unwrap();
    }
    said
}

/// The names of the links here.
fn links() -> Vec<String> {
    let links: Vec<Value> = serde_json::from_str(&ip("-j link")).unwrap();
    links.iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
}

fn with_devices(
    fixture: &Fixture,
    script: &str,
    devices: Value,
) -> isolab_container::ContainerConfig {
    fixture.changed(&["sh", "-c", script], |spec| spec["linux"]["netDevices"] = devices)
}

const PAIRS: &str = "link add d0 address 02:00:00:00:00:07 mtu 1400 type veth peer p0
link add d1 type veth peer p1
link add d2 type veth peer p2";

#[test]
fn devices_are_moved_with_their_addresses_and_come_up() {
    alone(PAIRS);
    ip("address add 10.1.2.3/24 broadcast 10.1.2.255 dev d0
address add 10.1.2.4/24 dev d0
address add 10.9.9.9 peer 10.9.9.8/32 dev d0
address add fd00:1::3/64 nodad dev d0
address add 10.1.3.1/24 valid_lft 1000 preferred_lft 1000 dev d0
address add 10.1.4.1/24 scope link dev d0");
    let fixture = Fixture::new();
    let script = "cd /sys/class/net; for d in eth0 d1 lan0; do cat $d/address $d/mtu $d/flags; done; echo; \
                  ip address show dev eth0; ip address show dev d1";
    let devices = json!({"d0": {"name": "eth0"}, "d1": {}, "d2": {"name": "lan%d"}});
    let output = run(with_devices(&fixture, script, devices)).unwrap().output;
    let (files, addresses) = output.split_once("\n\n").unwrap();
    let files: Vec<&str> = files.lines().collect();
    assert_eq!(files[..2], ["02:00:00:00:00:07", "1400"], "{output}");
    for flags in [files[2], files[5], files[8]] {
        let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap();
        assert_eq!(flags & 1, 1, "it is not up: {output}");
    }
    for kept in [
        "inet 10.1.2.3/24 brd 10.1.2.255 scope global eth0",
        "inet 10.1.2.4/24",
        "inet 10.9.9.9 peer 10.9.9.8/32",
        "inet6 fd00:1::3/64",
    ] {
        assert!(addresses.contains(kept), "{kept}: {addresses}");
    }
    // What would end, or is for the link alone, stays behind (config-linux.md).
    assert!(!addresses.contains("10.1.3.1") && !addresses.contains("10.1.4.1"), "{addresses}");
    // They go with the container's namespace, whose end nobody tells of.
    let deadline = Instant::now() + Duration::from_secs(60);
    while links() != ["lo"] {
        assert!(Instant::now() < deadline, "{:?}", links());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_joined_namespace_and_a_user_namespace_s_own_get_them_too() {
    alone(PAIRS);
    let host = File::open("/proc/thread-self/ns/net").unwrap();
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    ip("link add lan0 type veth peer lan2");
    let joined = File::open("/proc/thread-self/ns/net").unwrap();
    setns(&host, CloneFlags::CLONE_NEWNET).unwrap();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&joined));

    let fixture = Fixture::new();
    let place = |spec: &mut Value, devices: Value| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "network");
        namespaces.push(json!({"type": "network", "path": path}));
        spec["linux"]["netDevices"] = devices;
    };
    // The name is taken: nothing is moved, the one before it neither.
    let config = fixture.changed(&["true"], |spec| {
        place(spec, json!({"d0": {}, "d1": {"name": "lan0"}}));
    });
    let error = Container::create(config).unwrap_err().to_string();
    assert!(error.contains("linux.netDevices") && error.contains("lan0 already"), "{error}");
    assert!(links().contains(&"d0".to_owned()), "{:?}", links());
    // But for a template, for which the kernel finds the next.
    let script = "cd /sys/class/net; echo *";
    let config = fixture.changed(&["sh", "-c", script], |spec| {
        place(spec, json!({"d0": {"name": "lan%d"}, "d1": {"name": "wan"}}));
    });
    assert_eq!(run(config).unwrap().output, "lan0 lan1 lan2 lo wan\n");
    // The namespace is not the container's alone: they stay in it.
    setns(&joined, CloneFlags::CLONE_NEWNET).unwrap();
    assert!(links().contains(&"lan1".to_owned()), "{:?}", links());
    setns(&host, CloneFlags::CLONE_NEWNET).unwrap();

    let config = fixture.changed(
        &["sh", "-c", "cat /sys/class/net/eth0/operstate; ls /sys/class/net"],
        |spec| {
            spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
            (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
            spec["linux"]["netDevices"] = json!({"d2": {"name": "eth0"}});
        },
    );
    let output = run(config).unwrap().output;
    assert!(output.ends_with("eth0\nlo\n"), "{output}");
}

#[test]
fn what_cannot_be_moved_is_named_and_stays() {
    alone(PAIRS);
    let fixture = Fixture::new();
    let fails = |devices: Value, words: &[&str]| {
        let error = Container::create(with_devices(&fixture, "true", devices)).unwrap_err();
        let text = error_reporter::Report::new(error).pretty(false).to_string();
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    };
    fails(json!({"d0": {}, "none0": {}}), &["find network device none0"]);
    fails(json!({"d0": {"name": "a/b"}}), &["linux.netDevices", "a/b"]);
    // A loopback interface is its namespace's own.
    fails(json!({"d0": {}, "lo": {"name": "lo7"}}), &["move network device lo "]);
    let shared = fixture.changed(&["true"], |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "network");
        spec["linux"]["netDevices"] = json!({"d1": {}});
    });
    let error = Container::create(shared).unwrap_err().to_string();
    assert!(error.contains("linux.netDevices") && error.contains("network namespace"), "{error}");
    assert!(links().contains(&"d1".to_owned()), "{:?}", links());
}
