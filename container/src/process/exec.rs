//! The program: where it may be found, as execvp(3) looks for it, its arguments and environment.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

use crate::error::{Error, Result};
use crate::spec::DEFAULT_PATH;

/// The program's possible paths, arguments and environment, ready for the trampoline.
#[derive(Debug)]
pub(crate) struct ExecPlan {
    /// To be tried in this order. One, if `args[0]` has a slash; otherwise one for each directory of `PATH`.
    pub(super) candidates: PointerArray,
    pub(super) args: PointerArray,
    pub(super) env: PointerArray,
    ignored_signals: u64,
}

/// A NULL-terminated array of C strings and the strings that it points to.
#[derive(Debug)]
pub(super) struct PointerArray {
    strings: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

// SAFETY: the pointers point into `strings`, which this value owns, never changes and drops with itself; a CString's
// buffer does not move when the CString does.
unsafe impl Send for PointerArray {}
// SAFETY: as for Send; shared access only reads.
unsafe impl Sync for PointerArray {}

impl PointerArray {
    pub(super) fn new(field: &str, strings: &[String]) -> Result<Self> {
        let convert = |text: &String| {
            CString::new(text.as_str())
                .map_err(|_| Error::invalid(field, format!("{text:?} contains a NUL byte")))
        };
        Ok(Self::from_strings(strings.iter().map(convert).collect::<Result<_>>()?))
    }

    pub(super) fn concatenate(parts: &[&PointerArray]) -> Self {
        Self::from_strings(parts.iter().flat_map(|part| part.strings.iter().cloned()).collect())
    }

    fn from_strings(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect();
        PointerArray { strings, pointers }
    }

    pub(super) fn as_ptr(&self) -> *const *const libc::c_char {
        self.pointers.as_ptr()
    }
}

impl ExecPlan {
    pub(crate) fn new(args: &[String], env: &[String]) -> Result<Self> {
        let Some(command) = args.first() else {
            return Err(Error::invalid("process.args", "empty: there is no command to run"));
        };
        let candidates = candidates(command, env);
        let candidates = PointerArray::new("process.args", &candidates)?;
        let args = PointerArray::new("process.args", args)?;
        let env = PointerArray::new("process.env", env)?;
        Ok(ExecPlan { candidates, args, env, ignored_signals: ignored_signals() })
    }

    /// Of a program that is found at `path` alone, whatever its first argument says.
    pub(crate) fn at(path: &Path, args: Vec<String>, env: &[String]) -> Result<Self> {
        let mut plan = ExecPlan::new(&args, env)?;
        let path = CString::new(path.as_os_str().as_bytes());
        let path = path.map_err(|_| Error::invalid("path", "contains a NUL byte"))?;
        plan.candidates = PointerArray::from_strings(vec![path]);
        Ok(plan)
    }

    pub(crate) fn command(&self) -> String {
        self.args
            .strings
            .first()
            .map(|command| command.to_string_lossy().into_owned())
            .unwrap_or_default()
    }
}

fn candidates(command: &str, env: &[String]) -> Vec<String> {
    if command.contains('/') {
        return vec![command.to_owned()];
    }
    if command.is_empty() {
        // An empty name is looked up nowhere.
        return Vec::new();
    }
    let path = env.iter().find_map(|variable| variable.strip_prefix("PATH="));
    let join = |directory: &str| match directory {
        "" => format!("./{command}"),
        directory => format!("{directory}/{command}"),
    };
    path.unwrap_or(DEFAULT_PATH).split(':').map(join).collect()
}

/// The signals that this process ignores, bit N - 1 being signal N; all, where that cannot be found out. Handlers
/// reset by themselves at execve, ignored signals do not: Rust ignores SIGPIPE, and callers may leave us more.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX)
}

impl ExecPlan {
    /// Child: whether there is a program, as whoever it is to run as sees it. What a program lacks else (its
    /// interpreter, a format that the kernel knows) only its execution tells.
    pub(crate) fn find(&self) -> Result<(), Errno> {
        let mut found = Errno::ENOENT;
        for path in &self.candidates.strings {
            let executable = || {
                // eaccess(2): by the effective ids, which are those of the process already.
                let (here, follow) = (nix::fcntl::AT_FDCWD, AtFlags::AT_EACCESS);
                faccessat(here, path.as_c_str(), AccessFlags::X_OK, follow)?;
                match SFlag::from_bits_truncate(stat(path.as_c_str())?.st_mode) & SFlag::S_IFMT {
                    SFlag::S_IFDIR => Err(Errno::EACCES),
                    _ => Ok(()),
                }
            };
            match executable() {
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                // As execvp(3): it goes on, and tells of this in the end.
                Err(errno @ (Errno::EACCES | Errno::ELOOP)) => found = errno,
                // A seccomp filter may let us not look.
                _ => return Ok(()),
            }
        }
        Err(found)
    }

    /// Child: default dispositions and an empty mask, as a program expects to find them.
    pub(crate) fn reset_signals(&self) -> Result<(), Errno> {
        // The raw call, because the C library refuses the two real-time signals that it keeps for itself, and a caller
        // may have left those ignored as well.
        let default = [0u64; 4];
        for number in (1..=64u32).filter(|number| self.ignored_signals & 1 << (number - 1) != 0) {
            // SAFETY: on 64-bit Linux the kernel's sigaction is four words (handler, flags, restorer, an 8-byte mask)
            // and all zeros is SIG_DFL. SIGKILL and SIGSTOP are refused, and cannot be ignored either.
            unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    number,
                    default.as_ptr(),
                    ptr::null_mut::<u64>(),
                    8usize,
                )
            };
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
    }
}

/// Child: marks everything above stderr close-on-exec, but for the process's `further` descriptors from 3 on.
pub(crate) fn close_descriptors_on_exec(further: u32) -> Result<(), Errno> {
    let first = 3 + further;
    // SAFETY: sets a flag on descriptors; none is closed under its owner.
    let result =
        unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_means_no_search() {
        assert_eq!(candidates("bin/x", &["PATH=/a".into()]), ["bin/x"]);
    }

    #[test]
    fn path_is_searched_in_order_and_empty_entries_mean_here() {
        assert_eq!(candidates("x", &["PATH=/a::/b".into()]), ["/a/x", "./x", "/b/x"]);
        assert_eq!(candidates("x", &[]).len(), DEFAULT_PATH.split(':').count());
        assert!(candidates("", &[]).is_empty());
    }

    #[test]
    fn bad_commands_are_named() {
        assert!(ExecPlan::new(&[], &[]).is_err());
        let error = ExecPlan::new(&["a\0b".into()], &[]).unwrap_err().to_string();
        assert!(error.contains("NUL"), "{error}");
    }
}
