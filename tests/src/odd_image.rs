//! An image of odd files in three layers, as skopeo, podman and umoci make it.
//!
//! The layers are three steps that change a folder. What is there in the end, as
//! [`list`] tells it of that folder, is what every level of isolation has to show.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{
    FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink,
};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

use crate::{Sandbox, checkout, text, tool};

/// The program in the image that lists its files.
pub const LIST_FILES: &str = "/bin/list-files";

/// What is not the image's in a running instance, at any level.
pub const NOT_THE_IMAGES: [&str; 6] =
    ["/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// CAP_NET_RAW in the permitted set, as setcap writes it (linux/capability.h, version 2).
const NET_RAW: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What the makers of images keep differs: Go's archives have whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Whole seconds.
    Seconds,
    /// Fractions too.
    Nanoseconds,
}

/// A step in the making of the image.
pub type Step = fn(&Tree);

/// The three layers.
pub const STEPS: [Step; 3] = [first, second, third];

/// A folder that is being changed, with the times that its files have in the end.
pub struct Tree {
    root: PathBuf,
    times: Times,
    /// Set last, as every file that is put into a folder changes the folder's.
    pending: std::cell::RefCell<BTreeMap<PathBuf, i64>>,
}

impl Tree {
    /// Takes `step` on the folder `root`.
    pub fn change(root: &Path, times: Times, step: Step) {
        let tree = Self { root: root.to_owned(), times, pending: Default::default() };
        step(&tree);
        for (path, seconds) in tree.pending.take() {
            let fraction = if tree.times == Times::Nanoseconds { 987_654_321 } else { 0 };
            let time = TimeSpec::new(seconds, fraction);
            let flags = UtimensatFlags::NoFollowSymlink;
            utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, flags).unwrap();
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// What was done to `name` and so to its folder happened then.
    fn at(&self, name: &str, seconds: i64) {
        let path = self.path(name);
        let parent = path.parent().expect("a name is below the root").to_owned();
        let mut pending = self.pending.borrow_mut();
        if parent != self.root {
            pending.entry(parent).or_insert(seconds);
        }
        if fs::symlink_metadata(&path).is_ok() {
            pending.insert(path, seconds);
        }
    }

    fn folder(&self, name: &str, mode: u32, owner: (u32, u32)) {
        fs::create_dir(self.path(name)).unwrap();
        self.give(name, mode, owner);
        self.at(name, 1_100_000_000);
    }

    fn file(&self, name: &str, content: &[u8], mode: u32, owner: (u32, u32)) {
        fs::write(self.path(name), content).unwrap();
        self.give(name, mode, owner);
        self.at(name, 1_234_567_890);
    }

    fn give(&self, name: &str, mode: u32, (uid, gid): (u32, u32)) {
        chown(self.path(name), Some(uid), Some(gid)).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.path(name)).unwrap();
        lchown(self.path(name), Some(7), Some(8)).unwrap();
        self.at(name, 5);
    }

    fn node(&self, name: &str, kind: SFlag, device: u64) {
        mknod(&self.path(name), kind, Mode::from_bits_truncate(0o620), device).unwrap();
        self.give(name, 0o620, (0, 5));
        self.at(name, 1_300_000_000);
    }

    fn remove(&self, name: &str) {
        let path = self.path(name);
        match path.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        self.at(name, 1_400_000_000);
    }
}

const ROOT: (u32, u32) = (0, 0);

