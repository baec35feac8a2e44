//! Initramfs archives in the making: cpio's "newc" format
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Component, Path};

use cpio::NewcBuilder;
use cpio::newc::{ModeFileType, trailer};

/// An archive to which files are added. The kernel makes no folder on its own, so that those on
/// the way to a file are added with it.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
}

impl Archive {
    /// An archive without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a folder with these permissions, and those above it with 0755. One that is there
    /// stays as it is.
    ///
    /// # Errors
    /// `path` is no path inside the archive.
    pub fn folder(&mut self, path: &str, permissions: u32) -> io::Result<()> {
        let path = inside(path)?;
        if self.folders.contains(&path) {
            return Ok(());
        }
        self.parents(&path)?;
        self.entry(builder(&path, ModeFileType::Directory, permissions), &[])?;
        self.folders.insert(path);
        Ok(())
    }

    /// Adds a file with these permissions.
    ///
    /// # Errors
    /// `path` is no path inside the archive, or the content is 4 GiB or longer.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> io::Result<()> {
        self.file_of((0, 0), path, permissions, content)
    }

    /// Likewise, for a file of this user and group.
    ///
    /// # Errors
    /// As for [`Archive::file`].
    pub fn file_of(
        &mut self,
        (uid, gid): (u32, u32),
        path: &str,
        permissions: u32,
        content: &[u8],
    ) -> io::Result<()> {
        let path = inside(path)?;
        self.parents(&path)?;
        let header = builder(&path, ModeFileType::Regular, permissions).uid(uid).gid(gid);
        self.entry(header, content)
    }

    /// The archive so far, to which a file of `length` bytes with these permissions is to be added: its
    /// content follows, then zeroes up to a multiple of 4.
    ///
    /// # Errors
    /// As for [`Archive::file`].
    pub fn up_to_file(mut self, path: &str, permissions: u32, length: u64) -> io::Result<Vec<u8>> {
        let path = inside(path)?;
        self.parents(&path)?;
        let length = u32::try_from(length).map_err(io::Error::other)?;
        // Without the content, this is an entry's header.
        builder(&path, ModeFileType::Regular, permissions)
            .write(&mut self.bytes, length)
            .finish()?;
        Ok(self.bytes)
    }

    /// The archive.
    ///
    /// # Errors
    /// None is expected: it is made in memory.
    pub fn finish(mut self) -> io::Result<Vec<u8>> {
        trailer(&mut self.bytes)?;
        Ok(self.bytes)
    }

    fn parents(&mut self, path: &str) -> io::Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent, 0o755),
            None => Ok(()),
        }
    }

    fn entry(&mut self, header: NewcBuilder, content: &[u8]) -> io::Result<()> {
        let length = u32::try_from(content.len()).map_err(io::Error::other)?;
        let mut writer = header.write(&mut self.bytes, length);
        writer.write_all(content)?;
        writer.finish()?;
        Ok(())
    }
}

fn builder(path: &str, kind: ModeFileType, permissions: u32) -> NewcBuilder {
    NewcBuilder::new(path).mode(permissions).set_mode_file_type(kind)
}

/// `/usr/bin/fio` as the archive has it: `usr/bin/fio`.
fn inside(path: &str) -> io::Result<String> {
    let parts: Option<Vec<_>> = Path::new(path)
        .components()
        .filter(|part| *part != Component::RootDir)
        .map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    match parts {
        Some(parts) if !parts.is_empty() => Ok(parts.join("/")),
        _ => Err(io::Error::other(format!("`{path}` is no path inside an archive"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    /// Names, modes and contents.
    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut rest = archive;
        let mut found = Vec::new();
        loop {
            let mut reader = cpio::NewcReader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                return found;
            }
            let mut content = Vec::new();
            reader.read_to_end(&mut content).unwrap();
            found.push((reader.entry().name().to_owned(), reader.entry().mode(), content));
            rest = reader.finish().unwrap();
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new();
        archive.folder("secret", 0o700).unwrap();
        archive.file("/usr/bin/a", 0o755, b"A").unwrap();
        archive.file("usr/bin/b", 0o644, b"B").unwrap();
        archive.file("secret/c", 0o600, b"").unwrap();
        let entries = entries(&archive.finish().unwrap());
        let listed: Vec<_> = entries.iter().map(|(name, mode, _)| (name.as_str(), *mode)).collect();
        assert_eq!(
            listed,
            [
                ("secret", 0o040700),
                ("usr", 0o040755),
                ("usr/bin", 0o040755),
                ("usr/bin/a", 0o100755),
                ("usr/bin/b", 0o100644),
                ("secret/c", 0o100600)
            ]
        );
        assert_eq!(entries[3].2, b"A");
    }

    #[test]
    fn paths_stay_inside() {
        for bad in ["", "/", "..", "a/../b", "../a"] {
            assert!(Archive::new().file(bad, 0o644, b"").is_err(), "{bad}");
        }
    }
}
