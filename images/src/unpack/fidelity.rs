//! What GNU tar packed comes out as it was, in a layer's folder and on a root disk.

use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use sha2::{Digest as _, Sha256};

use crate::testing::{add_image, new_store};

/// CAP_NET_RAW in the permitted set, as setcap writes it (linux/capability.h, version 2).
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A folder with one of everything.
fn everything(root: &Path) {
    let path = |name: &str| root.join(name);
    let set_mode = |name: &str, mode| {
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::create_dir_all(path("dir/sticky")).unwrap();
    fs::write(path("plain"), "plain").unwrap();
    fs::write(path("dir/setuid"), "s").unwrap();
    fs::hard_link(path("plain"), path("dir/hard")).unwrap();
    symlink("plain", path("link")).unwrap();
    symlink("/absolute/../nowhere", path("dangling")).unwrap();
    let node = |name: &str, kind, device| {
        mknod(&path(name), kind, Mode::from_bits_truncate(0o620), device).unwrap();
    };
    node("null", SFlag::S_IFCHR, makedev(1, 3));
    node("block", SFlag::S_IFBLK, makedev(259, 70_000));
    node("fifo", SFlag::S_IFIFO, 0);
    fs::write(path(&"long".repeat(60)), "long name").unwrap();
    let deep = format!("{}/{}", "d".repeat(200), "e".repeat(200));
    fs::create_dir_all(path(&deep)).unwrap();
    fs::write(path(&deep).join("file"), "deep").unwrap();
    let latin = std::ffi::OsString::from_vec(b"caf\xe9".to_vec());
    fs::write(root.join(latin), "no UTF-8").unwrap();
    fs::write(path("unicode \u{1f980}"), "crab").unwrap();
    for (name, uid, gid) in [("plain", 1000, 100), ("dir", 3_000_000, 4_000_000), ("link", 7, 8)] {
        lchown(path(name), Some(uid), Some(gid)).unwrap();
    }
    set_mode("dir/setuid", 0o6755);
    set_mode("dir/sticky", 0o1777);
    set_mode("plain", 0o400);
    xattr::set(path("plain"), "user.note", b"text").unwrap();
    xattr::set(path("plain"), "security.capability", &NET_RAW).unwrap();
    xattr::set(path("dir"), "user.binary", &[0, 255, 10]).unwrap();
    xattr::set(path("dir"), "trusted.secret", b"t").unwrap();
    let sparse = File::create(path("sparse")).unwrap();
    sparse.write_all_at(b"beginning", 0).unwrap();
    sparse.write_all_at(b"middle", 7 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    let empty = File::create(path("hole")).unwrap();
    empty.set_len(2 << 20).unwrap();
    for (name, seconds, nanoseconds) in
        [("plain", 1_234_567_890, 123_456_789), ("link", 5, 0), ("dir/sticky", 1_000_000_000, 5)]
    {
        let time = TimeSpec::new(seconds, nanoseconds);
        let flags = UtimensatFlags::NoFollowSymlink;
        utimensat(nix::fcntl::AT_FDCWD, &path(name), &time, &time, flags).unwrap();
    }
}

/// One line a file: everything that must be kept.
fn listing(root: &Path, with_fractions: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let name = folder.join(entry.unwrap().file_name());
            let path = root.join(&name);
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mut attributes: Vec<_> = xattr::list(&path)
                .unwrap()
                .map(|name| (name.clone(), xattr::get(&path, name).unwrap()))
                .collect();
            attributes.sort();
            let content = if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else if metadata.is_file() {
                Sha256::digest(fs::read(&path).unwrap()).to_vec()
            } else {
                Vec::new()
            };
            let links = if metadata.is_dir() { 0 } else { metadata.nlink() };
            let fraction = if with_fractions { metadata.mtime_nsec() } else { 0 };
            lines.push(format!(
                "{} {:o} {}:{} rdev={:x} links={links} {}.{fraction} {attributes:?} {content:x?}",
                name.as_os_str().as_bytes().escape_ascii(),
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
                metadata.rdev(),
                metadata.mtime(),
            ));
            if metadata.is_dir() {
                folders.push(name);
            }
        }
    }
    lines.sort();
    lines
}

