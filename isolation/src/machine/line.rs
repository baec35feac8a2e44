//! What carries the guest's control channel: our end, and the machine's.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use isolab_guest::Line;
use isolab_guest::control::Mailbox;
use isolab_vmm::backend::disk::{DiskOptions, EngineKind};
use isolab_vmm::backend::serial_port::SerialPort;
use isolab_vmm::virtio::vsock::Peer;
use nix::sys::memfd::{MFdFlags, memfd_create};

/// The host's port that the guest's init connects to. It is served in this process; there is no socket that
/// others could find.
const PORT: u32 = 1024;

/// What there is at a level.
#[derive(Clone, Copy)]
pub(super) enum LineKind {
    /// A socket device.
    Vsock,
    /// A PC's own: a serial port, and a disk that holds what is long.
    SerialAndDisk {
        /// What the disk may be called.
        names: &'static [&'static str],
    },
}

impl LineKind {
    /// As init is told it.
    pub fn for_guest(self) -> Line {
        match self {
            Self::Vsock => Line::Vsock { port: PORT },
            Self::SerialAndDisk { names } => {
                Line::Serial { mailboxes: names.iter().map(|name| (*name).to_owned()).collect() }
            }
        }
    }
}

/// The machine's device for it.
pub(super) enum LineDevice {
    Vsock(Peer),
    /// Beside a serial port.
    Mailbox(DiskOptions),
}

/// A line for one machine.
pub(super) struct ControlLine {
    pub ours: UnixStream,
    pub mailbox: Option<Mailbox>,
    /// The machine's second serial port, if it needs one.
    pub port: Option<SerialPort>,
    pub device: LineDevice,
}

impl ControlLine {
    /// # Errors
    /// The host is out of file descriptors or memory.
    pub fn new(kind: LineKind) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok(match kind {
            LineKind::Vsock => {
                let device = LineDevice::Vsock(Peer { port: PORT, stream: theirs });
                Self { ours, mailbox: None, port: None, device }
            }
            LineKind::SerialAndDisk { .. } => {
                let input = Some(OwnedFd::from(theirs.try_clone()?));
                let port = SerialPort { output: Box::new(theirs), gather: false, input };
                let file = File::from(memfd_create("mailbox", MFdFlags::MFD_CLOEXEC)?);
                let mailbox = DiskOptions {
                    id: Some("mailbox".to_owned()),
                    raw: true,
                    engine: EngineKind::Sync,
                    ..DiskOptions::new(format!("/proc/self/fd/{}", file.as_raw_fd()))
                };
                let device = LineDevice::Mailbox(mailbox);
                Self { ours, mailbox: Some(Mailbox::new(file)?), port: Some(port), device }
            }
        })
    }
}
