//! Root file systems of the host's ids in user namespaces: files are inside what they are on the disk, and what is written
//! there is the host's. Needs root, and a file system that can map ids.
#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs::{self, Permissions};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use isolab_container::{
    Container, ExitStatus, RootFilesystem, as_root_of_joined_user_namespace, default_process,
    user_and_network_namespace,
};
use nix::sys::signal::{Signal, raise};
use serde_json::{Value, json};

use support::{Fixture, PATH, capture, read_all, run};

/// 65536 ids from this one on are the container's.
const FIRST: u32 = 200_000;

fn maps(spec: &mut Value) {
    let maps = json!([{"containerID": 0, "hostID": FIRST, "size": 65536}]);
    (spec["linux"]["uidMappings"], spec["linux"]["gidMappings"]) = (maps.clone(), maps);
    spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
}

/// Two layers, of which the upper one hides a folder's content, as layers do that root has unpacked.
fn layers(fixture: &Fixture) -> RootFilesystem {
    let (below, above) = (fixture.path("rootfs"), fixture.path("above"));
    fs::create_dir_all(below.join("var/old")).unwrap();
    fs::create_dir_all(above.join("var")).unwrap();
    let path = std::ffi::CString::new(above.join("var").to_str().unwrap()).unwrap();
    // SAFETY: three C strings and the length of one, which the kernel reads.
    let set = unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"trusted.overlay.opaque".as_ptr(),
            c"y".as_ptr().cast(),
            1,
            0,
        )
    };
    assert_eq!(set, 0);
    fs::write(below.join("etc/seven"), "").unwrap();
    chown(below.join("etc/seven"), Some(7), Some(8)).unwrap();
    let (upper, work) = (fixture.path("upper"), fixture.path("work"));
    RootFilesystem::Overlay { lower: vec![above, below], upper, work }
}

#[test]
fn files_are_the_container_s_inside_and_the_host_s_on_the_disk() {
    // As an instance's folder, it is root's alone.
    let fixture = Fixture::on_disk();
    fs::set_permissions(fixture.dir.path(), Permissions::from_mode(0o700)).unwrap();
    fs::write(fixture.path("hosts"), "of the host\n").unwrap();
    let script = "stat -c %u:%g / /bin/busybox /etc/seven; ls /var; echo x >/etc/new; chown 7:8 /etc/new; \
                  mkdir /var/made; rm /etc/seven; cat /etc/hosts; stat -c %u /etc/hosts /etc/plain; id -u; \
                  cat /proc/self/uid_map; cat /proc/self/oom_score_adj; grep -c ' / / ' /proc/self/mountinfo; touch /etc/plain || echo read-only";
    let mut config = fixture.changed(&["sh", "-c", script], |spec| {
        maps(spec);
        spec["process"]["oomScoreAdj"] = json!(300);
        let file = |target: &str, options: &[&str]| {
            json!({"destination": target, "type": "bind", "source": fixture.path("hosts"), "options": options})
        };
        let mounts = spec["mounts"].as_array_mut().unwrap();
        mounts.push(file("/etc/hosts", &["bind", "idmap"]));
        mounts.push(file("/etc/plain", &["bind", "ro"]));
    });
    (config.rootfs, config.map_ids) = (layers(&fixture), true);
    let output = run(config).unwrap().output;
    let lines: Vec<&str> = output.lines().collect();
    // What is bound without a map belongs to nobody there.
    let expected = ["0:0", "0:0", "7:8", "of the host", "0", "65534", "0"];
    assert_eq!(lines[..7], expected, "{output}");
    assert_eq!(lines[7].split_whitespace().collect::<Vec<_>>(), ["0", "200000", "65536"]);
    assert!(lines[8] == "300" && output.ends_with("read-only\n"), "{output}");
    let owner = |path: &str| {
        let metadata = fs::symlink_metadata(fixture.path("upper").join(path)).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!((owner("etc/new"), owner("var/made")), ((7, 8), (0, 0)));
    assert!(support::mounts_below(fixture.dir.path()).is_empty());
}

#[test]
fn a_namespace_that_was_made_before_is_joined_with_its_network() {
    let fixture = Fixture::on_disk();
    let mut spec = json!({"linux": {"namespaces": []}});
    maps(&mut spec);
    let map = serde_json::from_value::<Vec<_>>(spec["linux"]["uidMappings"].clone()).unwrap();
    let [user, network] = user_and_network_namespace(&map, &map).unwrap();
    let script = "ip link set lo up && ip addr add 10.1.2.3/32 dev lo && ip addr show dev lo; touch /made && stat -c %u /made; \
                  for n in user net; do readlink /proc/self/ns/$n; done; cat /proc/self/oom_score_adj; echo ready; exec sleep 1000";
    let mut config = fixture.changed(&["sh", "-c", script], |spec| {
        maps(spec);
        spec["process"]["oomScoreAdj"] = json!(300);
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|one| one["type"] != "network" && one["type"] != "user");
        let path = |fd: i32| format!("/proc/self/fd/{fd}");
        namespaces.push(json!({"type": "user", "path": path(user.as_raw_fd())}));
        namespaces.push(json!({"type": "network", "path": path(network.as_raw_fd())}));
        for set in ["effective", "permitted", "bounding"] {
            let set = spec["process"]["capabilities"][set].as_array_mut().unwrap();
            set.push(json!("CAP_NET_ADMIN"));
        }
    });
    (config.rootfs, config.map_ids) = (layers(&fixture), true);
    let output = capture(&mut config.stdio);
    let mut container = Container::create(config).unwrap();
    container.start().unwrap();
    let mut reader = std::io::BufReader::new(fs::File::from(output));
    let mut said = String::new();
    while !said.contains("ready") {
        assert!(std::io::BufRead::read_line(&mut reader, &mut said).unwrap() > 0, "{said}");
    }
    // Root there is root of its network: it has the host's capabilities for it.
    assert!(said.contains("10.1.2.3") && said.contains("\n0\n"), "{said}");
    assert!(said.ends_with("\n300\nready\n"), "{said}");
    for namespace in ["user", "net"] {
        let link = fs::read_link(format!("/proc/{}/ns/{namespace}", container.pid())).unwrap();
        assert!(said.contains(link.to_str().unwrap()), "{namespace}: {said}");
    }
    let process = default_process(
        ["sh", "-c", "id -u; stat -c %u /made"].map(String::from).to_vec(),
        vec![PATH.to_owned()],
    );
    let mut stdio = isolab_container::Stdio::null();
    let exec = capture(&mut stdio);
    container.handle().unwrap().exec(&process, stdio).unwrap().wait().unwrap();
    assert_eq!(read_all(exec), "0\n0\n");
}

