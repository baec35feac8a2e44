//! Honest layers arrive as they are; hostile ones end in an error and touch nothing outside.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;

use error_reporter::Report;
use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::*;

/// A layer's archive, written member by member with names that the tar crate would refuse.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn entry(mut self, kind: EntryType, name: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_ustar();
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        fields.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, data: &str) -> Self {
        self.entry(EntryType::Regular, name, "", 0o644, data.as_bytes())
    }

    fn folder(self, name: &str) -> Self {
        self.entry(EntryType::Directory, name, "", 0o755, &[])
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, name, target, 0o777, &[])
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(EntryType::Link, name, target, 0o644, &[])
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// Unpacks into `outer/tree`, so that a test sees what lands beside it.
    fn unpack(self, outer: &TempDir) -> Result<(), ImageError> {
        self.unpack_limited(outer, LIMITS)
    }

    fn unpack_limited(self, outer: &TempDir, limits: Limits) -> Result<(), ImageError> {
        let archive = self.finish();
        let diff_id = BlobId::of(&archive);
        let tree = outer.path().join("tree");
        fs::create_dir_all(&tree).unwrap();
        unpack_verified("sha256:test", io::Cursor::new(archive), &diff_id, &tree, limits).map(drop)
    }
}

fn outer_with_secret() -> TempDir {
    let outer = tempfile::tempdir().unwrap();
    fs::write(outer.path().join("secret"), "untouched").unwrap();
    outer
}

/// Nothing but the tree and the secret is there, and the secret is as it was.
fn assert_nothing_outside(outer: &TempDir) {
    let mut names: Vec<_> =
        fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["secret", "tree"]);
    assert_eq!(fs::read_to_string(outer.path().join("secret")).unwrap(), "untouched");
    assert_eq!(fs::metadata(outer.path().join("secret")).unwrap().nlink(), 1);
}

fn read(outer: &TempDir, path: &str) -> String {
    fs::read_to_string(outer.path().join("tree").join(path)).unwrap()
}

