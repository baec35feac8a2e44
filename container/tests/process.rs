//! What `process` and the rest of `linux` ask for, by what the kernel says of the process. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use isolab_container::{Container, Stdio, Stream};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use serde_json::{Value, json};

use support::{Fixture, capture, read_all, run};

fn shell(fixture: &Fixture, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let outcome = run(fixture.changed(&["sh", "-c", script], change)).unwrap();
    assert_eq!(outcome.status.code(), 0, "{outcome:?}");
    outcome.output
}

#[test]
fn each_scheduler() {
    let fixture = Fixture::new();
    for (scheduler, expected) in [
        (json!({"policy": "SCHED_OTHER", "nice": 5}), "0 0"),
        (json!({"policy": "SCHED_BATCH", "nice": 3}), "0 3"),
        (json!({"policy": "SCHED_IDLE"}), "0 5"),
        (json!({"policy": "SCHED_FIFO", "priority": 7}), "7 1"),
        (json!({"policy": "SCHED_RR", "priority": 9, "flags": ["SCHED_RESET_ON_FORK"]}), "9 2"),
    ] {
        // Fields 19, 40 and 41 of proc_pid_stat(5): nice, real-time priority, policy; of the shell itself.
        let script =
            "read line < /proc/self/stat; set -- $line; shift 18; n=$1; shift 21; echo $1 $2 $n";
        let config = fixture.changed(&["sh", "-c", script], |spec| {
            spec["process"]["scheduler"] = scheduler.clone()
        });
        // A real-time policy takes a budget of the cgroup's, which version 1 gives to none.
        let output = match run(config) {
            Ok(outcome) => outcome.output,
            Err(error) => {
                assert!(error.to_string().contains("process.scheduler"), "{error}");
                assert!(scheduler["priority"].is_number(), "{scheduler} {error}");
                continue;
            }
        };
        let nice = scheduler["nice"].as_i64().unwrap_or(0);
        assert!(output.starts_with(expected), "{scheduler}: {output}");
        assert!(
            scheduler["nice"].is_null() || output.trim().ends_with(&format!(" {nice}")),
            "{scheduler}: {output}"
        );
    }
    for bad in [json!({"policy": "SCHED_ISO"}), json!({"policy": "SCHED_FIFO", "priority": -1})] {
        let config = fixture.changed(&["true"], |spec| spec["process"]["scheduler"] = bad);
        let error = Container::create(config).unwrap_err().to_string();
        assert!(error.contains("process.scheduler"), "{error}");
    }
}

