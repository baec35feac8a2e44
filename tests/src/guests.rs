//! Guests whose init is a script: an initramfs of busybox and what a test adds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use isolab_guest::archive::Archive;
use tempfile::TempDir;

use crate::devices::{disk, text, tool};
use crate::{Run, Sandbox, cached};

/// The kernel command line of every guest here: nothing on the console but what the test says.
pub const QUIET: &str = "console=ttyS0 quiet reboot=k panic=-1";

/// An initramfs in the making.
#[derive(Default)]
pub struct Initramfs(Archive);

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
    pub fn folder(mut self, name: &str) -> Self {
        self.0.folder(name, 0o755).expect("a path inside");
        self
    }

    /// Adds an executable file.
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.0.file(name, 0o755, content).expect("a path inside");
        self
    }

    /// Adds these modules of the cached kernel `kernel` and what they need, into /modules, named
    /// so that their order is the one to load them in.
    pub fn modules(self, kernel: &str, names: &[&str]) -> Self {
        let modules = Modules::of(kernel);
        let mut order = Vec::new();
        for name in names {
            modules.add(modules.named(name), &mut order);
        }
        order.iter().enumerate().fold(self.folder("modules"), |archive, (number, path)| {
            let content = fs::read(modules.root.join(path)).expect("modules.dep tells the truth");
            archive.file(&format!("modules/{number:02}"), &content)
        })
    }

    /// Writes the archive into `folder`.
    pub fn write(self, folder: &Path) -> PathBuf {
        let path = folder.join("initramfs.cpio");
        fs::write(&path, self.0.finish().expect("memory can be written"))
            .expect("the folder can be written");
        path
    }
}

/// What depmod found out about a kernel's modules.
struct Modules {
    /// The folder of modules.dep.
    root: PathBuf,
    /// Each module's file, with those of the modules it needs.
    needs: BTreeMap<String, Vec<String>>,
}

impl Modules {
    fn of(kernel: &str) -> Self {
        let folder = cached(&format!("kernels/{kernel}"));
        let release = fs::read_to_string(folder.join("version")).expect("scripts/fetch-kernel");
        let root = folder.join("modules/lib/modules").join(release.trim());
        let list = fs::read_to_string(root.join("modules.dep")).expect("depmod has run");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let needs = list.lines().filter_map(|line| line.split_once(':'));
        Self { root, needs: needs.map(|(path, needed)| (path.to_owned(), words(needed))).collect() }
    }

    fn named(&self, name: &str) -> &str {
        let file = format!("/{name}.ko");
        let found = self.needs.keys().find(|path| path.ends_with(&file));
        found.unwrap_or_else(|| panic!("no module {name}"))
    }

    /// Adds a module behind those it needs.
    fn add(&self, path: &str, order: &mut Vec<String>) {
        if order.iter().any(|added| added == path) {
            return;
        }
        for needed in self.needs.get(path).into_iter().flatten() {
            self.add(needed, order);
        }
        order.push(path.to_owned());
    }
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

/// An ext4 disk with these programs of the host and the libraries they need, made in `folder`;
/// [`enter_programs`] mounts it.
pub fn programs_disk(folder: &Path, names: &[&str]) -> PathBuf {
    let tree = folder.join("programs");
    for mount_point in ["dev", "proc"] {
        fs::create_dir_all(tree.join(mount_point)).expect("the folder can be written");
    }
    for name in names {
        for path in isolab_guest::programs::files(Path::new(name)).expect("it is installed") {
            let target = tree.join(path.strip_prefix("/").expect("ldd names whole paths"));
            fs::create_dir_all(target.parent().expect("below the tree")).expect("our own folder");
            fs::copy(&path, target).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        }
    }
    let image = disk(folder, "programs.img", 512 << 20);
    tool("mke2fs", &["-q", "-F", "-t", "ext4", "-d", text(&tree), text(&image)]);
    image
}

/// The script that mounts a [`programs_disk`] as /mnt, to `chroot` into. It is looked for among the
/// disks whose names are `disks` and a letter, because IDE channels are probed in parallel and names
/// follow whoever is first; `$others` are the rest of them.
pub fn enter_programs(disks: &str) -> String {
    format!(
        "others=
         for disk in {disks}[a-z]; do
             mount -t ext4 -o ro $disk /mnt 2>/dev/null || others=\"$others $disk\"
         done
         mount -t devtmpfs dev /mnt/dev; mount -t proc proc /mnt/proc"
    )
}

/// An ELF vmlinux whose entry is this machine code. With a note it is started by PVH.
pub fn tiny_kernel(folder: &Path, code: &[u8], pvh: bool) -> PathBuf {
    const LOAD: u64 = 0x100_0000;
    const NOTE_AT: u64 = 2048;
    const NOTE_LENGTH: u64 = 20;
    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    for field in [2u16, 62] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.extend_from_slice(&1u32.to_le_bytes());
    for field in [LOAD, 64, 0] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.extend_from_slice(&0u32.to_le_bytes());
    for field in [64u16, 56, 1 + u16::from(pvh), 64, 0, 0] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    let length = code.len() as u64;
    let load = [4096, LOAD, LOAD, length, length, 4096];
    let note = [NOTE_AT, 0, 0, NOTE_LENGTH, NOTE_LENGTH, 4];
    for (kind, fields) in [(1u32, load), (4, note)] {
        for field in [kind, 7] {
            file.extend_from_slice(&field.to_le_bytes());
        }
        for field in fields {
            file.extend_from_slice(&field.to_le_bytes());
        }
    }
    file.resize(NOTE_AT as usize, 0);
    // XEN_ELFNOTE_PHYS32_ENTRY.
    for field in [4u32, 4, 18, u32::from_le_bytes(*b"Xen\0"), LOAD as u32] {
        file.extend_from_slice(&field.to_le_bytes());
    }
    file.resize(4096, 0);
    file.extend_from_slice(code);
    let path = folder.join("tiny");
    fs::write(&path, file).expect("the folder can be written");
    path
}
