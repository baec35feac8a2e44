//! What `features` tells, tried: each name is asked for in a configuration, and what comes of it is looked at from inside
//! where the host can do it; where it cannot, the error is the host's and names the field. Needs root.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;

use isolab_container::capability_mask;
use isolab_container::oci::{Capability, Features};
use serde_json::{Value, json};

use support::{Answer, Bundle};

/// What a configuration's container says, or why there is none.
fn run(bundle: &Bundle) -> Answer {
    bundle.oci(&["run", "--bundle", bundle.dir.path().to_str().unwrap(), &bundle.id])
}

fn asked(script: &str, change: impl FnOnce(&mut Value)) -> Answer {
    let bundle = Bundle::new(script);
    bundle.configure(change);
    run(&bundle)
}

fn told() -> Value {
    serde_json::from_str(&Bundle::new("true").oci(&["features"]).fine()).unwrap()
}

/// The names at `pointer` of what is told.
fn names(pointer: &str) -> Vec<String> {
    let names = told().pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).clone();
    let names: Vec<String> = serde_json::from_value(names).unwrap();
    assert!(!names.is_empty(), "{pointer}");
    names
}

#[test]
fn nothing_is_told_that_this_test_does_not_try() {
    let told = told();
    // All of it is of the specification's structure, and read as that.
    serde_json::from_value::<Features>(told.clone()).unwrap();
    let keys = |pointer: &str| -> Vec<String> {
        told.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys(""), ["hooks", "linux", "mountOptions", "ociVersionMax", "ociVersionMin"]);
    let linux = [
        "apparmor",
        "capabilities",
        "cgroup",
        "intelRdt",
        "memoryPolicy",
        "mountExtensions",
        "namespaces",
        "netDevices",
        "seccomp",
        "selinux",
    ];
    assert_eq!(keys("/linux"), linux);
    // `limits` and `systemd` run on both versions of cgroups and try these; the others are below.
    let cgroup =
        json!({"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true});
    assert_eq!(told["linux"]["cgroup"], cgroup);
    assert_eq!(told["linux"]["intelRdt"], json!({"enabled": false}));
    for (name, of) in
        [("apparmor", ""), ("selinux", ""), ("netDevices", ""), ("mountExtensions", "/idmap")]
    {
        assert_eq!(told["linux"][name].pointer(of), Some(&json!({"enabled": true})), "{name}");
    }
    for version in ["ociVersionMin", "ociVersionMax"] {
        asked("true", |spec| spec["ociVersion"] = told[version].clone()).fine();
    }
}

#[test]
fn hooks() {
    let bundle = Bundle::new("true");
    let said = bundle.path("said");
    let hooks = names("/hooks");
    bundle.configure(|spec| {
        for name in &hooks {
            // The one that runs in the container's root does not see the file.
            let script = match name.as_str() {
                "startContainer" => format!("echo {name} >/tmp/said"),
                _ => format!("echo {name} >>{}", said.display()),
            };
            spec["hooks"][name] = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        }
    });
    run(&bundle).fine();
    let mut said = fs::read_to_string(said).unwrap();
    said += &fs::read_to_string(bundle.path("rootfs/tmp/said")).unwrap();
    let mut said: Vec<&str> = said.lines().collect();
    said.sort_unstable();
    let mut hooks = hooks;
    hooks.sort_unstable();
    assert_eq!(said, hooks);
}

#[test]
fn mount_options() {
    let bundle = Bundle::new("busybox cat /proc/self/mountinfo");
    // Not in /tmp, which may be a tmpfs: of these Linux maps ids from 6.3 on.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let source = folder.path();
    let mount = |word: &str| {
        let destination = format!("/tmp/{word}");
        let bind = |words: &[&str]| json!({"destination": destination, "source": source, "options": words});
        let tmpfs = |words: &[&str]| json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": words});
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1000}]);
        match word {
            "bind" | "rbind" => vec![bind(&[word])],
            "idmap" | "ridmap" => {
                let mut mount = bind(&["bind", word]);
                (mount["uidMappings"], mount["gidMappings"]) = (map.clone(), map);
                vec![mount]
            }
            "remount" => vec![tmpfs(&[]), tmpfs(&[word])],
            _ => vec![tmpfs(&[word])],
        }
    };
    let words = names("/mountOptions");
    bundle.configure(|spec| {
        spec["mounts"].as_array_mut().unwrap().extend(words.iter().flat_map(|word| mount(word)));
    });
    let table = run(&bundle).fine();
    for word in &words {
        assert!(table.contains(&format!(" /tmp/{word} ")), "{word}: {table}");
    }
    // tmpfs refuses what the runtime leaves to it.
    let unknown = asked("true", |spec| {
        spec["mounts"].as_array_mut().unwrap().extend(mount("no-such-option"));
    });
    unknown.fails(1, "/tmp/no-such-option");
}

#[test]
fn namespaces() {
    let kinds = names("/linux/namespaces");
    assert_eq!(kinds.len(), 8);
    let file = |kind: &str| match kind {
        "mount" => "mnt".to_owned(),
        "network" => "net".to_owned(),
        other => other.to_owned(),
    };
    let script: String = kinds
        .iter()
        .map(|kind| format!("busybox readlink /proc/self/ns/{};", file(kind)))
        .collect();
    let output = asked(&script, |spec| {
        let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (map.clone(), map);
        spec["linux"]["namespaces"] = kinds.iter().map(|kind| json!({"type": kind})).collect();
    });
    let output = output.fine();
    let seen: Vec<&str> = output.lines().collect();
    assert_eq!(seen.len(), kinds.len(), "{output}");
    for (kind, seen) in kinds.iter().zip(seen) {
        let ours = fs::read_link(format!("/proc/self/ns/{}", file(kind))).unwrap();
        assert_ne!(ours.to_str(), Some(seen), "{kind}");
    }
}

