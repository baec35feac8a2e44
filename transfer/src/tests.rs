use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tar::{Builder, EntryType, Header};

use super::*;

fn tree(path: &Path) -> Tree {
    Tree::open(path).unwrap()
}

#[test]
fn as_root_files_arrive_as_they_were() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = from.path().join("d");
    fs::create_dir_all(source.join("in/empty")).unwrap();
    fs::write(source.join("in/file"), vec![7; 100_000]).unwrap();
    let long = "long".repeat(60);
    fs::write(source.join(&long), "x").unwrap();
    symlink("/etc/passwd", source.join("link")).unwrap();
    chown(source.join("in/file"), Some(12), Some(34)).unwrap();
    fs::set_permissions(source.join("in/file"), Permissions::from_mode(0o4751)).unwrap();
    fs::set_permissions(source.join("in"), Permissions::from_mode(0o2700)).unwrap();
    xattr::set(source.join("in/file"), "user.note", b"a\0b").unwrap();
    let mut archive = Vec::new();
    tree(from.path()).send(Path::new("/d"), Path::new("e"), &mut archive).unwrap();
    for (rights, mode) in [(Rights::Kept, 0o4751), (Rights::Dropped, 0o751)] {
        tree(to.path()).receive(Path::new("/"), rights, &archive[..]).unwrap();
        let file = to.path().join("e/in/file");
        let (old, new) =
            (fs::metadata(source.join("in/file")).unwrap(), fs::metadata(&file).unwrap());
        assert_eq!((new.uid(), new.gid(), new.mode() & 0o7777), (12, 34, mode));
        assert_eq!((new.len(), new.mtime()), (100_000, old.mtime()));
        assert_eq!(xattr::get(&file, "user.note").unwrap().unwrap(), b"a\0b");
        assert_eq!(fs::read_link(to.path().join("e/link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::read(to.path().join("e").join(&long)).unwrap(), b"x");
        assert!(to.path().join("e/in/empty").is_dir());
    }
}

#[test]
fn hard_links_stay_links_and_holes_holes() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = from.path().join("d");
    fs::create_dir_all(source.join("in")).unwrap();
    fs::write(source.join("one"), "1").unwrap();
    fs::hard_link(source.join("one"), source.join("in/two")).unwrap();
    fs::hard_link(source.join("one"), from.path().join("outside")).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    sparse.write_at(b"x", 5 << 20).unwrap();
    sparse.set_len(9 << 20).unwrap();
    let mut archive = Vec::new();
    tree(from.path()).send(Path::new("/d"), Path::new("e"), &mut archive).unwrap();
    tree(to.path()).receive(Path::new("/"), Rights::Kept, &archive[..]).unwrap();
    let look = |name: &str| fs::metadata(to.path().join("e").join(name)).unwrap();
    let (one, two, sparse) = (look("one"), look("in/two"), look("sparse"));
    assert_eq!((one.ino(), one.nlink()), (two.ino(), 2));
    assert!(sparse.len() == 9 << 20 && sparse.blocks() * 512 <= 128 << 10, "{sparse:?}");
    let content = fs::read(to.path().join("e/sparse")).unwrap();
    assert!(content[5 << 20] == b'x' && content.iter().filter(|byte| **byte != 0).count() == 1);
}

#[test]
fn links_end_inside_and_the_last_one_is_copied_as_one() {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "x").unwrap();
    let root = outer.path().join("root");
    fs::create_dir_all(root.join("etc")).unwrap();
    symlink("../../../..", root.join("up")).unwrap();
    symlink("/etc", root.join("abs")).unwrap();
    symlink(outer.path(), root.join("out")).unwrap();
    let tree = tree(&root);
    for (path, found) in [
        ("/up/etc", Some(Kind::Folder)),
        ("/abs", Some(Kind::Folder)),
        ("/../../etc/.", Some(Kind::Folder)),
        ("/up/secret", None),
        ("/out/secret", None),
        ("/none", None),
    ] {
        assert_eq!(tree.look(Path::new(path)).unwrap().map(|it| it.0), found, "{path}");
    }
    let error = tree.send(Path::new("/out/secret"), Path::new("s"), Vec::new()).unwrap_err();
    assert!(matches!(error, TransferError::Missing(_)), "{error}");
    let mut archive = Vec::new();
    tree.send(Path::new("/out"), Path::new("out"), &mut archive).unwrap();
    let mut archive = tar::Archive::new(&archive[..]);
    let kinds: Vec<_> =
        archive.entries().unwrap().map(|it| it.unwrap().header().entry_type()).collect();
    assert_eq!(kinds, [EntryType::Symlink]);
}