fn first(tree: &Tree) {
    tree.give("", 0o1751, (21, 22));
    for name in ["bin", "dev", "etc", "proc", "sys"] {
        tree.folder(name, 0o755, ROOT);
    }
    let program = fs::read(env!("ISOLAB_LIST_FILES")).expect("tests/build.rs made it");
    tree.file("bin/list-files", &program, 0o755, ROOT);
    for (name, mode, owner) in [
        ("empty", 0o711, (65534, 65534)),
        ("tmp", 0o1777, ROOT),
        ("shared", 0o2775, (0, 50)),
        ("with space", 0o755, (3_000_000, 4_000_000)),
        ("\u{fc}n\u{ee}code \u{1f980}", 0o700, ROOT),
        ("deep", 0o750, (5, 6)),
        ("deep/er", 0o3770, (9, 10)),
        ("deep/er/est", 0o755, ROOT),
        ("opaque", 0o755, ROOT),
        ("opaque/old", 0o755, ROOT),
        ("gone-folder", 0o755, ROOT),
        ("gone-folder/below", 0o755, ROOT),
        ("folder-then-file", 0o755, ROOT),
        ("folder-then-link", 0o755, ROOT),
    ] {
        tree.folder(name, mode, owner);
    }
    for name in [
        "opaque/old/file",
        "opaque/gone",
        "gone-folder/below/file",
        "gone-folder/file",
        "folder-then-file/file",
        "folder-then-link/file",
        "file-then-folder",
        "gone",
        "gone-and-back",
        "deep/gone",
        "replaced",
    ] {
        tree.file(name, name.as_bytes(), 0o644, ROOT);
    }
    tree.file("secret", b"for its owner", 0o400, (1000, 100));
    tree.file("setuid", b"#!", 0o6755, (0, 33));
    tree.file("nothing", b"", 0o000, (2, 3));
    tree.file("attributes", b"have a meaning", 0o755, ROOT);
    tree.file("metadata", b"what is in it stays", 0o644, ROOT);
    tree.file(&format!("with space/{}", "long".repeat(60)), b"a long name", 0o644, ROOT);
    tree.file("with space/a \u{201c}name\u{201d}", b"quoted", 0o644, ROOT);
    for (name, attribute, value) in [
        ("attributes", "security.capability", &NET_RAW[..]),
        ("attributes", "user.binary", &[0, 255, 10]),
        ("metadata", "user.note", b"stays too"),
        ("empty", "user.note", b"of a folder"),
    ] {
        xattr::set(tree.path(name), attribute, value).unwrap();
    }
    tree.file("hard", b"one file, two names", 0o640, (11, 12));
    fs::hard_link(tree.path("hard"), tree.path("deep/link")).unwrap();
    tree.at("deep/link", 1_234_567_890);
    tree.link("link", "replaced");
    tree.link("dangling", "/nowhere/../at all");
    tree.node("null", SFlag::S_IFCHR, makedev(1, 3));
    tree.node("block", SFlag::S_IFBLK, makedev(259, 70_000));
    tree.node("fifo", SFlag::S_IFIFO, 0);
    let sparse = File::create(tree.path("sparse")).unwrap();
    sparse.write_all_at(b"beginning", 0).unwrap();
    sparse.write_all_at(b"middle", 1 << 20).unwrap();
    sparse.set_len(2 << 20).unwrap();
    // Before 1970, for which podman's storage has no time.
    tree.at("sparse", if tree.times == Times::Nanoseconds { -1_000_000 } else { 1_000_000 });
}

fn second(tree: &Tree) {
    for name in ["gone", "gone-and-back", "gone-folder", "deep/gone"] {
        tree.remove(name);
    }
    tree.remove("opaque");
    tree.folder("opaque", 0o700, (1, 1));
    tree.file("opaque/new", b"alone", 0o600, (1, 1));
    tree.remove("folder-then-file");
    tree.file("folder-then-file", b"a file now", 0o644, ROOT);
    tree.remove("folder-then-link");
    tree.link("folder-then-link", "deep");
    tree.remove("file-then-folder");
    tree.folder("file-then-folder", 0o755, ROOT);
    tree.file("file-then-folder/file", b"in it", 0o644, ROOT);
    tree.file("replaced", b"other content", 0o444, (13, 14));
    tree.give("metadata", 0o600, (15, 16));
    tree.at("metadata", 1_500_000_000);
    // Nothing of the folders between is in the layer, with some makers.
    tree.file("deep/er/est/late", b"late", 0o644, ROOT);
}

fn third(tree: &Tree) {
    tree.file("gone-and-back", b"again, and another", 0o755, (17, 18));
    tree.remove("opaque/new");
    tree.file("opaque/third", b"alone again", 0o644, ROOT);
    tree.file("shared/third", b"in a folder of the first layer", 0o664, (0, 50));
    tree.give("tmp", 0o1770, (19, 20));
    tree.at("tmp", 1_600_000_000);
}

