//! Images that are plainly no raw disks, by their first bytes. Only to refuse them: the content of a
//! raw disk is the guest's, who could write the header of a format that names other files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::buffer::BounceBuffer;

/// What is read: a unit that O_DIRECT takes on every disk.
const START: usize = 4096;

/// Name, offset, and the bytes there.
const FORMATS: [(&str, usize, &[u8]); 10] = [
    ("qcow2", 0, b"QFI\xfb"), // also qcow's first version
    ("QED", 0, b"QED\0"),
    ("VHDX", 0, b"vhdxfile"),
    ("VHD", 0, b"conectix"), // not a fixed VHD, which is a raw disk and a footer
    ("VMDK", 0, b"KDMV"),
    ("VMDK", 0, b"COWD"),
    ("VMDK", 0, b"# Disk DescriptorFile"),
    ("VDI", 0x40, &0xbeda_107f_u32.to_le_bytes()),
    ("Parallels", 0, b"WithoutFreeSpace"),
    ("Parallels", 0, b"WithouFreSpacExt"),
];

/// The format of a disk that is not raw.
///
/// # Errors
/// It cannot be read.
pub fn recognise(file: &File) -> io::Result<Option<&'static str>> {
    // Aligned, as the file may have O_DIRECT.
    let mut buffer = BounceBuffer::new(START);
    let length = file.read_at(buffer.bytes(), 0)?;
    let start = &buffer.bytes()[..length];
    let found = FORMATS
        .iter()
        .find(|(_, at, magic)| start.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    Ok(found.map(|(name, ..)| *name))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes_and_everything_else_is_raw() {
        let of = |content: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(content).unwrap();
            recognise(&file).unwrap()
        };
        for (name, at, magic) in FORMATS {
            let mut image = vec![0; at];
            image.extend_from_slice(magic);
            image.resize(8192, 0);
            assert_eq!(of(&image), Some(name));
            image.insert(0, 0);
            assert_eq!(of(&image), None, "{name} in the wrong place");
        }
        // A boot sector, and a disk that the guest encrypts, are raw.
        assert_eq!(of(&[0xeb, 0x63, 0x90]), None);
        assert_eq!(of(b"LUKS\xba\xbe"), None);
        assert_eq!(of(b""), None);
    }
}
