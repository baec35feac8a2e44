//! Limits as an engine sets and changes them, and what it hears of them, on whichever version of cgroups the host has:
//! `scripts/test` runs this on both. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use support::Bundle;

/// Allocates and touches about 200 MiB: dd's buffer.
const ALLOCATE: &str = "busybox dd if=/dev/zero of=/dev/null bs=200M count=1";

fn is_version_2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A control file of the container's, found where its process is.
fn control(bundle: &Bundle, controller: &str, file: &str) -> Option<String> {
    let state: Value = serde_json::from_str(&bundle.oci(&["state", &bundle.id]).fine()).unwrap();
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", state["pid"])).unwrap();
    let of = |controller: &str| {
        let path = cgroups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|known| known == controller).then_some(path)
        })?;
        Some(path.trim_start_matches('/').to_owned())
    };
    let top = PathBuf::from("/sys/fs/cgroup");
    let directory = match (of(controller), of("")) {
        (Some(path), _) => top.join(controller).join(path),
        (None, Some(path)) if is_version_2() => top.join(path),
        (None, Some(path)) => top.join("unified").join(path),
        (None, None) => panic!("{cgroups}"),
    };
    fs::read_to_string(directory.join(file)).ok().map(|text| text.trim().to_owned())
}

/// What is asked, and by which control files it is seen: of version 1 and of version 2, controller, file, value.
type Row = (Value, [(&'static str, &'static str, &'static str); 2]);

#[test]
fn every_limit_is_in_its_control_file() {
    let none = ("", "", "");
    let rows: [Row; 8] = [
        (
            json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432}}),
            [
                ("memory", "memory.soft_limit_in_bytes", "33554432"),
                ("memory", "memory.low", "33554432"),
            ],
        ),
        (
            json!({"cpu": {"shares": 512, "quota": 50_000, "period": 100_000}}),
            [("cpu", "cpu.shares", "512"), ("cpu", "cpu.max", "50000 100000")],
        ),
        (json!({"cpu": {"shares": 512}}), [none, ("cpu", "cpu.weight", "20")]),
        (
            json!({"cpu": {"quota": 50_000, "burst": 10_000}}),
            [("cpu", "cpu.cfs_burst_us", "10000"), ("cpu", "cpu.max.burst", "10000")],
        ),
        (json!({"cpu": {"idle": 1}}), [("cpu", "cpu.idle", "1"), ("cpu", "cpu.idle", "1")]),
        (
            json!({"cpu": {"cpus": "0", "mems": "0"}}),
            [("cpuset", "cpuset.cpus", "0"), ("cpuset", "cpuset.cpus", "0")],
        ),
        (json!({"pids": {"limit": 9}}), [("pids", "pids.max", "9"), ("pids", "pids.max", "9")]),
        (
            json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}]}),
            [("hugetlb", "hugetlb.2MB.max", "4194304"), ("hugetlb", "hugetlb.2MB.max", "4194304")],
        ),
    ];
    for (resources, seen) in rows {
        let (controller, file, value) = seen[usize::from(is_version_2())];
        if file.is_empty() {
            continue;
        }
        let bundle = Bundle::new("true");
        bundle.configure(|spec| spec["linux"]["resources"] = resources.clone());
        let created = bundle.create();
        // A kernel may lack a controller or a file: an error that names the field, and nothing else.
        if created.code != 0 {
            let field = resources.as_object().unwrap().keys().next().unwrap().clone();
            assert!(created.errors.contains(&format!("linux.resources.{field}")), "{created:?}");
            assert!(
                created.errors.contains("not supported by this host")
                    || created.errors.contains("no cgroup hierarchy here has"),
                "{created:?}"
            );
            eprintln!("left out: {}", created.errors);
            bundle.is_gone();
            continue;
        }
        assert_eq!(control(&bundle, controller, file).as_deref(), Some(value), "{resources}");
        bundle.oci(&["delete", "--force", &bundle.id]).fine();
        bundle.is_gone();
    }
}

#[test]
fn what_the_version_of_cgroups_has_not_is_refused_by_its_field() {
    let (resources, field) = if is_version_2() {
        (json!({"memory": {"swappiness": 10}}), "memory.swappiness")
    } else {
        (json!({"unified": {"memory.high": "100000000"}}), "unified")
    };
    for (resources, field) in [
        (resources, field),
        (json!({"network": {"classID": 1_048_577}}), "network.classID"),
        (json!({"rdma": {"mlx5_1": {"hcaHandles": 3}}}), "rdma"),
        (json!({"cpu": {"quota": 1, "period": 1}}), "cpu."),
        (json!({"cpu": {"cpus": "4000"}}), "cpu.cpus"),
    ] {
        let bundle = Bundle::new("true");
        bundle.configure(|spec| spec["linux"]["resources"] = resources);
        bundle.create().fails(1, &format!("linux.resources.{field}"));
        bundle.is_gone();
    }
}