/// An archive that no honest sender makes: `append` does not check names.
fn hostile(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (name, kind, target) in entries {
        let mut header = Header::new_gnu();
        let bytes = &mut header.as_gnu_mut().unwrap().name;
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        let link = &mut header.as_gnu_mut().unwrap().linkname;
        link[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o666);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        header.set_cksum();
        archive.append(&header, std::io::empty()).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn a_hostile_archive_leaves_nothing_outside() {
    use EntryType::{Block, Link, Regular, Symlink};
    for entries in [
        &[("../evil", Regular, "")][..],
        &[("/evil", Regular, "")],
        &[("a/../../evil", Regular, "")],
        &[("way", Symlink, ".."), ("way/evil", Regular, "")],
        &[("hard", Link, "../secret")],
        &[("hard", Link, "/secret")],
        &[("disk", Block, "")],
    ] {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("secret"), "x").unwrap();
        fs::create_dir(outer.path().join("root")).unwrap();
        let archive = hostile(entries);
        let tree = tree(&outer.path().join("root"));
        tree.receive(Path::new("/"), Rights::Kept, &archive[..]).unwrap_err();
        let mut names: Vec<_> =
            fs::read_dir(outer.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["root", "secret"], "{entries:?}");
    }
}

/// A name of a tebibyte, of which a hostile guest never sends the end.
#[test]
fn what_a_header_is_said_to_be_long_is_not_believed() {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::GNULongName);
    header.set_size(1 << 40);
    header.set_cksum();
    let limit = 64 << 20;
    let mut input = header.as_bytes().chain(io::repeat(b'x')).take(limit);
    let target = tempfile::tempdir().unwrap();
    tree(target.path()).receive(Path::new("/"), Rights::Kept, &mut input).unwrap_err();
    let read = limit - input.limit();
    assert!(read <= metered::MAX_HEADER, "{read} bytes were read");
}

/// Somebody inside exchanges a folder for a link to the outside, all the time.
#[test]
fn an_exchange_on_the_way_leads_nowhere() {
    let outer = tempfile::tempdir().unwrap();
    let (root, outside) = (outer.path().join("root"), outer.path().join("outside"));
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, root.join("link")).unwrap();
    fs::write(root.join("a/b/own"), "own").unwrap();
    let mut archive = Vec::new();
    tree(&root).send(Path::new("/a/b"), Path::new("a/b"), &mut archive).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let path = |name: &str| root.join(name);
            while !done.load(Ordering::Relaxed) {
                let _ = fs::rename(path("a/b"), path("kept"));
                let _ = fs::rename(path("link"), path("a/b"));
                let _ = fs::rename(path("a/b"), path("link"));
                let _ = fs::rename(path("kept"), path("a/b"));
            }
        });
        for _ in 0..3000 {
            let tree = tree(&root);
            // Either may fail, when there is a link where a folder was.
            let _ = tree.receive(Path::new("/"), Rights::Kept, &archive[..]);
            let _ = tree.receive(
                Path::new("/a/b"),
                Rights::Kept,
                &hostile(&[("new", EntryType::Regular, "")])[..],
            );
            let mut sent = Vec::new();
            let _ = tree.send(Path::new("/a"), Path::new("a"), &mut sent);
            let _ = tree.send(Path::new("/a/b/secret"), Path::new("s"), &mut sent);
            assert!(!sent.windows(6).any(|word| word == b"secret"), "it was read");
        }
        done.store(true, Ordering::Relaxed);
    });
    let names: Vec<_> = fs::read_dir(&outside).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["secret"], "something was written");
}
