//! Where a guest's process's streams go, in the words of the control channel.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use isolab_guest::control::Streams;

use crate::controller::Stdio;

/// Both ends of the streams of one process.
pub(super) struct Carried {
    /// The control channel's.
    pub streams: Streams,
    /// The caller's, of a terminal.
    pub terminal: Option<OwnedFd>,
    /// The terminal's size.
    pub size: Option<isolab_guest::WindowSize>,
    /// Whether there is input.
    pub stdin: bool,
}

impl Carried {
    /// # Errors
    /// The host is out of file descriptors.
    pub fn new(stdio: Stdio) -> io::Result<Self> {
        Ok(match stdio {
            Stdio::Inherit { stdin } => {
                let stdin = match stdin {
                    true => Some(io::stdin().as_fd().try_clone_to_owned()?),
                    false => None,
                };
                let stdout = io::stdout().as_fd().try_clone_to_owned()?;
                Self::pipes(stdin, stdout, io::stderr().as_fd().try_clone_to_owned()?)
            }
            Stdio::Streams { stdin, stdout, stderr } => Self::pipes(stdin, stdout, stderr),
            Stdio::Terminal(size) => {
                let (ours, theirs) = UnixStream::pair()?;
                let stdin = Some(OwnedFd::from(theirs.try_clone()?));
                let streams = Streams { stdin, stdout: theirs.into(), stderr: None };
                let (terminal, size) = (Some(ours.into()), Some(window(size)));
                Self { streams, terminal, size, stdin: true }
            }
        })
    }

    fn pipes(stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd) -> Self {
        let has_input = stdin.is_some();
        let streams = Streams { stdin, stdout, stderr: Some(stderr) };
        Self { streams, terminal: None, size: None, stdin: has_input }
    }
}

/// A size as the guest is told it.
pub(super) fn window(size: isolab_container::WindowSize) -> isolab_guest::WindowSize {
    isolab_guest::WindowSize { rows: size.rows, columns: size.columns }
}
