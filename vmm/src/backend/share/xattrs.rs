//! Extended attributes (xattr(7)): those of users.
//!
//! The others have a meaning to the host: `security.capability` gives privileges to who executes the
//! file, `trusted.overlay.*` and `system.posix_acl_*` change what others find and may do. A guest is told
//! that this file system has none, as is one on NFS.

use std::ffi::{CStr, CString};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::SFlag;

use super::inodes::Inode;
use super::{Share, descriptor_name};

/// The longest value, and the longest list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
pub const MAX_SIZE: usize = 64 << 10;
const MAX_NAME: usize = 255;
const NAMESPACE: &[u8] = b"user.";

impl Share {
    /// The value of an attribute.
    ///
    /// # Errors
    /// EOPNOTSUPP for those that are not users'; the host's, ENODATA among them.
    pub fn xattr(&self, number: u64, name: &CStr) -> Result<Vec<u8>, Errno> {
        let path = self.xattr_path(number, Some(name))?;
        let mut value = vec![0; MAX_SIZE];
        // SAFETY: both strings end, and the kernel writes at most the buffer's length to it.
        let length = unsafe {
            libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        value.truncate(Errno::result(length)?.unsigned_abs());
        Ok(value)
    }

    /// The names, each with a NUL behind it.
    ///
    /// # Errors
    /// The host's.
    pub fn xattr_names(&self, number: u64) -> Result<Vec<u8>, Errno> {
        let path = match self.xattr_path(number, None) {
            // What can have none has none.
            Err(Errno::EPERM) => return Ok(Vec::new()),
            path => path?,
        };
        let mut list = vec![0; MAX_SIZE];
        // SAFETY: the string ends, and the kernel writes at most the buffer's length to it.
        let length =
            unsafe { libc::listxattr(path.as_ptr(), list.as_mut_ptr().cast(), list.len()) };
        list.truncate(Errno::result(length)?.unsigned_abs());
        let names = list.split_inclusive(|byte| *byte == 0);
        Ok(names.filter(|name| name.starts_with(NAMESPACE)).flatten().copied().collect())
    }

    /// Sets an attribute; `flags` are setxattr(2)'s.
    ///
    /// # Errors
    /// As [`Share::xattr`]; EROFS.
    pub fn set_xattr(
        &self,
        number: u64,
        name: &CStr,
        value: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        self.writable()?;
        let path = self.xattr_path(number, Some(name))?;
        // SAFETY: both strings end, and the kernel reads the value's bytes.
        let set = unsafe {
            libc::setxattr(
                path.as_ptr(),
                name.as_ptr(),
                value.as_ptr().cast(),
                value.len(),
                flags.cast_signed(),
            )
        };
        Errno::result(set).map(drop)
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// As [`Share::xattr`]; EROFS.
    pub fn remove_xattr(&self, number: u64, name: &CStr) -> Result<(), Errno> {
        self.writable()?;
        let path = self.xattr_path(number, Some(name))?;
        // SAFETY: both strings end.
        let removed = unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
        Errno::result(removed).map(drop)
    }

    /// The path of a file's descriptor, which the calls take in place of one that is open, for a user's
    /// attribute.
    fn xattr_path(&self, number: u64, name: Option<&CStr>) -> Result<DescriptorPath, Errno> {
        if let Some(name) = name.map(CStr::to_bytes) {
            if name.len() > MAX_NAME {
                return Err(Errno::ERANGE);
            }
            if !name.starts_with(NAMESPACE) {
                return Err(Errno::EOPNOTSUPP);
            }
        }
        let inode = self.inodes.get(number)?;
        // As xattr(7) has it for users' attributes.
        if !matches!(inode.kind(), SFlag::S_IFREG | SFlag::S_IFDIR) {
            return Err(Errno::EPERM);
        }
        DescriptorPath::new(inode)
    }
}

/// The path, with the descriptor open as long as it is used.
struct DescriptorPath(CString, #[expect(dead_code, reason = "held open")] std::sync::Arc<Inode>);

impl DescriptorPath {
    fn new(inode: std::sync::Arc<Inode>) -> Result<Self, Errno> {
        let path = format!("/proc/self/fd/{}", descriptor_name(&*inode));
        Ok(Self(CString::new(path).map_err(|_| Errno::EINVAL)?, inode))
    }

    fn as_ptr(&self) -> *const libc::c_char {
        self.0.as_ptr()
    }
}
