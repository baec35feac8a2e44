//! The part of the initramfs that is ours: init, the workload, and kernel modules.
//!
//! It is all of the initramfs: the image comes on a disk.

use std::io;

use cpio::{NewcBuilder, newc::ModeFileType, newc::trailer};
use isolab_protocol::{GUEST_DIR, WORKLOAD_FILE, Workload};

/// PID 1 of every guest, a static executable.
static INIT: &[u8] = include_bytes!(env!("ISOLAB_INIT"));

/// Where the initramfs holds init: the guest kernel's `rdinit=`.
pub const INIT_PATH: &str = "/.isolab/init";

/// A kernel module, to be loaded in the order of the list it is in.
pub struct Module {
    /// File name, for example `virtio_blk.ko`.
    pub name: String,
    /// The module itself, uncompressed.
    pub content: Vec<u8>,
}

/// Packs init, `modules` and `workload` (whose list of modules is filled in here).
///
/// # Errors
/// The workload or an archive member has no form in JSON or cpio.
pub fn pack(workload: &Workload, modules: &[Module]) -> io::Result<Vec<u8>> {
    let module_path = |module: &Module| format!("{GUEST_DIR}/{}", module.name);
    let workload =
        Workload { modules: modules.iter().map(module_path).collect(), ..workload.clone() };
    let mut archive = Vec::with_capacity(INIT.len() + 64 * 1024);
    // Directories first: the kernel makes none on its own. /dev is what it mounts devtmpfs on.
    add(&mut archive, GUEST_DIR, ModeFileType::Directory, 0o700, &[])?;
    add(&mut archive, INIT_PATH, ModeFileType::Regular, 0o755, INIT)?;
    for module in modules {
        let path = module_path(module);
        add(&mut archive, &path, ModeFileType::Regular, 0o600, &module.content)?;
    }
    let json = serde_json::to_vec(&workload)?;
    add(&mut archive, WORKLOAD_FILE, ModeFileType::Regular, 0o600, &json)?;
    trailer(&mut archive)?;
    Ok(archive)
}

fn add(
    archive: &mut Vec<u8>,
    path: &str,
    kind: ModeFileType,
    mode: u32,
    content: &[u8],
) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    let mut writer = NewcBuilder::new(path.trim_start_matches('/'))
        .mode(mode)
        .set_mode_file_type(kind)
        .write(&mut *archive, length);
    io::Write::write_all(&mut writer, content)?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_protocol::{RootDisks, User};
    use std::io::Read;

    #[test]
    fn the_archive_holds_init_modules_and_workload() {
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
            stdin: false,
        };
        let module = Module { name: "a.ko".to_owned(), content: vec![1, 2, 3] };
        let archive = pack(&workload, &[module]).unwrap();

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
        let names: Vec<_> = found.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        assert_eq!(
            names,
            [
                (".isolab", 0o040700),
                (".isolab/init", 0o100755),
                (".isolab/a.ko", 0o100600),
                (".isolab/workload.json", 0o100600)
            ]
        );
        assert!(found[1].2.starts_with(b"\x7fELF"));
        let unpacked: Workload = serde_json::from_slice(&found[3].2).unwrap();
        assert_eq!(unpacked.modules, ["/.isolab/a.ko"]);
        assert_eq!(unpacked.args, workload.args);
    }
}
