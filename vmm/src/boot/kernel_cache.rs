//! Decompressed kernels, kept from one start to the next.
//!
//! `<sha256 of the bzImage>.elf` holds a vmlinux. Hashing megabytes at every start would cost more
//! than starting, so `by-file/<device>-<inode>-<size>-<mtime>-<ctime>` is a symbolic link to the vmlinux
//! of the file with that identity. Both appear by renaming, complete or not at all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::sparse;

/// A directory of decompressed kernels.
pub struct KernelCache {
    directory: PathBuf,
}

impl KernelCache {
    /// The cache in `directory`, or where the XDG base directory specification puts it. None
    /// when there is no home directory.
    pub fn new(directory: Option<PathBuf>) -> Option<Self> {
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let directory = directory.or_else(|| {
            let cache =
                absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
            Some(cache?.join("isolab").join("vmlinux"))
        })?;
        Some(Self { directory })
    }

    /// The vmlinux of the bzImage that `file` is, if it was ever stored.
    pub fn find(&self, file: &File) -> Option<File> {
        let link = self.link(file).ok()?;
        if let Ok(vmlinux) = File::open(&link) {
            return Some(vmlinux);
        }
        // The same kernel in another place: worth a hash, which decompressing is far above.
        let vmlinux = self.directory.join(format!("{}.elf", digest_of(file).ok()?));
        let found = File::open(&vmlinux).ok()?;
        // Without the link it is found this way again.
        let _ = self.link_to(&link, &vmlinux);
        Some(found)
    }

    /// Stores `vmlinux` as what `file`, a bzImage, decompresses to.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn store(&self, file: &File, vmlinux: &[u8]) -> io::Result<File> {
        let link = self.link(file)?;
        let links = self.directory.join("by-file");
        // Private: whoever can write here can choose the user's kernel.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&links)?;
        let name = format!("{}.elf", digest_of(file)?);
        let path = self.directory.join(&name);
        let temporary = self.directory.join(format!(".{name}.{}", std::process::id()));
        write_then_rename(&temporary, &path, vmlinux)?;
        self.link_to(&link, &path)?;
        File::open(path)
    }

    /// Makes `link` lead to `vmlinux`, both in this cache.
    fn link_to(&self, link: &Path, vmlinux: &Path) -> io::Result<()> {
        let target = Path::new("..").join(vmlinux.file_name().unwrap_or_default());
        let temporary = link.with_file_name(format!(".{}", std::process::id()));
        let _ = fs::remove_file(&temporary); // Left by a process of that id that was killed.
        symlink(target, &temporary)?;
        fs::rename(&temporary, link)
    }

    fn link(&self, file: &File) -> io::Result<PathBuf> {
        let meta = file.metadata()?;
        let name = format!(
            "{:x}-{:x}-{:x}-{:x}.{:x}-{:x}.{:x}",
            meta.dev(),
            meta.ino(),
            meta.size(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec()
        );
        Ok(self.directory.join("by-file").join(name))
    }
}

/// Of the whole content, leaving the file's position alone.
fn digest_of(file: &File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        match file.read_at(&mut buffer, offset)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => {
                hasher.update(&buffer[..count]);
                offset += count as u64;
            }
        }
    }
}

fn write_then_rename(temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let write = || {
        let file = File::create(temporary)?;
        sparse::write(&file, content)?;
        // Without it a crash of the host could leave an empty file under the final name.
        file.sync_all()?;
        fs::rename(temporary, path)
    };
    write().inspect_err(|_| drop(fs::remove_file(temporary)))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn what_was_stored_is_found_until_the_file_changes() {
        let directory = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(Some(directory.path().join("cache"))).unwrap();
        let path = directory.path().join("vmlinuz");
        fs::write(&path, b"compressed").unwrap();
        let file = File::open(&path).unwrap();
        assert!(cache.find(&file).is_none());
        cache.store(&file, b"plain").unwrap();
        cache.store(&file, b"plain").unwrap();
        let copy = directory.path().join("copy");
        fs::write(&copy, b"compressed").unwrap();
        assert!(cache.find(&File::open(&copy).unwrap()).is_some());
        let mut content = String::new();
        cache.find(&file).unwrap().read_to_string(&mut content).unwrap();
        assert_eq!(content, "plain");

        fs::write(&path, b"compressed differently").unwrap();
        assert!(cache.find(&File::open(&path).unwrap()).is_none());
        let left: Vec<_> = fs::read_dir(directory.path().join("cache"))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn a_cache_that_cannot_be_written_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmlinuz");
        fs::write(&path, b"compressed").unwrap();
        let cache = KernelCache::new(Some(path.join("not a directory"))).unwrap();
        let file = File::open(&path).unwrap();
        assert!(cache.find(&file).is_none());
        assert!(cache.store(&file, b"").is_err());
    }
}