#[test]
fn an_honest_layer_arrives_with_modes_links_and_times() {
    let outer = outer_with_secret();
    Layer::default()
        .folder("./bin/")
        .entry(EntryType::Regular, "./bin/su", "", 0o4755, b"su")
        .hard_link("./bin/doas", "./bin/su")
        .symlink("./bin/sh", "/bin/su")
        .entry(EntryType::Fifo, "pipe", "", 0o600, &[])
        .file("deep/without/parents", "x")
        .unpack(&outer)
        .unwrap();
    let tree = outer.path().join("tree");
    let su = fs::metadata(tree.join("bin/su")).unwrap();
    assert_eq!(su.mode() & 0o7777, 0o4755);
    assert_eq!((su.nlink(), su.mtime()), (2, 1_000_000_000));
    assert_eq!(fs::metadata(tree.join("bin")).unwrap().mtime(), 1_000_000_000);
    assert_eq!(fs::read_link(tree.join("bin/sh")).unwrap(), Path::new("/bin/su"));
    assert!(fs::metadata(tree.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(read(&outer, "deep/without/parents"), "x");
    assert_nothing_outside(&outer);
}

#[test]
fn as_root_whiteouts_become_those_of_overlayfs() {
    let outer = outer_with_secret();
    Layer::default()
        .file("etc/.wh.passwd", "")
        .folder("var/")
        .file("var/.wh..wh..opq", "")
        .unpack(&outer)
        .unwrap();
    let tree = outer.path().join("tree");
    let whiteout = fs::symlink_metadata(tree.join("etc/passwd")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let opaque = xattr::get(tree.join("var"), "trusted.overlay.opaque").unwrap();
    assert_eq!(opaque.as_deref(), Some(&b"y"[..]), "run the tests as root");
    assert!(!tree.join("var/.wh..wh..opq").exists());
}

#[test]
fn whiteouts_in_what_is_no_folder_any_more_are_moot() {
    let outer = outer_with_secret();
    let tar = Layer::default().file("file", "now").file("file/.wh.gone", "");
    let tar = tar.folder("other").symlink("link", "other").file("link/.wh.gone", "");
    tar.file("link/.wh..wh..opq", "").unpack(&outer).unwrap();
    assert_eq!(read(&outer, "file"), "now");
    // Not through the link either.
    assert_eq!(fs::read_dir(outer.path().join("tree/other")).unwrap().count(), 0);
    assert!(!crate::merged::is_opaque(&outer.path().join("tree/other")));
}

#[test]
fn names_that_lead_out_are_refused_by_name() {
    for name in ["../secret", "a/../../secret", "/../secret"] {
        let outer = outer_with_secret();
        let error = Layer::default().file(name, "evil").unpack(&outer).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("leads out"), "{text}");
        assert_nothing_outside(&outer);
    }
}

#[test]
fn absolute_names_are_relative_to_the_root() {
    let outer = outer_with_secret();
    Layer::default().file("/etc/isolab-test", "inside").unpack(&outer).unwrap();
    assert_eq!(read(&outer, "etc/isolab-test"), "inside");
    assert!(!Path::new("/etc/isolab-test").exists());
}

#[test]
fn a_file_through_a_symlink_stays_inside() {
    for target in ["/", "..", "../..", "/proc/self/root"] {
        let outer = outer_with_secret();
        let layer = Layer::default().symlink("link", target).file("link/secret", "evil");
        // Either it lands inside or it is an error; never outside.
        let _ = layer.unpack(&outer);
        assert_nothing_outside(&outer);
    }
    let outer = outer_with_secret();
    let layer = Layer::default().symlink("out", "../secret").file("out", "evil");
    layer.unpack(&outer).unwrap();
    assert_eq!(read(&outer, "out"), "evil");
    assert_nothing_outside(&outer);
}

#[test]
fn a_symlink_that_replaces_a_folder_leads_nowhere_else() {
    let outer = outer_with_secret();
    let there = outer.path().join("tree");
    fs::create_dir_all(&there).unwrap();
    let layer = Layer::default()
        .folder("data/")
        .file("data/old", "x")
        .symlink("data", outer.path().to_str().unwrap())
        .file("data/secret", "evil");
    let _ = layer.unpack(&outer);
    assert_nothing_outside(&outer);
}

#[test]
fn hard_links_out_of_the_tree_are_refused() {
    let outer = outer_with_secret();
    let error = Layer::default().hard_link("link", "../secret").unpack(&outer).unwrap_err();
    assert!(error.to_string().contains("leads out"), "{error}");
    assert_nothing_outside(&outer);

    let outer = outer_with_secret();
    let layer = Layer::default().symlink("way", "..").hard_link("link", "way/secret");
    assert!(layer.unpack(&outer).is_err());
    assert_nothing_outside(&outer);
}

#[test]
fn a_symlink_in_the_tree_before_unpacking_is_not_followed() {
    let outer = outer_with_secret();
    let tree = outer.path().join("tree");
    fs::create_dir(&tree).unwrap();
    symlink("../secret", tree.join("file")).unwrap();
    Layer::default().file("file", "new").unpack(&outer).unwrap();
    assert_eq!(read(&outer, "file"), "new");
    assert_nothing_outside(&outer);
}

#[test]
fn a_bomb_ends_in_an_error() {
    let outer = outer_with_secret();
    let limits = Limits { bytes: 1 << 20, entries: 100, ..LIMITS };
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    let archive = Layer::default().file("zeroes", &"\0".repeat(4 << 20)).finish();
    gzip.write_all(&archive).unwrap();
    let bomb = io::Cursor::new(gzip.finish().unwrap());
    let tree = outer.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let error =
        unpack_verified("sha256:bomb", bomb, &BlobId::of(&archive), &tree, limits).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");

    let outer = outer_with_secret();
    let many = (0..101).fold(Layer::default(), |layer, i| layer.file(&format!("f{i}"), ""));
    let error = many.unpack_limited(&outer, limits).unwrap_err();
    assert!(error.to_string().contains("100 entries"), "{error}");
}

#[test]
fn a_wrong_diff_id_is_found_out() {
    let outer = outer_with_secret();
    let tree = outer.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let archive = Layer::default().file("a", "a").finish();
    let wrong = BlobId::of(b"something else");
    let error =
        unpack_verified("sha256:x", io::Cursor::new(archive), &wrong, &tree, LIMITS).unwrap_err();
    assert!(matches!(error, ImageError::DigestMismatch { .. }), "{error}");
}

#[test]
fn a_device_that_would_be_a_whiteout_is_refused() {
    let outer = outer_with_secret();
    let layer = Layer::default().entry(EntryType::Char, "hide", "", 0o600, &[]);
    let error = layer.unpack(&outer).unwrap_err();
    assert!(error.to_string().contains("0:0"), "{error}");
}

#[test]
fn an_archive_without_padding_at_its_end_is_taken() {
    let outer = outer_with_secret();
    let mut archive = Layer::default().file("a", "data").finish();
    archive.truncate(512 + 4);
    let id = BlobId::of(&archive);
    let tree = outer.path().join("tree");
    fs::create_dir(&tree).unwrap();
    unpack_verified("sha256:x", io::Cursor::new(archive), &id, &tree, LIMITS).unwrap();
    assert_eq!(read(&outer, "a"), "data");
}

#[test]
fn a_truncated_archive_is_an_error() {
    let outer = outer_with_secret();
    let mut archive = Layer::default().file("a", &"x".repeat(5000)).finish();
    archive.truncate(1024);
    let id = BlobId::of(&archive);
    let tree = outer.path().join("tree");
    fs::create_dir(&tree).unwrap();
    assert!(unpack_verified("sha256:x", io::Cursor::new(archive), &id, &tree, LIMITS).is_err());
}

/// An entry of this type with these bytes, as PAX and GNU extensions are.
fn extension(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_path("extension").unwrap();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0);
    header.set_cksum();
    header
}

#[test]
fn names_and_records_that_would_fill_memory_are_refused() {
    for kind in [EntryType::XHeader, EntryType::GNULongName, EntryType::GNULongLink] {
        // The data never ends, as a bomb's would not.
        let header = extension(kind, 1 << 40);
        let stream = io::Cursor::new(header.as_bytes().to_vec()).chain(io::repeat(b'x'));
        let dir = tempfile::tempdir().unwrap();
        let id = BlobId::of(b"");
        let error = unpack_verified("sha256:test", stream, &id, dir.path(), LIMITS).unwrap_err();
        assert!(matches!(error, ImageError::BadLayer { .. }), "{error}");
        assert!(Report::new(error).to_string().contains("exceeds limit"));
    }
}

/// A sparse file of nearly any size in a few blocks.
#[test]
fn a_sparse_file_beyond_the_limit_is_refused() {
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "bomb"),
        ("GNU.sparse.realsize", "9223372036854775807"),
    ];
    let mut archive = tar::Builder::new(Vec::new());
    let records = records.iter().map(|(key, value)| (*key, value.as_bytes()));
    archive.append_pax_extensions(records).unwrap();
    let mut map = b"0\n".to_vec();
    map.resize(512, 0);
    let mut header = Header::new_ustar();
    header.set_size(512);
    header.set_mode(0o644);
    archive.append_data(&mut header, "GNUSparseFile.0/bomb", &map[..]).unwrap();
    let archive = archive.into_inner().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (id, stream) = (BlobId::of(&archive), io::Cursor::new(archive));
    let error = unpack_verified("sha256:test", stream, &id, dir.path(), LIMITS).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
}