#[test]
fn what_the_process_is_given() {
    let fixture = Fixture::new();
    let nodes = fs::read_to_string("/sys/devices/system/node/online").is_ok();
    let script = "ionice -p $$; busybox uname -m; umask; id -G; cat /proc/self/oom_score_adj; \
                  grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs)' /proc/self/status; \
                  busybox hostname; cat /proc/sys/kernel/domainname; cat /proc/sys/net/ipv4/ip_forward; ulimit -n; \
                  touch /x 2>&1; true";
    let output = shell(&fixture, script, |spec| {
        let process = &mut spec["process"];
        process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
        process["user"] = json!({"uid": 0, "gid": 0, "umask": 0o27, "additionalGids": [5, 77], "username": "ignored"});
        process["oomScoreAdj"] = json!(321);
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 88}]);
        process["noNewPrivileges"] = json!(true);
        process["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"], "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_CHOWN", "CAP_KILL"], "inheritable": ["CAP_CHOWN", "CAP_KILL"], "ambient": ["CAP_KILL"],
        });
        spec["domainname"] = json!("example.test");
        spec["root"]["readonly"] = json!(true);
        let linux = &mut spec["linux"];
        linux["personality"] = json!({"domain": "LINUX32"});
        linux["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        if nodes {
            linux["memoryPolicy"] =
                json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]});
        }
    });
    let expected = "best-effort: prio 6\ni686\n0027\n0 5 77\n321\n\
        CapInh:\t0000000000000021\nCapPrm:\t0000000000000021\nCapEff:\t0000000000000021\nCapBnd:\t0000000000002021\n\
        CapAmb:\t0000000000000020\nNoNewPrivs:\t1\ntesthost\nexample.test\n1\n77\ntouch: /x: Read-only file system\n";
    assert_eq!(output, expected);
    if nodes {
        let output = shell(
            &fixture,
            "grep -c bind:0 /proc/self/numa_maps || true; grep -c default /proc/self/numa_maps || true",
            |spec| {
                spec["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "0"});
            },
        );
        if !output.starts_with("grep") {
            let counts: Vec<u32> = output.lines().filter_map(|line| line.parse().ok()).collect();
            assert!(counts.first().is_none_or(|bound| *bound > 0), "{output}");
        }
    }
    for (field, value, words) in [
        ("personality", json!({"domain": "LINUX", "flags": ["x"]}), "linux.personality.flags"),
        ("memoryPolicy", json!({"mode": "MPOL_BIND"}), "linux.memoryPolicy"),
        ("memoryPolicy", json!({"mode": "MPOL_DEFAULT", "nodes": "0"}), "linux.memoryPolicy"),
        ("memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "1000"}), "linux.memoryPolicy"),
        ("timeOffsets", json!({"monotonic": {"secs": 1}}), "linux.timeOffsets"),
    ] {
        let config = fixture.changed(&["true"], |spec| spec["linux"][field] = value);
        let error = Container::create(config).unwrap_err().to_string();
        assert!(error.contains(words), "{field}: {error}");
    }
}

#[test]
fn further_processes_keep_to_their_cpus() {
    let fixture = Fixture::new();
    let mut container = Container::create(fixture.config(&["sleep", "1000"])).unwrap();
    container.start().unwrap();
    let exec = |affinity: Value| {
        let process = isolab_container::default_process(
            ["grep", "Cpus_allowed_list", "/proc/self/status"].map(String::from).to_vec(),
            vec![support::PATH.to_owned()],
        );
        let mut json = serde_json::to_value(process).unwrap();
        json["execCPUAffinity"] = affinity;
        json["scheduler"] = json!({"policy": "SCHED_BATCH"});
        let mut stdio = Stdio::null();
        let output = capture(&mut stdio);
        let process = serde_json::from_value(json).unwrap();
        let executed = container
            .handle()
            .unwrap()
            .exec(&process, stdio)
            .map(|executed| executed.wait().map(|s| s.code()).ok());
        (executed.map_err(|error| error.to_string()), read_all(output))
    };
    let ours = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let last = (0..CpuSet::count()).rfind(|cpu| ours.is_set(*cpu).unwrap()).unwrap();
    let (code, output) = exec(json!({"initial": "0", "final": last.to_string()}));
    assert_eq!((code, output), (Ok(Some(0)), format!("Cpus_allowed_list:\t{last}\n")));
    let (code, output) = exec(json!({"initial": "0"}));
    assert_eq!((code, output.as_str()), (Ok(Some(0)), "Cpus_allowed_list:\t0\n"));
    let (refused, _) = exec(json!({"final": "8000"}));
    assert!(refused.unwrap_err().contains("process.execCPUAffinity.final"));
}

#[test]
fn a_time_namespace_has_its_offsets_and_further_processes_are_in_it() {
    let has_time = Path::new("/proc/self/ns/time").exists();
    assert!(has_time, "this test needs a kernel with time namespaces (CONFIG_TIME_NS)");
    let fixture = Fixture::new();
    let script = "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime; sleep 1000";
    let mut config = fixture.changed(&["sh", "-c", &script.replace("cut", "busybox cut")], |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "time"}));
        spec["linux"]["timeOffsets"] = json!({"monotonic": {"secs": 1000, "nanosecs": 5}, "boottime": {"secs": 5_000_000}});
    });
    let output = BufReader::new(fs::File::from(capture(&mut config.stdio)));
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    // The two lines of timens_offsets and that of uptime, before the container is ended.
    let output: Vec<String> = output.lines().take(3).map(Result::unwrap).collect();
    let words: Vec<&str> = output.iter().flat_map(|line| line.split_whitespace()).collect();
    assert_eq!(words[..6], ["monotonic", "1000", "5", "boottime", "5000000", "0"]);
    assert!(words[6].parse::<u64>().unwrap() > 5_000_000, "{output:?}");
    let process = isolab_container::default_process(
        ["sh", "-c", "readlink /proc/self/ns/time; readlink /proc/1/ns/time"]
            .map(String::from)
            .to_vec(),
        vec![support::PATH.to_owned()],
    );
    let mut stdio = Stdio::null();
    let said = capture(&mut stdio);
    container.handle().unwrap().exec(&process, stdio).unwrap().wait().unwrap();
    let said = read_all(said);
    let links: Vec<&str> = said.lines().collect();
    assert_eq!(links[0], links[1]);
    assert_ne!(links[0], fs::read_link("/proc/self/ns/time").unwrap().to_str().unwrap());
}

#[test]
fn several_ranges_of_ids() {
    let fixture = Fixture::new();
    use std::os::unix::fs::{PermissionsExt, chown};
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in ["upper", "work", "rootfs"] {
        chown(fixture.path(path), Some(200_000), Some(300_000)).unwrap();
    }
    let output = shell(&fixture, "cat /proc/self/uid_map /proc/self/gid_map; id", |spec| {
        let linux = &mut spec["linux"];
        linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let maps = |first: u32| {
            json!([
                {"containerID": 0, "hostID": first, "size": 10}, {"containerID": 10, "hostID": first + 500, "size": 20},
                {"containerID": 1000, "hostID": first + 900, "size": 5},
            ])
        };
        (linux["uidMappings"], linux["gidMappings"]) = (maps(200_000), maps(300_000));
        spec["process"]["user"] = json!({"uid": 1003, "gid": 12, "additionalGids": [3]});
        spec["mounts"].as_array_mut().unwrap().retain(|one| one["destination"] != "/dev/pts");
    });
    let words: Vec<&str> = output.split_whitespace().collect();
    let expected = "0 200000 10 10 200500 20 1000 200900 5 0 300000 10 10 300500 20 1000 300900 5";
    assert_eq!(words[..18].join(" "), expected);
    assert!(output.contains("uid=1003 gid=12 groups=3"), "{output}");
}

#[test]
fn streams_are_as_given() {
    let fixture = Fixture::new();
    let mut config = fixture.config(&["sh", "-c", "ls /proc/self/fd | wc -l"]);
    config.stdio.stdin = Stream::Null;
    // Three, and the one that ls looks with.
    assert_eq!(run(config).unwrap().output, "4\n");
}
