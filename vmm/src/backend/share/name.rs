//! One name in a directory, as a guest sent it.

use std::ffi::CStr;

use nix::errno::Errno;

/// What a file system of Linux takes at most (`NAME_MAX`).
const MAX_LENGTH: usize = 255;

/// A name that leads to an entry of its directory and nowhere else: no `/` in it, not `.` or `..`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'r>(&'r CStr);

impl<'r> Name<'r> {
    /// Checks a name.
    ///
    /// # Errors
    /// EINVAL; ENAMETOOLONG.
    pub fn new(name: &'r CStr) -> Result<Self, Errno> {
        match name.to_bytes() {
            b"" | b"." | b".." => Err(Errno::EINVAL),
            bytes if bytes.contains(&b'/') => Err(Errno::EINVAL),
            bytes if bytes.len() > MAX_LENGTH => Err(Errno::ENAMETOOLONG),
            _ => Ok(Self(name)),
        }
    }

    /// For the system call.
    pub fn as_c_str(self) -> &'r CStr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_nowhere_but_to_an_entry() {
        for bad in [c"", c".", c"..", c"/", c"a/b", c"../a", c"a/", c"/etc/passwd"] {
            assert_eq!(Name::new(bad), Err(Errno::EINVAL), "{bad:?}");
        }
        let long = std::ffi::CString::new(vec![b'a'; 256]).unwrap();
        assert_eq!(Name::new(&long), Err(Errno::ENAMETOOLONG));
        for good in [c"a", c"...", c"..a", c"\xff", c" "] {
            assert_eq!(Name::new(good).unwrap().as_c_str(), good);
        }
    }
}