#[test]
fn damaged_sparse_maps_are_refused() {
    for (size, map) in [
        ("10", "1\n0\n20\n"),
        ("10", "1\n18446744073709551615\n2\n"),
        ("10", "99999999999\n"),
        ("10", "1\nx\n"),
        ("10", "99999999999999999999999\n"),
    ] {
        let mut archive = tar::Builder::new(Vec::new());
        let records = [
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "file"),
            ("GNU.sparse.realsize", size),
        ];
        let records = records.iter().map(|(key, value)| (*key, value.as_bytes()));
        archive.append_pax_extensions(records).unwrap();
        let mut data = map.as_bytes().to_vec();
        data.resize(1024, 0);
        let mut header = Header::new_ustar();
        header.set_size(1024);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        archive.append_data(&mut header, "GNUSparseFile.0/x", &data[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (id, stream) = (BlobId::of(&archive), io::Cursor::new(archive));
        let error = unpack_verified("sha256:test", stream, &id, dir.path(), LIMITS).unwrap_err();
        let is_refused = matches!(error, ImageError::BadEntry { .. } | ImageError::BadLayer { .. });
        assert!(is_refused, "{map:?}: {error}");
    }
}

/// Names that no path could hold, by way of links: refused at once, and so is work without end.
#[test]
fn depth_and_work_are_bounded_also_through_links() {
    let (deep, many) = ("d/".repeat(40), "l".repeat(90));
    // Each link leads through the one before.
    let chain = |levels: usize| {
        let mut tar = Layer::default().folder(&deep).symlink("0", &deep);
        for level in 1..levels {
            let (last, name) = ((level - 1).to_string(), level.to_string());
            let folder = format!("{last}/{deep}");
            tar = tar.folder(&folder).symlink(&name, &folder);
        }
        tar
    };
    let outer = outer_with_secret();
    chain(6).unpack(&outer).unwrap();
    assert_nothing_outside(&outer);
    let outer = outer_with_secret();
    let error = chain(30).unpack(&outer).unwrap_err().to_string();
    assert!(error.contains("512 folders deep") && error.contains("entry `11/d/d"), "{error}");
    assert_nothing_outside(&outer);

    let long = |levels: usize| {
        let mut tar = Layer::default().folder(&many).symlink("0", &many);
        for level in 1..levels {
            let folder = format!("{}/{many}", level - 1);
            tar = tar.folder(&folder).symlink(&level.to_string(), &folder);
        }
        tar
    };
    // More links than the kernel follows are its own error.
    let error = long(40).unpack(&outer_with_secret()).unwrap_err().to_string();
    assert!(error.contains("3072 bytes"), "{error}");

    let files = |count| (0..count).fold(chain(6), |tar: Layer, n| tar.file(&format!("5/f{n}"), ""));
    let limits = Limits { lookups: 1 << 20, ..LIMITS };
    files(10).unpack_limited(&outer_with_secret(), limits).unwrap();
    let error = files(200).unpack_limited(&outer_with_secret(), limits).unwrap_err().to_string();
    assert!(error.contains("too many folders and links"), "{error}");
    let limits = Limits { folder_names: 100 * 100, ..LIMITS };
    let implied = |count| {
        (0..count).fold(Layer::default(), |tar, n| tar.file(&format!("a{n}/b/c/d/file"), ""))
    };
    implied(20).unpack_limited(&outer_with_secret(), limits).unwrap();
    let error = implied(60).unpack_limited(&outer_with_secret(), limits).unwrap_err().to_string();
    assert!(error.contains("too many folders"), "{error}");
}

/// Wherever links lead, folders get their own modes and times, and are made where the links end.
#[test]
fn folders_through_links_are_where_the_links_lead() {
    let outer = outer_with_secret();
    let tar = Layer::default().symlink("lib", "usr/lib").file("lib/a/file", "a");
    let tar =
        tar.entry(EntryType::Directory, "lib/b/", "", 0o711, &[]).symlink("up", "/../lib/b/..");
    tar.file("up/c/file", "c").unpack(&outer).unwrap();
    let tree = outer.path().join("tree");
    assert_eq!(fs::read_link(tree.join("lib")).unwrap(), Path::new("usr/lib"));
    for (name, content) in [("usr/lib/a/file", "a"), ("usr/lib/c/file", "c")] {
        assert_eq!(read(&outer, name), content);
    }
    let folder = fs::metadata(tree.join("usr/lib/b")).unwrap();
    assert_eq!((folder.mode() & 0o7777, folder.mtime()), (0o711, 1_000_000_000));
    assert_nothing_outside(&outer);
}

#[test]
fn a_folder_may_become_something_else_later() {
    let outer = outer_with_secret();
    let tar = Layer::default().folder("a/").folder("a/b/").file("x/y/z", "z");
    tar.file("a", "a file now").symlink("x", "a").unpack(&outer).unwrap();
    assert_eq!(read(&outer, "a"), "a file now");
}

/// Names are bytes: what a whiteout hides, too.
#[test]
fn a_whiteout_of_a_name_that_is_no_utf_8_is_applied() {
    let mut archive = Layer::default().file("dir/.wh.caf?", "").finish();
    let position = archive.iter().position(|byte| *byte == b'?').unwrap();
    archive[position] = 0xe9;
    let mut header = Header::from_byte_slice(&archive[..512]).clone();
    header.set_cksum();
    archive[..512].copy_from_slice(header.as_bytes());
    let outer = outer_with_secret();
    let tree = outer.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let id = BlobId::of(&archive);
    unpack_verified("sha256:x", io::Cursor::new(archive), &id, &tree, LIMITS).unwrap();
    let entries: Vec<_> = fs::read_dir(tree.join("dir")).unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].file_name().as_encoded_bytes(), b"caf\xe9");
    assert!(crate::merged::is_whiteout(&entries[0].metadata().unwrap()));
}

