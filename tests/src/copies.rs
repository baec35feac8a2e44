//! `isolab cp`, the same at every level.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use crate::lifecycle::Bench;
use crate::{Sandbox, text};

const WAIT: &str = "echo ready; while :; do sleep 0.1; done";

/// Into an instance and out of it: names, owners, modes, links, and bytes of all kinds.
pub fn in_and_out(level: &str) {
    let bench = Bench::new(level);
    bench.start(&["--name", "web"], WAIT);
    let host = tempfile::tempdir().unwrap();
    let path = |name: &str| host.path().join(name);
    fs::create_dir_all(path("site/in")).unwrap();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|number| ((number * 7) >> 3) as u8).collect();
    fs::write(path("site/in/data"), &bytes).unwrap();
    chown(path("site/in/data"), Some(12), Some(34)).unwrap();
    fs::set_permissions(path("site/in/data"), Permissions::from_mode(0o4751)).unwrap();
    symlink("/etc/passwd", path("site/link")).unwrap();
    let cp = |from: &str, to: &str| bench.isolab(&["cp", from, to]);
    let site = path("site");
    cp(text(&site), "web:/var").success();
    let look = "cd /var/site; stat -c '%u:%g %a %s' in/data; readlink link";
    let seen = bench.isolab(&["exec", "web", "sh", "-c", look]).success();
    assert_eq!(seen, "12:34 4751 1000000\n/etc/passwd\n", "{level}");
    // To a name of its own, what is in a folder, and one file over another.
    cp(text(&site), "web:/var/other").success();
    cp(&format!("{}/.", text(&site)), "web:/root").success();
    cp(&format!("{}/in/data", text(&site)), "web:/root/in/data").success();
    let names = bench.isolab(&["exec", "web", "sh", "-c", "ls /var/other /root/in"]).success();
    assert_eq!(names, "/root/in:\ndata\n\n/var/other:\nin\nlink\n", "{level}");
    cp("web:/var/site/in", text(host.path())).success();
    let back = path("in/data");
    assert!(fs::read(&back).unwrap() == bytes, "{level}: it is not what it was");
    let metadata = fs::metadata(&back).unwrap();
    // Without set-user-ID.
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (12, 34, 0o751));
    cp("web:/var/site/link", text(&path("copied"))).success();
    assert_eq!(fs::read_link(path("copied")).unwrap().to_str(), Some("/etc/passwd"));
    cp("web:/var/site/in/data", "web:/tmp/twice").success();
    let same = bench.isolab(&["exec", "web", "cmp", "/tmp/twice", "/var/site/in/data"]);
    assert_eq!(same.code(), Some(0), "{same:?}");
    for (from, to, message) in [
        ("web:/no/such", text(host.path()), "web:/no/such: no such file or directory"),
        ("/no/such", "web:/", "/no/such: no such file or directory"),
        (text(&site), "web:/no/such/folder", "/no/such: no such folder"),
        (text(&site), "web:/etc/passwd", "web:/etc/passwd is no folder"),
        (text(&back), "web:/etc/none/", "web:/etc/none/: no such folder"),
        ("gone:/x", text(host.path()), "no such instance: `gone`"),
        ("/a", "/b", "is in an instance"),
    ] {
        cp(from, to).fails_with(125, &[message]);
    }
    bench.isolab(&["stop", "-t", "0", "web"]).success();
    if ["paravirt", "fullvirt"].contains(&level) {
        cp(text(&site), "web:/var")
            .fails_with(125, &["only a guest reads its disk; start it first"]);
    } else {
        stopped(&bench, &site);
    }
    bench.isolab(&["rm", "-f", "web"]).success();
}

/// Into one that does not run, within it, and out of it; it is as it was otherwise, and finds the files when it is
/// started.
fn stopped(bench: &Bench, site: &Path) {
    let cp = |from: &str, to: &str| bench.isolab(&["cp", from, to]);
    cp(text(site), "web:/root/late").success();
    cp("web:/root/late/in/data", "web:/root/again").success();
    cp("web:/root/again", text(&site.join("back"))).success();
    assert!(fs::read(site.join("back")).unwrap() == fs::read(site.join("in/data")).unwrap());
    cp("web:/no/such", text(site)).fails_with(125, &["web:/no/such: no such file"]);
    assert_eq!(bench.field("web", "{{.State.Status}} {{.State.ConmonPid}}"), "exited 0");
    bench.isolab(&["start", "web"]).success();
    let look = "stat -c '%u:%g %a %s' /root/late/in/data; cmp /root/late/in/data /root/again";
    let seen = bench.isolab(&["exec", "web", "sh", "-c", look]).success();
    assert_eq!(seen, "12:34 4751 1000000\n");
    // And into a volume of one that was never started.
    let words = ["create", "--isolation", bench.level(), "--name", "new", "-v", "late:/data"];
    bench.isolab(&[&words[..], &["busybox", "cat", "/data/word"]].concat()).success();
    fs::write(site.join("word"), "kept\n").unwrap();
    cp(text(&site.join("word")), "new:/data").success();
    assert_eq!(bench.isolab(&["start", "-a", "new"]).success(), "kept\n");
    bench.isolab(&["rm", "new"]).success();
}

/// Archives on standard streams, and places that cannot be written.
pub fn archives(level: &str) {
    let sandbox = Sandbox::with_busybox();
    let words =
        ["run", "-d", "--isolation", level, "--read-only", "--name", "web", "-v", "data:/data"];
    let done = sandbox.isolab(&[&words[..], &["busybox", "sh", "-c", WAIT]].concat()).finish();
    done.success();
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "x").unwrap();
    let file = host.path().join("file");
    let place = sandbox.isolab(&["cp", text(&file), "web:/etc"]).finish();
    place.fails_with(125, &["Read-only file system"]);
    sandbox.isolab(&["cp", text(&file), "web:/data"]).finish().success();
    let archive = sandbox.isolab(&["cp", "web:/data/file", "-"]).finish().success();
    assert!(archive.starts_with("file\0") && archive.len() >= 1024, "{level}: {archive:?}");
    let archive = sandbox.isolab(&["cp", "-", "web:/tmp"]).finish_with_input(archive.as_bytes());
    archive.success();
    let seen = sandbox.isolab(&["exec", "web", "cat", "/tmp/file"]).finish().success();
    assert_eq!(seen, "x");
    let nonsense = sandbox.isolab(&["cp", "-", "web:/tmp"]).finish_with_input(&[b'x'; 2000]);
    assert_eq!(nonsense.code(), Some(125), "{nonsense:?}");
    sandbox.isolab(&["rm", "-f", "web"]).finish().success();
}