#[test]
fn capabilities() {
    let told = names("/linux/capabilities");
    let mask = |name: &String| {
        let one: Capability = serde_json::from_value(json!(name)).unwrap();
        capability_mask(&Some([one].into()))
    };
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap().trim();
    let held = u64::from_str_radix(held, 16).unwrap();
    let (have, have_not): (Vec<_>, Vec<_>) = told.iter().partition(|name| mask(name) & held != 0);
    let sets =
        |names: &[&String]| json!({"bounding": names, "permitted": names, "effective": names});
    let output = asked("busybox grep CapEff /proc/self/status", |spec| {
        spec["process"]["capabilities"] = sets(&have);
    });
    let all = have.iter().fold(0, |all, name| all | mask(name));
    assert_eq!(output.fine(), format!("CapEff:\t{all:016x}\n"));
    for name in have_not {
        let refused = asked("true", |spec| spec["process"]["capabilities"] = sets(&[name]));
        refused.fails(1, name);
    }
    asked("true", |spec| spec["process"]["capabilities"] = sets(&[&"CAP_NO_SUCH".to_owned()]))
        .fails(1, "CAP_NO_SUCH");
}

#[test]
fn seccomp() {
    assert_eq!(told()["linux"]["seccomp"]["enabled"], true);
    let bundle = Bundle::new("busybox grep Seccomp: /proc/self/status");
    let socket = bundle.path("listener");
    let listener = UnixListener::bind(&socket).unwrap();
    // Calls that nobody makes, one for each name.
    let calls = [
        "acct",
        "swapon",
        "swapoff",
        "reboot",
        "quotactl",
        "init_module",
        "nfsservctl",
        "vhangup",
        "umask",
    ];
    let (actions, operators) = (names("/linux/seccomp/actions"), names("/linux/seccomp/operators"));
    assert!(actions.len() <= calls.len() && operators.len() <= calls.len());
    let mut rules: Vec<Value> = actions
        .iter()
        .zip(calls)
        .map(|(action, call)| json!({"names": [call], "action": action}))
        .collect();
    rules.extend(operators.iter().map(|operator| {
        let arg = json!({"index": 0, "value": 7, "valueTwo": 1, "op": operator});
        json!({"names": ["ioperm"], "action": "SCMP_ACT_ERRNO", "args": [arg]})
    }));
    let seccomp = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": names("/linux/seccomp/archs"),
        "flags": names("/linux/seccomp/supportedFlags"), "syscalls": rules, "listenerPath": socket,
    });
    bundle.configure(|spec| spec["linux"]["seccomp"] = seccomp.clone());
    assert_eq!(run(&bundle).fine(), "Seccomp:\t2\n");
    drop(listener);
    let known = names("/linux/seccomp/knownFlags");
    assert!(names("/linux/seccomp/supportedFlags").iter().all(|flag| known.contains(flag)));
    for (pointer, value) in [
        ("/syscalls/0/action", "SCMP_ACT_NONE"),
        ("/syscalls/9/args/0/op", "SCMP_CMP_NONE"),
        ("/architectures/0", "SCMP_ARCH_NONE"),
        ("/flags/0", "SECCOMP_FILTER_FLAG_NONE"),
    ] {
        let refused = asked("true", |spec| {
            spec["linux"]["seccomp"] = seccomp.clone();
            *spec["linux"]["seccomp"].pointer_mut(pointer).unwrap() = json!(value);
        });
        refused.fails(1, value);
    }
}

#[test]
fn memory_policies() {
    // Of another kernel, or one without NUMA: not this runtime's to say.
    let is_host_s = |answer: &Answer| answer.errors.contains("set linux.memoryPolicy");
    for mode in names("/linux/memoryPolicy/modes") {
        let mut policy = json!({"mode": mode});
        if !["MPOL_DEFAULT", "MPOL_LOCAL"].contains(&mode.as_str()) {
            policy["nodes"] = json!("0");
        }
        let answer = asked("true", |spec| spec["linux"]["memoryPolicy"] = policy);
        assert!(answer.code == 0 || is_host_s(&answer), "{mode}: {answer:?}");
    }
    for flag in names("/linux/memoryPolicy/flags") {
        let policy = json!({"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]});
        let answer = asked("true", |spec| spec["linux"]["memoryPolicy"] = policy);
        assert!(answer.code == 0 || is_host_s(&answer), "{flag}: {answer:?}");
    }
    for policy in [
        json!({"mode": "MPOL_NONE"}),
        json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NONE"]}),
    ] {
        asked("true", |spec| spec["linux"]["memoryPolicy"] = policy).fails(1, "_NONE");
    }
}

/// What depends on the host is tried by `labels` and container/tests/net_devices.rs.
#[test]
fn what_this_host_lacks_is_named() {
    let missing = asked("true", |spec| spec["linux"]["netDevices"] = json!({"none0": {}}));
    missing.fails(1, "none0");
    asked("true", |spec| spec["linux"]["intelRdt"] = json!({"closID": "one"}))
        .fails(1, "linux.intelRdt");
    for (file, field) in
        [("/sys/module/apparmor", "apparmorProfile"), ("/sys/fs/selinux/enforce", "selinuxLabel")]
    {
        if !Path::new(file).exists() {
            let refused = asked("true", |spec| spec["process"][field] = json!("any"));
            refused.fails(1, &format!("process.{field}"));
        }
    }
}