#[test]
fn limits_change_while_it_runs() {
    let bundle = Bundle::new("exec sleep 1000");
    bundle.configure(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 67_108_864});
        spec["linux"]["resources"]["cpu"] = json!({"quota": 50_000, "period": 100_000});
    });
    bundle.create().fine();
    bundle.oci(&["start", &bundle.id]).fine();
    let memory = || {
        let version_1 = || control(&bundle, "memory", "memory.limit_in_bytes");
        control(&bundle, "memory", "memory.max").or_else(version_1).unwrap()
    };
    let cpu = || {
        let version_1 = || {
            let [quota, period] = ["quota", "period"]
                .map(|what| control(&bundle, "cpu", &format!("cpu.cfs_{what}_us")));
            Some(format!("{} {}", quota?, period?))
        };
        control(&bundle, "cpu", "cpu.max").or_else(version_1).unwrap()
    };
    let update = |words: &[&str]| bundle.oci(&[&["update"], words, &[&bundle.id]].concat());
    update(&["--memory", "128m", "--pids-limit", "20"]).fine();
    let pids = || control(&bundle, "pids", "pids.max").unwrap();
    assert_eq!((memory().as_str(), pids().as_str()), ("134217728", "20"));
    // A quota above the old period, and a period below the old quota: one has to come first.
    update(&["--cpu-quota", "300000", "--cpu-period", "200000"]).fine();
    assert_eq!(cpu(), "300000 200000");
    update(&["--cpu-quota", "2000", "--cpu-period", "2000"]).fine();
    assert_eq!((cpu().as_str(), memory().as_str()), ("2000 2000", "134217728"));
    let file = bundle.path("change");
    fs::write(&file, json!({"memory": {"limit": 100_663_296}, "pids": {"limit": -1}}).to_string())
        .unwrap();
    update(&["--resources", file.to_str().unwrap()]).fine();
    assert_eq!((memory().as_str(), pids().as_str()), ("100663296", "max"));
    update(&[]).fails(1, "nothing to change");
    update(&["--cpuset-cpus", "4000"]).fails(1, "linux.resources.cpu.cpus");
    bundle.oci(&["kill", &bundle.id, "KILL"]).fine();
    bundle.wait_for("it stops", || bundle.status() == "stopped");
    update(&["--memory", "256m"]).fails(1, "it is stopped");
    bundle.delete();
}

#[test]
fn events_tell_what_is_used_and_that_memory_ran_out() {
    let script = format!(
        "exec 2>/dev/null; while [ ! -e /tmp/go ]; do sleep 0.02; done; {ALLOCATE}; exec sleep 1000"
    );
    let bundle = Bundle::new(&script);
    bundle.configure(|spec| {
        spec["linux"]["resources"]["memory"] = json!({"limit": 33_554_432, "swap": 33_554_432});
        spec["linux"]["resources"]["pids"] = json!({"limit": 30});
    });
    bundle.oci(&["events", "--stats", &bundle.id]).fails(1, "does not exist");
    bundle.create().fine();
    bundle.oci(&["start", &bundle.id]).fine();
    let stats: Value =
        serde_json::from_str(&bundle.oci(&["events", "--stats", &bundle.id]).fine()).unwrap();
    assert_eq!((&stats["type"], &stats["id"]), (&json!("stats"), &json!(bundle.id)));
    let data = &stats["data"];
    assert_eq!(data["memory"]["usage"]["limit"], 33_554_432);
    assert_eq!(data["pids"]["limit"], 30);
    for (figure, least) in [
        (&data["cpu"]["usage"]["total"], 1),
        (&data["memory"]["usage"]["usage"], 1),
        (&data["pids"]["current"], 1),
    ] {
        assert!(figure.as_u64().unwrap() >= least, "{stats}");
    }

    let mut events = bundle.command(&["events", "--interval", "10ms", &bundle.id]);
    let mut running = events.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut kinds = Vec::new();
    for line in lines {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        kinds.push(event["type"].as_str().unwrap().to_owned());
        if kinds.len() == 2 {
            assert_eq!(kinds, ["stats", "stats"]);
            fs::write(bundle.path("rootfs/tmp/go"), "").unwrap();
        }
        if event["type"] == "oom" {
            // Its end is that of the container.
            bundle.oci(&["kill", &bundle.id, "KILL"]).fine();
        }
    }
    assert!(running.wait().unwrap().success());
    assert!(kinds.contains(&"oom".to_owned()), "{kinds:?}");
    bundle.delete();
}
