//! What carries the control channel: opening it, and moving bytes without ever waiting.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use isolab_protocol::{CONTROL_TTY, Line};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, VsockAddr, connect, socket};
use nix::sys::termios::{self, SetArg};

use crate::Failure;

/// How long the host may take to hear the end, in milliseconds. It ends the machine as soon as it has.
const END_TIMEOUT: u16 = 10_000;

/// An open line to the host.
pub struct OpenLine {
    file: File,
    is_serial: bool,
}

impl OpenLine {
    pub fn open(kind: &Line) -> Result<Self, Failure> {
        let (file, is_serial) = match *kind {
            Line::Vsock { port } => {
                let file = open_vsock(port);
                (file.map_err(|e| format!("connect to port {port} of the host: {e}"))?, false)
            }
            Line::Serial { .. } => {
                (open_serial().map_err(|e| format!("open {CONTROL_TTY}: {e}"))?, true)
            }
        };
        Ok(Self { file, is_serial })
    }

    /// Reads what is there; 0 when that is nothing.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Failure> {
        match self.file.read(buffer) {
            // A serial line has no end.
            Ok(0) if !self.is_serial => Err("the host has closed the control channel".to_owned()),
            Ok(count) => Ok(count),
            Err(error) if is_transient(&error) => Ok(0),
            Err(error) => Err(format!("read the control channel: {error}")),
        }
    }

    /// Writes what the line takes; 0 when that is nothing.
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Failure> {
        match self.file.write(bytes) {
            Ok(count) => Ok(count),
            Err(error) if is_transient(&error) => Ok(0),
            Err(error) => Err(format!("write to the control channel: {error}")),
        }
    }

    /// Writes all of it, waiting for room.
    pub fn write_all(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        while !bytes.is_empty() {
            match self.write(bytes)? {
                0 => self.wait_for(PollFlags::POLLOUT),
                count => bytes = &bytes[count..],
            }
        }
        Ok(())
    }

    /// Waits until it can be written to or read.
    pub fn wait_for(&self, wanted: PollFlags) {
        let mut fds = [PollFd::new(self.file.as_fd(), wanted)];
        // Who is interrupted asks again.
        let _ = poll(&mut fds, PollTimeout::NONE);
    }

    /// Waits until the host has everything that was written, and then for it to end the machine: a reset of
    /// our own would have the disks' caches flushed first, for nobody.
    pub fn drain(self) {
        if self.is_serial {
            let _ = termios::tcdrain(&self.file);
        }
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, END_TIMEOUT);
    }
}

impl AsFd for OpenLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn open_vsock(port: u32) -> io::Result<File> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_HOST, port))?;
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(File::from(socket))
}

/// Opens the serial line and has the tty layer pass every byte as it is.
fn open_serial() -> io::Result<File> {
    let line = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(CONTROL_TTY)?;
    let mut settings = termios::tcgetattr(&line)?;
    termios::cfmakeraw(&mut settings);
    // Otherwise a read of a line that is silent would look like its end (VMIN and VTIME, termios(3)).
    settings.control_chars[termios::SpecialCharacterIndices::VMIN as usize] = 1;
    termios::tcsetattr(&line, SetArg::TCSANOW, &settings)?;
    Ok(line)
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