/// The files of the image that `root` is the root folder of.
pub fn list(root: &Path) -> String {
    let listed = Command::new(env!("ISOLAB_LIST_FILES")).arg(root).args(NOT_THE_IMAGES).output();
    let listed = listed.expect("tests/build.rs made it");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).expect("what is not printable is escaped")
}

/// An archive for `isolab image load`, and what [`list`] says of its files.
pub struct Made {
    /// The archive.
    pub archive: PathBuf,
    /// The files.
    pub listing: String,
}

/// Makes the image in an empty folder.
pub type Maker = fn(&Path) -> Made;

/// Who makes the image.
pub const MAKERS: [(&str, Maker); 3] =
    [("skopeo", by_skopeo), ("podman", by_podman), ("umoci", by_umoci)];

/// Layers packed by GNU tar, whiteouts and opaque folders as the specification has them, made an
/// archive as `docker save` writes it by skopeo.
pub fn by_skopeo(work: &Path) -> Made {
    let layout = format!("{}:odd", work.join("layout").display());
    tool("umoci", &["init", "--layout", text(&work.join("layout"))]);
    tool("umoci", &["new", "--image", &layout]);
    let mut lower: Vec<String> = Vec::new();
    let mut listing = String::new();
    for (number, step) in STEPS.into_iter().enumerate() {
        let folder = |name: &str| {
            let path = work.join(format!("{name}{number}"));
            fs::create_dir(&path).unwrap();
            path
        };
        let (upper, overlay, merged) = (folder("upper"), folder("work"), folder("merged"));
        let empty = work.join("empty");
        fs::create_dir_all(&empty).unwrap();
        let below = if lower.is_empty() { text(&empty).to_owned() } else { lower.join(":") };
        let options =
            format!("lowerdir={below},upperdir={},workdir={}", text(&upper), text(&overlay));
        if let Some(top) = lower.first() {
            // overlayfs shows the upper folder's own as the root's.
            tool("chown", &["--reference", top, text(&upper)]);
            tool("chmod", &["--reference", top, text(&upper)]);
        }
        tool("mount", &["-t", "overlay", "overlay", "-o", &options, text(&merged)]);
        Tree::change(&merged, Times::Nanoseconds, step);
        listing = list(&merged);
        tool("umount", &[text(&merged)]);
        let layer = work.join(format!("layer{number}"));
        tool("cp", &["-a", text(&upper), text(&layer)]);
        lower.insert(0, text(&upper).to_owned());
        as_layer(&layer);
        let tar = work.join(format!("layer{number}.tar"));
        let attributes = ["--xattrs", "--xattrs-include=*", "--xattrs-exclude=trusted.overlay.*"];
        let pack = ["--format=posix", "--sparse", "--sort=name", "-C", text(&layer), "-cf"];
        tool("tar", &[&pack[..], &[text(&tar)], &attributes, &["."]].concat());
        tool("umoci", &["raw", "add-layer", "--image", &layout, text(&tar)]);
    }
    let archive = work.join("skopeo.tar");
    let target = format!("docker-archive:{}:odd.example/skopeo:v1", archive.display());
    tool("skopeo", &["copy", &format!("oci:{layout}"), &target]);
    Made { archive, listing }
}

/// Changes overlayfs's signs of what is gone into those of layers.
fn as_layer(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let name = path.file_name().and_then(|name| name.to_str()).expect("names are UTF-8");
        if metadata.is_dir() {
            as_layer(&path);
            let opaque = xattr::get(&path, "trusted.overlay.opaque").unwrap();
            if opaque.is_some_and(|value| value == b"y") {
                fs::write(path.join(".wh..wh..opq"), "").unwrap();
            }
            let time = TimeSpec::new(metadata.mtime(), metadata.mtime_nsec());
            let flags = UtimensatFlags::NoFollowSymlink;
            utimensat(nix::fcntl::AT_FDCWD, &path, &time, &time, flags).unwrap();
        } else if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
            fs::remove_file(&path).unwrap();
            fs::write(folder.join(format!(".wh.{name}")), "").unwrap();
        }
    }
}

