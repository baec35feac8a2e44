//! The `mounts` of a configuration, by what the kernel has mounted. Needs root.

#![allow(clippy::unwrap_used, reason = "test support: a failure here is a failure of the test")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use error_reporter::Report;
use isolab_container::Container;
use serde_json::{Value, json};

use support::{Fixture, run};

/// The words of mountinfo for a mount point inside: its options, and what it propagates to.
const LOOK: &str = r#"while read id parent dev root point options rest; do
    case $point in /m|/m/*) echo "$point $options ${rest%%- *}";; esac; done < /proc/self/mountinfo"#;

fn look(fixture: &Fixture, mount: Value) -> Vec<String> {
    let config = fixture.changed(&["sh", "-c", LOOK], |spec| {
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let outcome = run(config).unwrap();
    assert_eq!(outcome.status.code(), 0, "{outcome:?}");
    outcome.output.lines().map(str::to_owned).collect()
}

#[test]
fn every_flag_is_one_of_the_mount() {
    let fixture = Fixture::new();
    let source = fixture.path("source");
    fs::create_dir(&source).unwrap();
    for (option, wanted) in [
        ("ro", "ro"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("nosymfollow", "nosymfollow"),
    ] {
        for (typ, more) in [("tmpfs", None), ("bind", Some("bind"))] {
            let options: Vec<_> = more.into_iter().chain([option]).collect();
            let mount =
                json!({"destination": "/m", "type": typ, "source": source, "options": options});
            let found = look(&fixture, mount);
            let words: Vec<_> = found[0].split([' ', ',']).collect();
            assert!(words.contains(&wanted), "{typ} {option}: {found:?}");
        }
    }
    // What the source has stays, unless it is said not to be.
    let inherited = json!({"destination": "/m", "type": "bind", "source": "/dev/shm", "options": ["bind", "nosuid", "suid", "ro"]});
    assert!(look(&fixture, inherited)[0].starts_with("/m ro"));
    let source_is_nodev = json!([
        {"destination": "/m", "type": "tmpfs", "source": "x", "options": ["nodev", "noexec"]},
    ]);
    assert!(look(&fixture, source_is_nodev[0].clone())[0].contains("nodev,noexec"));
}

#[test]
fn propagation_is_as_asked() {
    let fixture = Fixture::new();
    let source = fixture.path("source");
    fs::create_dir(&source).unwrap();
    for (word, wanted) in [
        ("private", ""),
        ("rprivate", ""),
        ("shared", "shared:"),
        ("rshared", "shared:"),
        ("unbindable", "unbindable"),
    ] {
        let mount = json!({"destination": "/m", "type": "bind", "source": source, "options": ["rbind", word]});
        let found = look(&fixture, mount);
        assert!(
            found[0].contains(wanted) && (wanted == "shared:") == found[0].contains("shared:"),
            "{word}: {found:?}"
        );
    }
}

/// In a mount namespace of its own, so that nothing of the host's is touched.
fn alone(name: &str) {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap());
    let output = command.args(["--ignored", "--exact", name, "--nocapture"]).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn mount(words: &[&str]) {
    assert!(Command::new("mount").args(words).status().unwrap().success(), "{words:?}");
}

#[test]
fn recursive_attributes_reach_all_of_a_tree() {
    alone("inner_recursive");
}

#[test]
#[ignore = "in a mount namespace of its own, by recursive_attributes_reach_all_of_a_tree"]
fn inner_recursive() {
    let fixture = Fixture::new();
    let source = fixture.path("source");
    fs::create_dir_all(source.join("below")).unwrap();
    let text = source.to_str().unwrap();
    mount(&["-t", "tmpfs", "outer", text]);
    fs::create_dir(source.join("below")).unwrap();
    mount(&["-t", "tmpfs", "inner", source.join("below").to_str().unwrap()]);
    for (options, wanted) in [
        (vec!["rbind"], ["rw", "rw"]),
        // The flag alone is of the uppermost.
        (vec!["rbind", "ro"], ["ro", "rw"]),
        (vec!["rbind", "rro"], ["ro", "ro"]),
        (vec!["rbind", "rnosuid"], ["nosuid", "nosuid"]),
        (vec!["rbind", "rnodev"], ["nodev", "nodev"]),
        (vec!["rbind", "rnoexec"], ["noexec", "noexec"]),
        (vec!["rbind", "rnoatime"], ["noatime", "noatime"]),
        (vec!["rbind", "rnodiratime"], ["nodiratime", "nodiratime"]),
        (vec!["rbind", "rnosymfollow"], ["nosymfollow", "nosymfollow"]),
        (vec!["rbind", "ro", "rrw"], ["rw", "rw"]),
    ] {
        let bind = json!({"destination": "/m", "type": "bind", "source": text, "options": options});
        let found = look(&fixture, bind);
        assert_eq!(found.len(), 2, "{found:?}");
        for (line, wanted) in found.iter().zip(wanted) {
            assert!(line.split([' ', ',']).any(|word| word == wanted), "{options:?}: {found:?}");
        }
    }
    // Of a bind whose source is more than is wanted, the words that say so win.
    mount(&["-o", "remount,bind,noexec,nodev", text]);
    let bind =
        json!({"destination": "/m", "type": "bind", "source": text, "options": ["bind", "exec"]});
    let found = look(&fixture, bind);
    assert!(!found[0].contains("noexec") && found[0].contains("nodev"), "{found:?}");
}

#[test]
fn what_is_mounted_inside_is_seen_outside_if_all_of_it_is_shared() {
    alone("inner_shared");
}

#[test]
#[ignore = "in a mount namespace of its own, by what_is_mounted_inside_is_seen_outside_if_all_of_it_is_shared"]
fn inner_shared() {
    let fixture = Fixture::new();
    let source = fixture.path("source");
    fs::create_dir(&source).unwrap();
    mount(&["-t", "tmpfs", "outer", source.to_str().unwrap()]);
    mount(&["--make-rshared", "/"]);
    fs::create_dir(source.join("sub")).unwrap();
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let before = mounts();
    for (propagation, is_seen) in [("rshared", true), ("rslave", false), ("", false)] {
        let config = fixture.changed(&["sh", "-c", "mount -t tmpfs inner /m/sub"], |spec| {
            spec["linux"]["rootfsPropagation"] = json!(propagation);
            spec["linux"]["seccomp"] = Value::Null;
            let admin = json!(["CAP_SYS_ADMIN"]);
            for set in ["bounding", "effective", "permitted"] {
                spec["process"]["capabilities"][set] = admin.clone();
            }
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/m", "type": "bind", "source": source, "options": ["rbind", "rshared"],
            }));
        });
        let outcome = run(config).unwrap();
        assert_eq!((outcome.status.code(), outcome.output.as_str()), (0, ""), "{propagation}");
        let sub = source.join("sub");
        let seen = mounts().lines().filter(|line| line.contains(sub.to_str().unwrap())).count();
        assert_eq!(seen, usize::from(is_seen), "{propagation}");
        if is_seen {
            assert!(Command::new("umount").arg(&sub).status().unwrap().success());
        }
        // And nothing else: neither more nor less is mounted here.
        assert_eq!(mounts(), before, "{propagation}");
    }
}

#[test]
fn a_tmpfs_begins_with_what_is_below_it() {
    let fixture = Fixture::new();
    let below = fixture.path("rootfs/m");
    fs::create_dir_all(below.join("deep/er")).unwrap();
    fs::write(below.join("deep/er/file"), "words").unwrap();
    fs::set_permissions(below.join("deep/er/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    chown(below.join("deep/er"), Some(12), Some(34)).unwrap();
    symlink("/etc/passwd", below.join("link")).unwrap();
    fs::set_permissions(&below, fs::Permissions::from_mode(0o1733)).unwrap();
    let name = "x".repeat(200);
    (0..40).for_each(|number| fs::write(below.join(format!("{name}{number}")), "").unwrap());
    let script = "cd /m; cat deep/er/file; echo; stat -c '%a %u' . ; stat -c '%a %u:%g' deep/er deep/er/file; \
                  readlink link; ls | wc -l; echo more > new; stat -f -c %T .";
    let config = fixture.changed(&["sh", "-c", script], |spec| {
        let options = ["tmpcopyup", "size=4m"];
        let mount =
            json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": options});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let outcome = run(config).unwrap();
    let expected = "words\n1733 0\n755 12:34\n4750 0:0\n/etc/passwd\n42\ntmpfs\n";
    assert_eq!(outcome.output, expected);
    assert!(!below.join("new").exists() && !fixture.path("upper/m/new").exists());
    // What does not fit is an error that says where.
    fs::write(below.join("large"), vec![1u8; 200 << 10]).unwrap();
    let config = fixture.changed(&["true"], |spec| {
        let options = ["tmpcopyup", "size=64k"];
        let mount =
            json!({"destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": options});
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let error = Report::new(Container::create(config).unwrap_err()).to_string();
    assert!(error.contains("/m") && error.contains("No space left"), "{error}");
}

#[test]
fn ids_are_mapped_in_a_mount() {
    alone("inner_id_mapped");
}

#[test]
#[ignore = "in a mount namespace of its own, by ids_are_mapped_in_a_mount"]
fn inner_id_mapped() {
    let fixture = Fixture::on_disk();
    let (source, inner) = (fixture.path("source"), fixture.path("inner"));
    for folder in [&source, &source.join("below"), &inner] {
        fs::create_dir(folder).unwrap();
    }
    mount(&["--bind", source.to_str().unwrap(), source.to_str().unwrap()]);
    mount(&["--bind", inner.to_str().unwrap(), source.join("below").to_str().unwrap()]);
    for path in [source.join("file"), source.join("below/file")] {
        fs::write(&path, "").unwrap();
        chown(&path, Some(1), Some(2)).unwrap();
    }
    let maps = |first: u32| json!([{"containerID": 0, "hostID": first, "size": 1000}]);
    let script = "stat -c '%u:%g' /m/file /m/below/file; touch /m/new";
    let (mapped, nobody) = ("5001:7002\n", "1:2\n");
    for (options, wanted) in [
        (json!(["rbind", "ridmap"]), [mapped, mapped]),
        (json!(["rbind", "idmap"]), [mapped, nobody]),
        // The mappings alone say that there are any.
        (json!(["rbind"]), [mapped, nobody]),
    ] {
        let config = fixture.changed(&["sh", "-c", script], |spec| {
            spec["mounts"].as_array_mut().unwrap().push(json!({
                "destination": "/m", "type": "bind", "source": source, "options": options,
                "uidMappings": maps(5000), "gidMappings": maps(7000),
            }));
        });
        let outcome = run(config).unwrap();
        // Root has no id there.
        assert!(outcome.output.starts_with(&wanted.concat()), "{options}: {outcome:?}");
        assert!(!source.join("new").exists());
    }
    // In a user namespace, by its own mappings: its root is the host's there.
    fs::set_permissions(fixture.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for path in ["upper", "work", "rootfs"] {
        chown(fixture.path(path), Some(100_000), Some(100_000)).unwrap();
    }
    let config = fixture.changed(&["sh", "-c", "touch /m/mine; stat -c %u /m/mine"], |spec| {
        let linux = &mut spec["linux"];
        linux["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        (linux["uidMappings"], linux["gidMappings"]) = (maps.clone(), maps);
        spec["mounts"].as_array_mut().unwrap().push(json!({
            "destination": "/m", "type": "bind", "source": source, "options": ["bind", "idmap"],
        }));
    });
    let outcome = run(config).unwrap();
    assert_eq!(outcome.output, "0\n");
    assert_eq!(fs::metadata(source.join("mine")).unwrap().uid(), 0);
}

#[test]
fn the_cgroup_tree_is_the_container_s_own_with_and_without_a_namespace() {
    let fixture = Fixture::new();
    for kept in ["new", "none", "joined"] {
        let script = "cd /sys/fs/cgroup; d=pids; [ -d pids ] || d=.; cat $d/cgroup.procs | wc -l; touch $d/x 2>&1";
        let config = fixture.changed(&["sh", "-c", script], |spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            if kept != "new" {
                namespaces.retain(|one| one["type"] != "cgroup");
            }
            if kept == "joined" {
                namespaces.push(json!({"type": "cgroup", "path": "/proc/self/ns/cgroup"}));
            }
        });
        let outcome = run(config).unwrap();
        let mut lines = outcome.output.lines();
        let processes: usize = lines.next().unwrap().parse().unwrap();
        assert_eq!(outcome.output.matches("Read-only").count(), 1, "{kept}: {outcome:?}");
        // The shell, cat and wc: not the host's, except where the host's namespace is asked for.
        assert!(processes <= 4 || kept == "joined", "{kept}: {outcome:?}");
    }
    assert!(Path::new("/sys/fs/cgroup").exists());
}