#[test]
fn an_error_tells_a_name_without_its_codes_for_a_terminal() {
    let outer = outer_with_secret();
    let name = format!("../\x1b[2J{}", "x".repeat(80));
    let error = Layer::default().file(&name, "").unpack(&outer).unwrap_err().to_string();
    assert!(error.contains("../\\u{1b}[2Jxxx"), "{error}");
}

/// A layer that occurs twice is taken once, where it is uppermost; whatever is between them.
#[test]
fn as_root_an_owner_that_no_file_can_have_is_refused() {
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        for (kind, name) in [(EntryType::Regular, "su"), (EntryType::Directory, "./")] {
            let mut header = Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(0o4755);
            header.set_uid(uid.into());
            header.set_gid(gid.into());
            header.set_mtime(0);
            header.set_size(0);
            let mut archive = tar::Builder::new(Vec::new());
            archive.append_data(&mut header, name, io::empty()).unwrap();
            let archive = archive.into_inner().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let (id, stream) = (BlobId::of(&archive), io::Cursor::new(archive));
            let error = unpack_verified("sha256:test", stream, &id, dir.path(), LIMITS);
            let error = error.unwrap_err();
            assert!(matches!(error, ImageError::BadEntry { .. }), "{name} {uid}:{gid}: {error}");
        }
    }
}

