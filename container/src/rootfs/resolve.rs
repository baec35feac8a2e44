//! Paths inside a root filesystem that an image's author made, resolved so that no symbolic link leads out of it.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, mkdirat, mknodat};

use crate::error::{Error, Result};

/// An absolute path inside the container, with all that is needed to create it.
#[derive(Debug)]
pub(crate) struct InnerPath {
    whole: CString,
    /// Each component with the path that leads to it: ("/", "dev"), ("/dev", "pts").
    components: Vec<(CString, CString)>,
}

/// What stands at a path that has to be created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Directory,
    File,
}

impl InnerPath {
    /// `field` names the path's origin in an error.
    ///
    /// # Errors
    /// A path that is relative, has `..` in it, contains a NUL byte.
    pub(crate) fn new(path: &Path, field: &str) -> Result<Self> {
        let invalid =
            |problem: &str| Error::invalid(field, format!("{}: {problem}", path.display()));
        let text = |path: &Path| {
            CString::new(path.as_os_str().as_bytes()).map_err(|_| invalid("contains a NUL byte"))
        };
        if !path.is_absolute() {
            return Err(invalid("not an absolute path"));
        }
        let mut parent = Path::new("/").to_path_buf();
        let mut components = Vec::new();
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir => {}
                Component::Normal(name) => {
                    components.push((text(&parent)?, text(Path::new(name))?));
                    parent.push(name);
                }
                Component::ParentDir | Component::Prefix(_) => {
                    return Err(invalid("must not contain `..`"));
                }
            }
        }
        Ok(InnerPath { whole: text(&parent)?, components })
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.whole
    }

    pub(crate) fn is_root(&self) -> bool {
        self.components.is_empty()
    }

    /// The directory that holds the path, and its last component.
    pub(crate) fn split(&self) -> Option<(&CStr, &CStr)> {
        self.components.last().map(|(parent, name)| (parent.as_c_str(), name.as_c_str()))
    }

    /// Child: opens the path below `root`, following symbolic links as if `root` were `/`.
    pub(crate) fn open(&self, root: BorrowedFd) -> Result<OwnedFd, Errno> {
        open_in_root(root, &self.whole)
    }

    /// Child: as `open`; creates what is missing.
    pub(crate) fn open_or_create(
        &self,
        root: BorrowedFd,
        target: Target,
    ) -> Result<OwnedFd, Errno> {
        let Some(last) = self.components.len().checked_sub(1) else { return self.open(root) };
        match self.open(root) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        self.create(root, last, target)?;
        // A symbolic link to nowhere on the way ends here as ENOENT.
        self.open(root)
    }

    /// Child: makes one component, and those above it that are missing. Nearly always none is.
    fn create(&self, root: BorrowedFd, position: usize, target: Target) -> Result<(), Errno> {
        let (parent, name) = &self.components[position];
        let parent = match open_in_root(root, parent) {
            Err(Errno::ENOENT) if position > 0 => {
                self.create(root, position - 1, Target::Directory)?;
                open_in_root(root, parent)?
            }
            other => other?,
        };
        let (file, directory) = (Mode::from_bits_truncate(0o644), Mode::from_bits_truncate(0o755));
        let made = match target {
            Target::File => mknodat(&parent, name.as_c_str(), SFlag::S_IFREG, file, 0),
            Target::Directory => mkdirat(&parent, name.as_c_str(), directory),
        };
        match made {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl fmt::Display for InnerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.whole.to_string_lossy())
    }
}

/// Child: opens `path` below `root`, following symbolic links as if `root` were `/` (openat2(2), RESOLVE_IN_ROOT),
/// and never a magic link of procfs, which could lead anywhere.
pub(crate) fn open_in_root(root: BorrowedFd, path: &CStr) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // EAGAIN: somebody renamed something during the walk, and the kernel could not be sure about `..`.
    for _ in 0..128 {
        match openat2(root, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// A path that names an open descriptor for system calls that take only paths, made without allocating.
pub(crate) struct DescriptorPath([u8; 32]);

impl DescriptorPath {
    pub(crate) fn new(fd: &OwnedFd) -> Self {
        let mut path = [0u8; 32];
        let prefix = b"/proc/self/fd/";
        path[..prefix.len()].copy_from_slice(prefix);
        // A descriptor has at most ten digits; the array's remaining zeros end the string.
        write_decimal(fd.as_raw_fd().unsigned_abs(), &mut path[prefix.len()..]);
        DescriptorPath(path)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"/proc/self/fd/-1")
    }
}

/// Writes `number` at the start of `out` and returns how many digits that took; `out` must hold ten.
pub(crate) fn write_decimal(mut number: u32, out: &mut [u8]) -> usize {
    let mut digits = [0u8; 10];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    let length = digits.len() - start;
    out[..length].copy_from_slice(&digits[start..]);
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn paths_are_absolute_and_without_dotdot() {
        assert!(InnerPath::new(Path::new("proc"), "f").is_err());
        assert!(InnerPath::new(Path::new("/a/../b"), "f").is_err());
        let path = InnerPath::new(Path::new("/dev//./pts/"), "f").unwrap();
        assert_eq!(path.as_c_str(), c"/dev/pts");
        assert_eq!(path.split(), Some((c"/dev", c"pts")));
        assert!(InnerPath::new(Path::new("/"), "f").unwrap().is_root());
    }

    #[test]
    fn symbolic_links_stay_inside_the_root() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../..", root.join("up")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("abs")).unwrap();
        let fd: OwnedFd = std::fs::File::open(&root).unwrap().into();
        for (path, lands_in) in
            [("/up/made", "made"), ("/abs/made", "etc/made"), ("/a/b/c", "a/b/c")]
        {
            InnerPath::new(Path::new(path), "f")
                .unwrap()
                .open_or_create(fd.as_fd(), Target::Directory)
                .unwrap();
            assert!(root.join(lands_in).is_dir(), "{path} did not land in {lands_in}");
        }
        assert_eq!(
            std::fs::read_dir(outer.path()).unwrap().count(),
            1,
            "something was made outside the root"
        );
    }

    #[test]
    fn a_dangling_symbolic_link_is_an_error_not_a_loop() {
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", root.path().join("x")).unwrap();
        let fd: OwnedFd = std::fs::File::open(root.path()).unwrap().into();
        let path = InnerPath::new(Path::new("/x/y"), "f").unwrap();
        assert_eq!(path.open_or_create(fd.as_fd(), Target::Directory).unwrap_err(), Errno::ENOENT);
    }

    #[test]
    fn decimal_digits() {
        let mut out = [0u8; 10];
        for number in [0, 7, 10, 1024, u32::MAX] {
            let length = write_decimal(number, &mut out);
            assert_eq!(std::str::from_utf8(&out[..length]).unwrap(), number.to_string());
        }
    }
}
