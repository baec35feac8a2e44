//! The initramfs: init, the workload, and kernel modules; the image comes on a disk.
//!
//! Init is an executable of the package's own ([`crate::package`]), `isolab-init`. It goes from its file
//! into the guest's RAM, between the two pieces that [`pack`] makes.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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

/// A file of the host that the workload sees, as it is now. It may be a secret, and is never shown.
pub struct SeenFile {
    /// Where the initramfs holds it: in [`isolab_protocol::FILES_DIR`].
    pub path: String,
    /// Its user and group.
    pub owner: (u32, u32),
    /// Its permissions.
    pub permissions: u32,
    /// What is in it.
    pub content: Vec<u8>,
}

impl SeenFile {
    /// A file as it is now, to be at `path` in the initramfs; none if it has more than `most` bytes.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(file: &Path, path: String, most: u64) -> io::Result<Option<Self>> {
        let file = File::open(file)?;
        let metadata = file.metadata()?;
        let mut content = Vec::new();
        // By what is read: the length may change meanwhile.
        file.take(most + 1).read_to_end(&mut content)?;
        let is_short = content.len() as u64 <= most;
        let owner = (metadata.uid(), metadata.gid());
        let permissions = metadata.mode() & 0o7777;
        Ok(is_short.then_some(Self { path, owner, permissions, content }))
    }
}

/// An initramfs, but for init. Linux takes archives one behind the other, each at a multiple of 4, for one.
#[derive(Debug)]
pub struct Initramfs {
    /// What comes before init's content.
    pub before_init: Vec<u8>,
    /// What comes after it, at the next multiple of 4.
    pub after_init: Vec<u8>,
}

/// Packs `modules`, `files` and `workload` (whose list of modules is filled in here), for an init of `init_length`
/// bytes.
///
/// # Errors
/// The workload or an archive member has no form in JSON or cpio.
pub fn pack(
    workload: &Workload,
    modules: &[Module],
    files: &[SeenFile],
    init_length: u64,
) -> io::Result<Initramfs> {
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
    for SeenFile { path, owner, permissions, content } in files {
        archive.file_of(*owner, path, *permissions, content)?;
    }
    Ok(Initramfs { before_init, after_init: archive.finish()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_protocol::{FILES_DIR, Line, Process, RootDisks};

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
        let seen = SeenFile {
            path: format!("{FILES_DIR}/0"),
            owner: (7, 8),
            permissions: 0o440,
            content: b"secret".to_vec(),
        };
        let init = b"\x7fELF and more";
        let packed = pack(&workload, &[module], &[seen], init.len() as u64).unwrap();
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
                (".isolab/workload.json", 0o100600),
                (".isolab-files", 0o040755),
                (".isolab-files/0", 0o100440)
            ]
        );
        assert_eq!(found[6].2, b"secret");
        assert_eq!(found[1].2, init);
        let unpacked: Workload = serde_json::from_slice(&found[4].2).unwrap();
        assert_eq!(unpacked.modules, ["/.isolab/a.ko"]);
        assert_eq!(unpacked.process, workload.process);
    }

    #[test]
    fn a_file_is_taken_as_it_is_unless_it_is_too_long() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret").unwrap();
        let read = |most| SeenFile::read(file.path(), "/x".to_owned(), most).unwrap();
        let seen = read(6).unwrap();
        assert_eq!((seen.content.as_slice(), seen.permissions), (&b"secret"[..], 0o600));
        assert!(read(5).is_none());
        assert!(SeenFile::read(Path::new("/no/such"), String::new(), 1).is_err());
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