fn assert_same(what: &str, expected: &[String], found: &[String]) {
    let differ: Vec<_> = expected.iter().zip(found).filter(|(a, b)| a != b).take(3).collect();
    assert!(differ.is_empty(), "{what}: {differ:#?}");
    assert_eq!(expected.len(), found.len(), "{what}");
}

/// Packs with GNU tar. PAX keeps everything; the older formats keep neither extended attributes
/// nor fractions of seconds.
fn pack(tree: &Path, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .arg("-C")
        .arg(tree)
        .args(["--sparse", "--sort=name", "-cf", "-"])
        .args(arguments)
        .arg(".")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A disk's files, mounted until this is dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new(disk: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let status = Command::new("mount")
            .args(["-t", "erofs", "-o", "loop,ro"])
            .arg(disk)
            .arg(dir.path())
            .status()
            .unwrap();
        assert!(status.success(), "the host cannot mount EROFS from a loop device");
        Self(dir)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn as_root_everything_comes_out_as_it_was() {
    let source = tempfile::tempdir().unwrap();
    everything(source.path());
    let with_attributes = ["--xattrs", "--xattrs-include=*"];
    for (format, keeps_all) in [
        (&["--format=posix", "--sparse-version=1.0"][..], true),
        (&["--format=posix", "--sparse-version=0.1"], true),
        (&["--format=gnu"], false),
    ] {
        let (_dir, store) = new_store();
        let arguments = if keeps_all { &with_attributes[..] } else { &[] };
        let image = add_image(&store, None, &[pack(source.path(), &[format, arguments].concat())]);
        let layer = &image.layers_unpacked().unwrap()[0];
        let sparse = fs::metadata(layer.join("sparse")).unwrap();
        assert!(sparse.blocks() * 512 < 1 << 20, "{format:?}: the holes were filled");
        if keeps_all {
            assert_same("layer", &listing(source.path(), true), &listing(layer, true));
            let disk = Mounted::new(&store.root_disk(&image).unwrap());
            assert_same("disk", &listing(source.path(), true), &listing(disk.0.path(), true));
        } else {
            for name in ["plain", "dir"] {
                for attribute in xattr::list(source.path().join(name)).unwrap() {
                    xattr::remove(source.path().join(name), attribute).unwrap();
                }
            }
            assert_same("gnu", &listing(source.path(), false), &listing(layer, false));
        }
    }
}

/// The layers of an image seen through overlayfs are the files of its root disk.
#[test]
fn as_root_a_root_disk_has_what_overlayfs_shows() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    everything(first.path());
    let path = |name: &str| second.path().join(name);
    fs::create_dir_all(path("dir/sticky")).unwrap();
    fs::write(path(".wh.plain"), "").unwrap();
    fs::write(path("dir/sticky/.wh..wh..opq"), "").unwrap();
    fs::write(path("dir/sticky/new"), "new").unwrap();
    // A folder takes a file's place, and a file a folder's.
    fs::create_dir(path("fifo")).unwrap();
    fs::write(path(&"d".repeat(200)), "a file now").unwrap();
    let arguments = ["--format=posix", "--xattrs", "--xattrs-include=*"];
    let layers = [pack(first.path(), &arguments), pack(second.path(), &arguments)];
    let (_dir, store) = new_store();
    let image = add_image(&store, None, &layers);
    let folders = image.layers_unpacked().unwrap();
    let overlay = tempfile::tempdir().unwrap();
    let options = format!("lowerdir={}:{}", folders[0].display(), folders[1].display());
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(overlay.path());
    assert!(mount.status().unwrap().success());
    let seen = listing(overlay.path(), true);
    assert!(Command::new("umount").arg(overlay.path()).status().unwrap().success());
    let disk = Mounted::new(&store.root_disk(&image).unwrap());
    // A file with two names has but one left, and each file system counts links in its own way.
    let without_links = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().map(|line| line.replace("links=2", "links=1")).collect()
    };
    assert_same("disk", &without_links(seen), &without_links(listing(disk.0.path(), true)));
    assert!(!disk.0.path().join("plain").exists());
}
