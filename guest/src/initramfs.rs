//! The initramfs: init, the workload, and kernel modules; the image comes on a disk.
//!
//! Init is an executable of the package's own ([`crate::package`]), `isolab-init`. It goes from its file
//! into the guest's RAM, between the two pieces that [`pack`] makes.

use std::io;

use isolab_protocol::{GUEST_DIR, WORKLOAD_FILE, Workload};

use crate::archive::Archive;

/// The name of the executable that is PID 1 of every guest.
pub const INIT: &str = "isolab-init";

/// Where the initramfs holds init: the guest kernel's `rdinit=`.
pub const INIT_PATH: &str = "/.isolab/init";

/// A kernel module, to be loaded in the order of the list it is in.
pub struct Module {
    /// File name, for example `virtio_blk.ko`.
    pub name: String,
    /// The module itself, uncompressed.
    pub content: Vec<u8>,
}

/// An initramfs, but for init. Linux takes archives one behind the other, each at a multiple of 4, for one.
#[derive(Debug)]
pub struct Initramfs {
    /// What comes before init's content.
    pub before_init: Vec<u8>,
    /// What comes after it, at the next multiple of 4.
    pub after_init: Vec<u8>,
}

/// Packs `modules` and `workload` (whose list of modules is filled in here), for an init of `init_length`
/// bytes.
///
/// # Errors
/// The workload or an archive member has no form in JSON or cpio.
pub fn pack(workload: &Workload, modules: &[Module], init_length: u64) -> io::Result<Initramfs> {
    let module_path = |module: &Module| format!("{GUEST_DIR}/{}", module.name);
    let workload =
        Workload { modules: modules.iter().map(module_path).collect(), ..workload.clone() };
    let folder = || {
        let mut archive = Archive::new();
        archive.folder(GUEST_DIR, 0o700).map(|()| archive)
    };
    let before_init = folder()?.up_to_file(INIT_PATH, 0o755, init_length)?;
    let mut archive = folder()?;
    for module in modules {
        archive.file(&module_path(module), 0o600, &module.content)?;
    }
    archive.file(WORKLOAD_FILE, 0o600, &serde_json::to_vec(&workload)?)?;
    Ok(Initramfs { before_init, after_init: archive.finish()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_protocol::{Line, Process, RootDisks};
    use std::io::Read;

    #[test]
    fn the_archive_holds_init_modules_and_workload() {
        let workload = Workload {
            process: Process { args: vec!["true".to_owned()], ..Process::default() },
            line: Line::Serial { mailboxes: vec![] },
            hostname: "guest".to_owned(),
            modules: vec![],
            root: RootDisks {
                devices: vec!["/dev/vda".to_owned()],
                image: "erofs".to_owned(),
                scratch: "ext4".to_owned(),
                scratch_lasts: false,
            },
            interfaces: Vec::new(),
            name_files: vec![],
            mounts: vec![],
            read_only: false,
            kernel: Default::default(),
        };
        let module = Module { name: "a.ko".to_owned(), content: vec![1, 2, 3] };
        let init = b"\x7fELF and more";
        let packed = pack(&workload, &[module], init.len() as u64).unwrap();
        let mut archive = [&packed.before_init[..], init].concat();
        assert_eq!(packed.before_init.len() % 4, 0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        let found = entries(&[archive, packed.after_init].concat());
        let names: Vec<_> = found.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        assert_eq!(
            names,
            [
                (".isolab", 0o040700),
                (".isolab/init", 0o100755),
                (".isolab", 0o040700),
                (".isolab/a.ko", 0o100600),
                (".isolab/workload.json", 0o100600)
            ]
        );
        assert_eq!(found[1].2, init);
        let unpacked: Workload = serde_json::from_slice(&found[4].2).unwrap();
        assert_eq!(unpacked.modules, ["/.isolab/a.ko"]);
        assert_eq!(unpacked.process, workload.process);
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
