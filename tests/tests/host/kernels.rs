//! `isolab kernel`, with a Debian archive of our own: apt takes it for the host's.

use std::fs;
use std::path::{Path, PathBuf};

use isolab_tests::{Run, Sandbox, text, tool};
use serde_json::Value;

const RELEASE: &str = "6.1.0-77-amd64";

/// An archive with a kernel in it, and a cache that has none.
struct Debian {
    sandbox: Sandbox,
    dir: tempfile::TempDir,
}

impl Debian {
    fn new() -> Self {
        let debian = Self { sandbox: Sandbox::empty(), dir: tempfile::tempdir().unwrap() };
        let package = debian.path("package");
        for folder in ["boot", &format!("lib/modules/{RELEASE}"), "DEBIAN"] {
            fs::create_dir_all(package.join(folder)).unwrap();
        }
        for file in ["vmlinuz", "config", "System.map"] {
            fs::write(package.join("boot").join(format!("{file}-{RELEASE}")), file).unwrap();
        }
        for list in ["modules.order", "modules.builtin"] {
            fs::write(package.join("lib/modules").join(RELEASE).join(list), "").unwrap();
        }
        let image = format!("linux-image-{RELEASE}");
        let control = |name: &str, more: &str| {
            format!(
                "Package: {name}\nVersion: 1\nArchitecture: amd64\nMaintainer: x\nDescription: x\n{more}"
            )
        };
        fs::write(package.join("DEBIAN/control"), control(&image, "")).unwrap();
        let archive = debian.path("archive");
        fs::create_dir(&archive).unwrap();
        let file = archive.join("image.deb");
        tool("dpkg-deb", &["--root-owner-group", "-b", text(&package), text(&file)]);
        let digest = tool("sha256sum", &[text(&file)]);
        let digest = digest.split(' ').next().unwrap();
        let size = fs::metadata(&file).unwrap().len();
        let place = format!("Filename: ./image.deb\nSize: {size}\nSHA256: {digest}\n");
        let packages =
            [control("linux-image-amd64", &format!("Depends: {image}\n")), control(&image, &place)];
        fs::write(archive.join("Packages"), packages.join("\n")).unwrap();

        let sources = format!("deb [trusted=yes] file:{} ./\n", text(&archive));
        fs::write(debian.path("sources.list"), sources).unwrap();
        let apt = format!(
            "Dir::Etc::SourceList \"{}\";\nDir::Etc::SourceParts \"/nowhere\";\n\
             Dir::State::Lists \"{}\";\nDir::Cache \"{}\";\n",
            text(&debian.path("sources.list")),
            text(&debian.path("host-lists")),
            text(&debian.path("host-cache")),
        );
        fs::create_dir_all(debian.path("host-lists/partial")).unwrap();
        fs::write(debian.path("apt.conf"), apt).unwrap();
        debian
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn kernels(&self) -> PathBuf {
        self.path("cache/isolab/kernels")
    }

    fn isolab(&self, arguments: &[&str]) -> Run {
        let command = self.sandbox.isolab(arguments);
        let command = command.env("APT_CONFIG", text(&self.path("apt.conf")));
        command.env("XDG_CACHE_HOME", text(&self.path("cache")))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_kernel_is_fetched_once_with_its_modules() {
    let debian = Debian::new();
    let cache = debian.path("cache");
    let sandbox = Sandbox::with_busybox();
    let run = sandbox.isolab(&["run", "--isolation", "paravirt", "busybox", "true"]);
    let run = run.env("XDG_CACHE_HOME", text(&cache)).finish();
    run.fails_with(125, &["no guest kernel", text(&cache), "isolab kernel fetch"]);
    let fetched = debian.isolab(&["kernel", "fetch", "stock", "--format", "json"]).finish();
    let fetched: Value = serde_json::from_str(&fetched.success()).unwrap();
    assert_eq!(fetched[0]["name"], "stock");
    assert_eq!(fetched[0]["release"], RELEASE);
    let stock = debian.kernels().join("stock");
    assert_eq!(fetched[0]["image"].as_str(), stock.join("vmlinuz").to_str());
    assert_eq!(names(&stock), ["System.map", "config", "modules", "version", "vmlinuz"]);
    assert_eq!(fs::read(stock.join("vmlinuz")).unwrap(), b"vmlinuz");
    assert!(stock.join("modules/lib/modules").join(RELEASE).join("modules.dep").exists());
    assert_eq!(names(&debian.kernels()), ["stock"]);
    // The host's own lists are as they were.
    assert_eq!(names(&debian.path("host-lists")), ["partial"]);

    // It is there: no archive is asked.
    fs::remove_dir_all(debian.path("archive")).unwrap();
    let table = debian.isolab(&["kernel", "fetch", "stock"]).finish().success();
    assert!(table.contains(RELEASE) && table.contains(text(&stock)), "{table}");
    assert_eq!(debian.isolab(&["kernel", "ls"]).finish().success(), table);
}

#[test]
fn what_is_not_what_the_archive_says_is_refused() {
    let debian = Debian::new();
    let file = debian.path("archive/image.deb");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    debian.isolab(&["kernel", "fetch", "stock"]).finish().fails_with(125, &["the kernel stock"]);
    // Of the cloud kernel there is no package, of the source neither.
    let words = ["linux-image-cloud-amd64"];
    debian.isolab(&["kernel", "fetch", "cloud"]).finish().fails_with(125, &words);
    debian.isolab(&["kernel", "build"]).finish().fails_with(125, &["linux-source-6.1"]);
    assert_eq!(names(&debian.kernels()), [""; 0]);
    assert_eq!(debian.isolab(&["kernel", "ls", "--format", "json"]).finish().success(), "[]\n");
}