#[test]
fn work_is_done_as_root_of_a_container_s_namespace_and_of_nothing_else() {
    let mut spec = json!({"linux": {"namespaces": []}});
    maps(&mut spec);
    let map = serde_json::from_value::<Vec<_>>(spec["linux"]["uidMappings"].clone()).unwrap();
    let [user, network] = user_and_network_namespace(&map, &map).unwrap();
    let folder = tempfile::tempdir().unwrap();
    chown(folder.path(), Some(FIRST), Some(FIRST)).unwrap();
    let (made, other) = (folder.path().join("made"), tempfile::tempdir().unwrap());
    let (kept, not_kept) = (fs::File::open("/dev/null").unwrap(), network.as_raw_fd());
    let is_open = |fd: i32| fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
    let run = |work: &mut dyn FnMut() -> u8| {
        as_root_of_joined_user_namespace(user.as_fd(), &[kept.as_fd()], work)
    };
    let whole = run(&mut || {
        let namespace = fs::read_link("/proc/self/ns/user").unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let has_no_groups = status.contains("\nGroups:\t \n");
        fs::write(&made, format!("{namespace:?}")).unwrap();
        let is_root = chown(&made, Some(7), Some(8)).is_ok();
        let is_denied = fs::write(other.path().join("x"), "").is_err();
        let open = (is_open(kept.as_raw_fd()), is_open(not_kept));
        let all = [has_no_groups, is_root, is_denied, open == (true, false)];
        all.into_iter().fold(0, |bits, it| bits << 1 | u8::from(it))
    });
    assert_eq!(whole.unwrap(), ExitStatus::Exited(0b1111));
    let owner = fs::metadata(&made).unwrap();
    assert_eq!((owner.uid(), owner.gid()), (FIRST + 7, FIRST + 8));
    let entered = fs::read_to_string(&made).unwrap();
    assert_ne!(entered, format!("{:?}", fs::read_link("/proc/self/ns/user").unwrap()));
    let killed = run(&mut || u8::from(raise(Signal::SIGKILL).is_ok()));
    let signal = Signal::SIGKILL;
    assert_eq!(killed.unwrap(), ExitStatus::Signaled { signal, oom_killed: false });
    // A network namespace is none for users.
    let error = as_root_of_joined_user_namespace(network.as_fd(), &[], || 0).unwrap_err();
    assert!(error.to_string().contains("a user namespace"), "{error}");
}

#[test]
fn what_cannot_be_mapped_is_an_error_and_leaves_nothing() {
    let fixture = Fixture::on_disk();
    let fails = |change: fn(&mut Value), rootfs: RootFilesystem, words: &str| {
        let mut config = fixture.changed(&["true"], change);
        (config.rootfs, config.map_ids) = (rootfs, true);
        let error = Container::create(config).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    };
    fails(|_| (), fixture.overlay(), "linux.uidMappings");
    fails(maps, RootFilesystem::Directory(fixture.path("rootfs")), "overlay alone");
    let overlay = |lower: &str, work: &str| RootFilesystem::Overlay {
        lower: vec![fixture.path(lower)],
        upper: fixture.path("upper"),
        work: fixture.path(work),
    };
    fails(maps, overlay("absent", "work"), "absent");
    fs::create_dir(fixture.path("upper/work")).unwrap();
    fails(maps, overlay("rootfs", "upper/work"), "rootfs.work");
    // procfs maps no ids.
    let of_proc = RootFilesystem::Overlay {
        lower: vec!["/proc".into()],
        upper: fixture.path("upper"),
        work: fixture.path("work"),
    };
    fails(maps, of_proc, "/proc");
    assert!(support::mounts_below(fixture.dir.path()).is_empty());
}
