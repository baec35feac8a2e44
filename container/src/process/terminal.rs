//! A pseudo-terminal of the container's own (pty(7)): made in its devpts, so that it has a name inside and none
//! elsewhere, and becomes the process's controlling terminal and standard streams.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::MsFlags;
use nix::sys::stat::Mode;
use nix::sys::statfs::fstatfs;
use nix::unistd::{Gid, Uid, dup2_stderr, dup2_stdin, dup2_stdout, fchown};
use oci_spec::runtime::Process;

use crate::config::WindowSize;
use crate::error::{Error, Result};
use crate::rootfs::bind::bind;
use crate::rootfs::resolve::{DescriptorPath, InnerPath, Target, open_in_root, write_decimal};

/// linux/magic.h
const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// The terminal that a process is to have.
#[derive(Debug)]
pub(crate) struct TerminalPlan {
    size: Option<WindowSize>,
    /// Where it is bound as well, in the first process of a container (OCI config-linux.md, "Default Devices").
    console: Option<InnerPath>,
}

impl TerminalPlan {
    /// None if `process` asks for none.
    pub(crate) fn new(process: &Process) -> Result<Option<Self>> {
        if process.terminal() != Some(true) {
            return Ok(None);
        }
        let number = |number: u64| {
            let problem = || Error::invalid("process.consoleSize", format!("{number} is too many"));
            u16::try_from(number).map_err(|_| problem())
        };
        let size = match process.console_size() {
            Some(size) => {
                let (rows, columns) = (number(size.height())?, number(size.width())?);
                Some(WindowSize { rows, columns })
            }
            None => None,
        };
        Ok(Some(TerminalPlan { size, console: None }))
    }

    /// Binds it to /dev/console as well.
    pub(crate) fn add_console(&mut self) -> Result<()> {
        self.console = Some(InnerPath::new("/dev/console".as_ref(), "process.terminal")?);
        Ok(())
    }

    /// Child: makes the terminal in the devpts of `root`, and makes it the user's: (master, slave).
    ///
    /// Whatever the container has put at /dev/pts, nothing but a devpts is opened: a FIFO or a device there must not
    /// hold us up, and no symbolic link or mount on the way leads elsewhere (CVE-2025-52565).
    pub(crate) fn open(&self, root: BorrowedFd, uid: u32) -> Result<(OwnedFd, OwnedFd), Errno> {
        let pts = open_in_root(root, c"/dev/pts")?;
        if fstatfs(&pts)?.filesystem_type().0 != DEVPTS_SUPER_MAGIC {
            return Err(Errno::ENODEV);
        }
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = open_here(pts.as_fd(), c"ptmx", flags)?;
        let unlocked: libc::c_int = 0;
        // SAFETY: TIOCSPTLCK reads an int, which outlives the call.
        let result =
            unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
        Errno::result(result)?;
        // SAFETY: TIOCGPTPEER takes open(2)'s flags by value.
        let slave = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
        let slave = Errno::result(slave)?;
        // SAFETY: a new descriptor that nobody else owns.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        if let Some(size) = self.size {
            resize(&master, size)?;
        }
        match fchown(&slave, Some(Uid::from_raw(uid)), None::<Gid>) {
            // As runc does: a user that has no mapping, or a devpts that is read-only, can do without.
            Ok(()) | Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => {}
            Err(errno) => return Err(errno),
        }
        if let Some(console) = &self.console {
            bind_console(root, pts.as_fd(), &master, console)?;
        }
        Ok((master, slave))
    }
}

/// Child: makes `slave` the controlling terminal of this session, which has none, and its standard streams.
pub(crate) fn take(slave: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: TIOCSCTTY takes an integer: 0, not to take it from another session.
    Errno::result(unsafe { libc::ioctl(slave.as_raw_fd(), libc::TIOCSCTTY, 0) })?;
    dup2_stdin(slave)?;
    dup2_stdout(slave)?;
    dup2_stderr(slave)
}

/// Says how large a terminal is, by its master; those in front of it hear of it by SIGWINCH.
///
/// # Errors
/// It is no terminal.
pub fn resize(master: impl AsFd, size: WindowSize) -> Result<(), Errno> {
    let size =
        libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    let master = master.as_fd().as_raw_fd();
    // SAFETY: TIOCSWINSZ reads a winsize, which outlives the call.
    Errno::result(unsafe { libc::ioctl(master, libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Child: binds the slave to /dev/console while the host's /proc is in sight, and nothing of the container's runs.
fn bind_console(
    root: BorrowedFd,
    pts: BorrowedFd,
    master: &OwnedFd,
    console: &InnerPath,
) -> Result<(), Errno> {
    let mut number: libc::c_uint = 0;
    // SAFETY: TIOCGPTN writes an unsigned int, which is ours.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) };
    Errno::result(result)?;
    // A zero stays behind the digits.
    let mut name = [0u8; 11];
    write_decimal(number, &mut name);
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno::EINVAL)?;
    let slave = open_here(pts, name, OFlag::O_PATH | OFlag::O_CLOEXEC)?;
    let target = console.open_or_create(root, Target::File)?;
    let (source, target) = (DescriptorPath::new(&slave), DescriptorPath::new(&target));
    bind(source.as_c_str(), target.as_c_str(), MsFlags::empty())
}

/// Opens what is in this directory itself: no link, and nothing that is mounted over it.
fn open_here(directory: BorrowedFd, name: &CStr, flags: OFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(flags).mode(Mode::empty()).resolve(
        ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_BENEATH,
    );
    openat2(directory, name, how)
}
