//! What is in config.json and this runtime does not know: properties are passed over, as runc does and config.md
//! ("Extensibility") demands, and values are not ("Valid values"). Needs root.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use serde_json::{Value, json};

use support::Bundle;

/// Objects whose keys are the user's own.
const MAPS: [&str; 5] = ["annotations", "sysctl", "timeOffsets", "unified", "netDevices"];

/// Adds what nobody knows to each object, and tells to how many.
fn add_unknown(value: &mut Value) -> usize {
    match value {
        Value::Object(fields) => {
            let known = fields.iter_mut().filter(|(name, _)| !MAPS.contains(&name.as_str()));
            let count: usize = known.map(|(_, field)| add_unknown(field)).sum();
            fields.insert("org.example.unknown".to_owned(), json!({"deep": [{"er": null}]}));
            fields.insert("Unknown".to_owned(), json!(7));
            count + 1
        }
        Value::Array(all) => all.iter_mut().map(add_unknown).sum(),
        _ => 0,
    }
}

/// A configuration with an object of every kind that this host can do something about.
fn full(spec: &mut Value) {
    spec["annotations"] = json!({"org.example.a": "b"});
    spec["process"]["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "hard": 99, "soft": 99}]);
    spec["process"]["consoleSize"] = json!({"height": 24, "width": 80});
    spec["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 5});
    spec["process"]["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 1});
    spec["process"]["execCPUAffinity"] = json!({"initial": "0", "final": "0"});
    spec["hooks"] = json!({"poststop": [{"path": "/bin/true"}]});
    spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1000, "nanosecs": 0}});
    spec["linux"]["personality"] = json!({"domain": "LINUX"});
    spec["linux"]["devices"] = json!([{"path": "/dev/one", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0, "gid": 0}]);
    spec["linux"]["resources"] = json!({
        "devices": [{"allow": true, "access": "rwm"}], "memory": {"limit": 100_000_000},
        "cpu": {"shares": 512}, "pids": {"limit": 100}, "unified": {}, "hugepageLimits": [],
        "blockIO": {"weight": null}, "network": {"priorities": []},
    });
    spec["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["acct"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}],
    });
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
}

#[test]
fn unknown_properties_change_nothing() {
    let script = "ulimit -n; busybox cat /proc/self/uid_map /proc/self/timens_offsets; busybox stat -c %t:%T \
                  /dev/one; busybox grep -E 'Cap|Secc|NoNew' /proc/self/status; busybox cut -d' ' -f5- /proc/self/mountinfo";
    let run = |change: fn(&mut Value)| {
        let bundle = Bundle::new(script);
        bundle.configure(full);
        bundle.configure(change);
        let folder = bundle.dir.path().to_str().unwrap().to_owned();
        // A mount of its root is by its own folder's name.
        bundle.oci(&["run", "--bundle", &folder, &bundle.id]).fine().replace(&folder, "")
    };
    let known = run(|_| ());
    assert!(known.starts_with("99\n") && known.contains("\n1:3\n"), "{known}");
    let with_unknown = run(|spec| assert!(add_unknown(spec) > 25, "{spec}"));
    assert_eq!(with_unknown, known);
}

#[test]
fn unknown_values_are_refused_by_their_names() {
    for (pointer, value) in [
        ("/ociVersion", json!("2.0.0")),
        ("/process/capabilities/bounding/0", json!("CAP_UNKNOWN")),
        ("/process/rlimits/0/type", json!("RLIMIT_UNKNOWN")),
        ("/process/scheduler/policy", json!("SCHED_UNKNOWN")),
        ("/process/ioPriority/class", json!("IOPRIO_CLASS_UNKNOWN")),
        ("/linux/namespaces/0/type", json!("unknown")),
        ("/linux/personality/domain", json!("UNKNOWN")),
        ("/linux/devices/0/type", json!("unknown")),
        ("/linux/resources/devices/0/access", json!("rwu")),
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_UNKNOWN")),
        ("/linux/timeOffsets", json!({"unknown": {"secs": 1}})),
        ("/linux/rootfsPropagation", json!("unknown")),
        ("/linux/sysctl", json!({"unknown.name": "1"})),
        ("/linux/resources/unified", json!({"unknown.file": "1"})),
    ] {
        let bundle = Bundle::new("true");
        bundle.configure(full);
        bundle.configure(|spec| {
            let (parent, name) = pointer.rsplit_once('/').unwrap();
            match spec.pointer_mut(pointer) {
                Some(place) => *place = value.clone(),
                None => spec.pointer_mut(parent).unwrap()[name] = value.clone(),
            }
        });
        let folder = bundle.dir.path().to_str().unwrap();
        let answer = bundle.oci(&["create", "--bundle", folder, &bundle.id]);
        // serde and the runtime name the value, or its place.
        let word = match &value {
            Value::String(word) => word.as_str(),
            _ => "unknown",
        };
        let names = answer.errors.contains(word)
            || answer.errors.contains(pointer.rsplit('/').next().unwrap());
        assert!(answer.code == 1 && names, "{pointer}: {answer:?}");
        bundle.is_gone();
    }
}
