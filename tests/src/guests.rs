//! Machines without an image: a kernel, and an initramfs with busybox and an init of the test's.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};
use tempfile::TempDir;

use crate::{Run, Sandbox};

/// Writes an initramfs with busybox and this `/init` into `folder`.
pub fn initramfs(folder: &Path, init: &str) -> PathBuf {
    let mut archive = Vec::new();
    let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
    for (name, kind, content) in [
        ("bin", ModeFileType::Directory, &[][..]),
        ("bin/busybox", ModeFileType::Regular, &busybox),
        ("init", ModeFileType::Regular, init.as_bytes()),
    ] {
        let builder = NewcBuilder::new(name).mode(0o755).set_mode_file_type(kind);
        let mut writer = builder.write(&mut archive, content.len() as u32);
        writer.write_all(content).expect("memory takes all");
        writer.finish().expect("memory takes all");
    }
    trailer(&mut archive).expect("memory takes all");
    let path = folder.join("initramfs.cpio");
    fs::write(&path, archive).expect("the folder can be written");
    path
}

/// `isolab vm run` with this kernel, these commands as `/init`, and further options. The folder
/// has to live until the machine has been started.
pub fn boot(kernel: &Path, init: &str, options: &[&str]) -> (Run, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let initrd = initramfs(dir.path(), &format!("#!/bin/busybox sh\n{init}\n"));
    let run = Sandbox::empty()
        .isolab(&["vm", "run", "--kernel"])
        .arg(kernel)
        .arg("--initrd")
        .arg(initrd)
        .args(options);
    (run, dir)
}
