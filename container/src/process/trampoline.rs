//! The executable that stands between the runtime and the program: `trampoline/main.rs`, which says why, in a memory
//! file that nobody can write, and its arguments.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::exec::{ExecPlan, PointerArray};
use super::plan::ProcessPlan;
use crate::error::{Error, Result};

/// Built by `build.rs`.
const EXECUTABLE: &[u8] = include_bytes!(env!("ISOLAB_TRAMPOLINE"));

/// `linux/memfd.h`: Linux 6.3 and newer; says that it is to be executed.
const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);

/// Ready to be executed by the child.
#[derive(Debug)]
pub(crate) struct Trampoline {
    executable: OwnedFd,
    arguments: PointerArray,
}

impl Trampoline {
    /// `channel`: over which it tells that the program cannot be executed.
    pub(crate) fn new(process: &ProcessPlan, channel: BorrowedFd) -> Result<Self> {
        let exec = &process.exec;
        let executable = sealed_file().map_err(|errno| {
            Error::host(
                "make an executable memory file (memfd_create; sysctl vm.memfd_noexec)",
                errno,
            )
        })?;
        let init = if process.init { "i" } else { "" };
        let channel = format!("{init}{}", channel.as_raw_fd());
        let first = PointerArray::new("process.args", &[channel])?;
        let end = PointerArray::new("process.args", &[String::new()])?;
        let arguments = PointerArray::concatenate(&[&first, &exec.candidates, &end, &exec.args]);
        Ok(Trampoline { executable, arguments })
    }

    /// The descriptor that the child keeps until then.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.executable.as_raw_fd()
    }

    /// Child: executes the trampoline, which executes the program. Returns only on failure.
    pub(crate) fn execute(&self, exec: &ExecPlan, channel: BorrowedFd) -> Errno {
        // Everything above stderr is marked to be closed. The trampoline marks the channel again.
        if let Err(errno) = fcntl(channel, FcntlArg::F_SETFD(FdFlag::empty())) {
            return errno;
        }
        // SAFETY: an empty path, two arrays that end with null pointers and hold live C strings.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                self.executable.as_raw_fd(),
                c"".as_ptr(),
                self.arguments.as_ptr(),
                exec.env.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Errno::last()
    }
}

fn sealed_file() -> Result<OwnedFd, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let name = c"isolab-trampoline";
    let file = match memfd_create(name, flags | MFD_EXEC) {
        // A kernel that does not know the flag makes every such file executable.
        Err(Errno::EINVAL) => memfd_create(name, flags)?,
        made => made?,
    };
    let mut file = File::from(file);
    file.write_all(EXECUTABLE)
        .map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(file.as_fd(), FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn nobody_writes_or_resizes_the_executable() {
        let file = sealed_file().unwrap();
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = std::fs::OpenOptions::new();
        let mut opened = options.write(true).custom_flags(libc::O_CLOEXEC).open(&path).unwrap();
        assert_eq!(opened.write(b"x").unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert!(opened.set_len(0).is_err() && opened.set_len(1 << 20).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), EXECUTABLE);
        // One page: less to map and to read than any program it starts.
        assert!(EXECUTABLE.len() <= 4096, "{} bytes", EXECUTABLE.len());
    }
}