/// Layers that podman commits of a container.
pub fn by_podman(work: &Path) -> Made {
    let (root, run) = (work.join("storage"), work.join("run"));
    let podman = |arguments: &[&str]| {
        let own = ["--root", text(&root), "--runroot", text(&run), "--storage-driver", "overlay"];
        tool("podman", &[&own, arguments].concat()).trim().to_owned()
    };
    let empty = work.join("empty.tar");
    fs::write(&empty, [0; 1024]).unwrap();
    let mut image = podman(&["import", "--quiet", text(&empty)]);
    let mut listing = String::new();
    for step in STEPS {
        let container = podman(&["create", &image, LIST_FILES]);
        let folder = PathBuf::from(podman(&["mount", &container]));
        Tree::change(&folder, Times::Seconds, step);
        listing = list(&folder);
        podman(&["unmount", &container]);
        image = podman(&["commit", "--quiet", &container]);
        podman(&["rm", &container]);
    }
    let archive = work.join("podman.tar");
    podman(&["tag", &image, "odd.example/podman:v1"]);
    let name = "odd.example/podman:v1";
    podman(&["save", "--format", "oci-archive", "--output", text(&archive), name]);
    // Its overlay mounts go with it.
    podman(&["rmi", "--all", "--force"]);
    // It packs nothing of the root folder; where an image says nothing of it, podman shows 0555,
    // and Docker and we 0755.
    let listing = listing.replacen("/ d0555 0:0\n", "/ d0755 0:0\n", 1);
    Made { archive, listing }
}

/// Layers that umoci packs of a bundle.
pub fn by_umoci(work: &Path) -> Made {
    let layout = work.join("layout");
    let image = format!("{}:odd", layout.display());
    tool("umoci", &["init", "--layout", text(&layout)]);
    tool("umoci", &["new", "--image", &image]);
    let bundle = work.join("bundle");
    tool("umoci", &["unpack", "--image", &image, text(&bundle)]);
    for step in STEPS {
        Tree::change(&bundle.join("rootfs"), Times::Seconds, step);
        tool("umoci", &["repack", "--refresh-bundle", "--image", &image, text(&bundle)]);
    }
    let archive = work.join("umoci.tar");
    tool("tar", &["-C", text(&layout), "-cf", text(&archive), "."]);
    Made { archive, listing: list(&bundle.join("rootfs")) }
}

impl Made {
    /// Puts it where [`Made::kept`] finds it: the makers are on this host, and most levels are in
    /// another.
    pub fn keep(&self, maker: &str) {
        let folder = kept();
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&self.archive, folder.join(format!("{maker}.tar"))).unwrap();
        fs::write(folder.join(format!("{maker}.txt")), &self.listing).unwrap();
    }

    /// What was kept of `maker`.
    pub fn kept(maker: &str) -> Self {
        let listing = fs::read_to_string(kept().join(format!("{maker}.txt")));
        let listing = listing.expect("the end-to-end test `images` made it");
        Self { archive: kept().join(format!("{maker}.tar")), listing }
    }

    /// A store with the image in it, by the name `odd`.
    pub fn load(&self) -> Sandbox {
        let sandbox = Sandbox::on_disk();
        let load = sandbox.isolab(&["image", "load", "--tag", "odd"]).arg(&self.archive);
        load.finish().success();
        sandbox
    }

    /// Runs the image with these options and compares.
    #[track_caller]
    pub fn check(&self, sandbox: &Sandbox, maker: &str, options: &[&str]) {
        let run = [&["run"], options, &["odd", LIST_FILES, "/"], &NOT_THE_IMAGES].concat();
        let seen = sandbox.isolab(&run).finish().success();
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        let (wanted, seen) = (lines(&self.listing), lines(&seen));
        let missing: Vec<_> = wanted.difference(&seen).collect();
        let extra: Vec<_> = seen.difference(&wanted).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{maker}'s image with {options:?}: missing {missing:#?}, instead {extra:#?}"
        );
        assert!(seen.len() > 30, "{seen:?}");
    }
}

fn kept() -> PathBuf {
    checkout().join("target/odd-images")
}
