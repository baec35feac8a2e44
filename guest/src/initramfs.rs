//! The initramfs: init, the workload, and kernel modules; the image comes on a disk.
//!
//! It is two archives, one behind the other, which Linux unpacks as one: [`INIT`], the same for all,
//! and what [`pack`] makes.

use std::io;

use isolab_protocol::{GUEST_DIR, WORKLOAD_FILE, Workload};

use crate::archive::Archive;

/// An archive with PID 1 of every guest, a static executable.
pub static INIT: &[u8] = include_bytes!(env!("ISOLAB_INIT_ARCHIVE"));

/// Where the initramfs holds init: the guest kernel's `rdinit=`.
pub const INIT_PATH: &str = env!("ISOLAB_INIT_PATH");

/// A kernel module, to be loaded in the order of the list it is in.
pub struct Module {
    /// File name, for example `virtio_blk.ko`.
    pub name: String,
    /// The module itself, uncompressed.
    pub content: Vec<u8>,
}

/// Packs `modules` and `workload` (whose list of modules is filled in here).
///
/// # Errors
/// The workload or an archive member has no form in JSON or cpio.
pub fn pack(workload: &Workload, modules: &[Module]) -> io::Result<Vec<u8>> {
    let module_path = |module: &Module| format!("{GUEST_DIR}/{}", module.name);
    let workload =
        Workload { modules: modules.iter().map(module_path).collect(), ..workload.clone() };
    let mut archive = Archive::new();
    archive.folder(GUEST_DIR, 0o700)?;
    for module in modules {
        archive.file(&module_path(module), 0o600, &module.content)?;
    }
    archive.file(WORKLOAD_FILE, 0o600, &serde_json::to_vec(&workload)?)?;
    archive.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_protocol::{RootDisks, User};
    use std::io::Read;

    #[test]
    fn the_archives_hold_init_modules_and_workload() {
        let workload = Workload {
            args: vec!["true".to_owned()],
            env: vec![],
            cwd: "/".to_owned(),
            user: User::default(),
            hostname: "guest".to_owned(),
            modules: vec![],
            root: RootDisks {
                devices: vec!["/dev/vda".to_owned()],
                image: "erofs".to_owned(),
                scratch: "ext4".to_owned(),
            },
            network: None,
            name_files: vec![],
            stdin: false,
        };
        let module = Module { name: "a.ko".to_owned(), content: vec![1, 2, 3] };
        let mut found = entries(INIT);
        found.extend(entries(&pack(&workload, &[module]).unwrap()));
        let names: Vec<_> = found.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        assert_eq!(
            names,
            [
                (".isolab", 0o040755),
                (".isolab/init", 0o100755),
                (".isolab", 0o040700),
                (".isolab/a.ko", 0o100600),
                (".isolab/workload.json", 0o100600)
            ]
        );
        assert!(found[1].2.starts_with(b"\x7fELF"));
        let unpacked: Workload = serde_json::from_slice(&found[4].2).unwrap();
        assert_eq!(unpacked.modules, ["/.isolab/a.ko"]);
        assert_eq!(unpacked.args, workload.args);
    }

    /// Names, modes and contents.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut rest = io::Cursor::new(archive);
        let mut found = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            found.push((reader.entry().name().to_owned(), reader.entry().mode(), content));
            rest = reader.finish().unwrap();
        }
        found
    }
}
