//! Guests whose init is a script: an initramfs of busybox and what a test adds.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};
use tempfile::TempDir;

use crate::{Run, Sandbox, cached};

/// The kernel command line of every guest here: nothing on the console but what the test says.
pub const QUIET: &str = "console=ttyS0 quiet reboot=k panic=-1";

/// An initramfs in the making.
#[derive(Default)]
pub struct Initramfs {
    archive: Vec<u8>,
}

impl Initramfs {
    /// Busybox with its usual names in /bin, empty mount points, and an `/init` that mounts /proc,
    /// /sys and /dev and then runs `script`.
    pub fn with_script(script: &str) -> Self {
        let init = format!(
            "#!/bin/busybox sh\n\
             /bin/busybox --install -s /bin; export PATH=/bin\n\
             mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev\n\
             {script}\n"
        );
        let busybox = fs::read("/bin/busybox").expect("busybox-static is installed");
        let folders = ["bin", "proc", "sys", "dev", "mnt", "tmp"];
        folders
            .into_iter()
            .fold(Self::default(), |archive, name| archive.folder(name))
            .file("bin/busybox", &busybox)
            .file("init", init.as_bytes())
    }

    /// Adds a folder.
    pub fn folder(self, name: &str) -> Self {
        self.entry(name, ModeFileType::Directory, &[])
    }

    /// Adds an executable file.
    pub fn file(self, name: &str, content: &[u8]) -> Self {
        self.entry(name, ModeFileType::Regular, content)
    }

    /// Adds the modules of the cached kernel `kernel` with these file names, in this order, for a
    /// script to load by [`LOAD_MODULES`].
    pub fn modules(self, kernel: &str, names: &[&str]) -> Self {
        let tree = cached(&format!("kernels/{kernel}/modules"));
        names.iter().enumerate().fold(self.folder("modules"), |archive, (number, name)| {
            let file = find(&tree, &format!("{name}.ko"))
                .unwrap_or_else(|| panic!("{kernel} has no module {name}"));
            let content = fs::read(file).expect("the module can be read");
            archive.file(&format!("modules/{number:02}-{name}.ko"), &content)
        })
    }

    fn entry(mut self, name: &str, kind: ModeFileType, content: &[u8]) -> Self {
        let builder = NewcBuilder::new(name).mode(0o755).set_mode_file_type(kind);
        let mut writer = builder.write(&mut self.archive, content.len() as u32);
        writer.write_all(content).expect("memory can be written");
        writer.finish().expect("memory can be written");
        self
    }

    /// Writes the archive into `folder`.
    pub fn write(mut self, folder: &Path) -> PathBuf {
        trailer(&mut self.archive).expect("memory can be written");
        let path = folder.join("initramfs.cpio");
        fs::write(&path, self.archive).expect("the folder can be written");
        path
    }
}

/// Loads what [`Initramfs::modules`] added, in its order.
pub const LOAD_MODULES: &str = "for module in /modules/*; do insmod $module; done";

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten();
    entries.into_iter().find_map(|entry| {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            find(&entry.path(), name)
        } else {
            (entry.file_name() == name).then(|| entry.path())
        }
    })
}

/// `isolab vm run` with this kernel, initramfs and further options. The folder holds the
/// initramfs.
pub fn boot(kernel: &Path, initramfs: Initramfs, options: &[&str]) -> (Run, TempDir) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let initrd = initramfs.write(dir.path());
    let run = Sandbox::empty()
        .isolab(&["vm", "run", "--kernel"])
        .arg(kernel)
        .arg("--initrd")
        .arg(initrd)
        .args(options);
    (run, dir)
}

/// [`boot`] of the slim kernel with an `/init` that runs `script`, quietly.
pub fn boot_slim(script: &str, options: &[&str]) -> (Run, TempDir) {
    let (run, dir) = boot(&cached("kernels/slim/vmlinux"), Initramfs::with_script(script), options);
    (run.args(&["--cmdline", QUIET]), dir)
}