#[test]
fn as_root_a_layer_twice_in_an_image_counts_where_it_is_uppermost() {
    use crate::merged::Merged;
    use crate::testing::{add_image, layer, layer_of, new_store};
    let twice = layer(&[("f", "twice"), ("dir/g", "twice"), ("dir/.wh.low", "")]);
    let base = layer_of(&[("dir/", 0o700, 5), ("dir/low", 0o644, 5), ("dir/base", 0o644, 5)]);
    let between = layer(&[(".wh.f", ""), ("dir/g", "between"), ("dir/low", "between"), ("h", "h")]);
    let (_dir, store) = new_store();
    let layers = [base.clone(), twice.clone(), between.clone(), twice.clone(), between, twice];
    let image = add_image(&store, Some("app"), &layers);
    let folders = image.layers_unpacked().unwrap();
    let merged = Merged::new(folders.clone());
    assert_eq!(merged.read_text("f").unwrap(), "twice");
    assert_eq!(merged.read_text("dir/g").unwrap(), "twice");
    assert_eq!(merged.read_text("h").unwrap(), "h");
    assert!(merged.stat(Path::new("dir/low")).unwrap().is_none());
    let dir = merged.stat(Path::new("dir")).unwrap().unwrap().1;
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o700, 5), "the implied folder is the base's");
    // The kernel takes them, which a folder twice it does not.
    let overlay = tempfile::tempdir().unwrap();
    let lower: Vec<_> = folders.iter().map(|folder| folder.to_str().unwrap()).collect();
    let options = format!("lowerdir={}", lower.join(":"));
    let mut mount = std::process::Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &options]).arg(overlay.path());
    assert!(mount.status().unwrap().success(), "{options}");
    let seen = fs::read_to_string(overlay.path().join("dir/g"));
    let names = fs::read_dir(overlay.path().join("dir")).unwrap().count();
    assert!(std::process::Command::new("umount").arg(overlay.path()).status().unwrap().success());
    assert_eq!((seen.unwrap().as_str(), names), ("twice", 2));
    store.root_disk(&image).unwrap();
}
