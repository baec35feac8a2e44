//! Removing a folder with all that is in it, however deep that is.
//!
//! A path is at most PATH_MAX long, and a walk that keeps each folder on its way open needs as many
//! descriptors as the tree is deep; a layer or a workload makes folders deeper than either. So
//! nothing here descends: a folder that is not empty is moved up to the top first, and emptied
//! there. Two descriptors and as many steps as there are files are enough for any tree.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Removes a file, or a folder with its content; what is not there is removed already. No link is
/// followed, and what is mounted in the folder is not touched. Gives the bytes of disk that are
/// free now.
///
/// # Errors
/// Something may not be removed, or something is mounted there.
pub fn remove_tree(path: &Path) -> io::Result<u64> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    if !metadata.is_dir() {
        fs::remove_file(path)?;
        return Ok(if metadata.nlink() == 1 { metadata.blocks() * 512 } else { 0 });
    }
    let is_root = geteuid().is_root();
    if !is_root {
        let_owner_in(AT_FDCWD, path);
    }
    let top = openat(AT_FDCWD, path, FOLDER, Mode::empty())?;
    let mut removal = Removal { top, is_root, moved: 0, freed: metadata.blocks() * 512 };
    // What a folder had in it may be moved behind the place that reading has come to.
    while removal.empty_top()? > 0 {}
    fs::remove_dir(path)?;
    Ok(removal.freed)
}

struct Removal {
    top: OwnedFd,
    is_root: bool,
    /// How many folders have been moved to the top.
    moved: u64,
    freed: u64,
}

impl Removal {
    /// One pass through the top folder; how many entries it had.
    fn empty_top(&mut self) -> io::Result<usize> {
        let names = names_in(&self.top)?;
        for name in &names {
            let top = self.top.try_clone()?;
            if !self.unlink(&top, name)? {
                self.remove_folder(name)?;
            }
        }
        Ok(names.len())
    }

    /// Removes a folder of the top; what folders are in it go to the top.
    fn remove_folder(&mut self, name: &CStr) -> io::Result<()> {
        if !self.is_root {
            let_owner_in(&self.top, name);
        }
        // A file system that is mounted here is not ours.
        let how = OpenHow::new().flags(FOLDER).resolve(ResolveFlag::RESOLVE_NO_XDEV);
        let folder = openat2(&self.top, name, how)?;
        self.freed += size_of(&fstat(&folder)?);
        loop {
            for entry in names_in(&folder)? {
                if !self.unlink(&folder, &entry)? {
                    self.move_up(&folder, &entry)?;
                }
            }
            match unlinkat(&self.top, name, UnlinkatFlags::RemoveDir) {
                // Reading a folder that changes may leave entries out.
                Err(Errno::ENOTEMPTY | Errno::EEXIST) => {}
                other => return Ok(other?),
            }
        }
    }

    /// Removes a file or an empty folder. False for a folder with something in it.
    fn unlink(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<bool> {
        let stat = match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => return Ok(true),
            other => other?,
        };
        let is_dir = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        let how = if is_dir { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        match unlinkat(folder, name, how) {
            Ok(()) => {}
            Err(Errno::ENOTEMPTY | Errno::EEXIST) if is_dir => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        // A file that has other names frees nothing yet.
        if is_dir || stat.st_nlink == 1 {
            self.freed += size_of(&stat);
        }
        Ok(true)
    }

    fn move_up(&mut self, folder: &OwnedFd, name: &CStr) -> io::Result<()> {
        if !self.is_root {
            // Moving a folder writes its `..`.
            let_owner_in(folder, name);
        }
        loop {
            self.moved += 1;
            let new = CString::new(format!(".isolab-removed-{}", self.moved))?;
            match renameat(folder, name, &self.top, new.as_c_str()) {
                // Something in the tree is called so.
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                other => return Ok(other?),
            }
        }
    }
}

/// Gives the owner all rights on a folder that is about to be removed. Where that fails, so does
/// what needs them.
fn let_owner_in<P: ?Sized + nix::NixPath>(parent: impl AsFd, folder: &P) {
    let _ = fchmodat(parent, folder, Mode::S_IRWXU, FchmodatFlags::FollowSymlink);
}

/// The names in a folder. By way of /proc, so that it is opened anew: a duplicate of the descriptor
/// would go on where it was last read.
fn names_in(folder: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
        names.push(CString::new(entry?.file_name().into_vec())?);
    }
    Ok(names)
}

fn size_of(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::mkdirat;

    use super::*;

    /// A chain of folders: longer than any path, and deeper than there may be open files.
    pub(crate) fn make_deep(path: &Path, depth: usize) {
        fs::create_dir(path).unwrap();
        let mut folder = openat(AT_FDCWD, path, FOLDER, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&folder, c"deep", Mode::S_IRWXU).unwrap();
            folder = openat(&folder, c"deep", FOLDER, Mode::empty()).unwrap();
        }
    }

    #[test]
    fn no_depth_is_too_much() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        make_deep(&path, 5000);
        assert!(remove_tree(&path).unwrap() > 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_is_in_the_way_goes_and_what_links_lead_to_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, other) = (dir.path().join("tree"), dir.path().join("other"));
        fs::create_dir(&other).unwrap();
        fs::write(other.join("kept"), "kept").unwrap();
        // Names that the removal itself would choose, as a file and as a folder with content.
        fs::create_dir_all(tree.join(".isolab-removed-2/x/y")).unwrap();
        fs::write(tree.join(".isolab-removed-1"), "x").unwrap();
        for name in ["a/b/c", "a/b/d/e", "f/g/h"] {
            fs::create_dir_all(tree.join(name)).unwrap();
            fs::write(tree.join(name).join("file"), "x").unwrap();
        }
        symlink(&other, tree.join("a/link")).unwrap();
        symlink(&other, tree.join("link")).unwrap();
        fs::hard_link(other.join("kept"), tree.join("a/b/hard")).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert_eq!(fs::read_to_string(other.join("kept")).unwrap(), "kept");
        // A link itself, a file, and nothing.
        symlink(&other, &tree).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&other.join("kept")).unwrap();
        assert_eq!(remove_tree(&tree).unwrap(), 0);
        assert!(other.exists() && !tree.exists());
    }

    #[test]
    fn what_is_freed_is_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/file"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(tree.join("a/b/file"), tree.join("a/second")).unwrap();
        fs::File::open(tree.join("a/b/file")).unwrap().sync_all().unwrap();
        let file = fs::metadata(tree.join("a/second")).unwrap().blocks() * 512;
        let folders = ["", "a", "a/b"].map(|name| fs::metadata(tree.join(name)).unwrap().blocks());
        assert_eq!(remove_tree(&tree).unwrap(), file + folders.iter().sum::<u64>() * 512);
    }
}
