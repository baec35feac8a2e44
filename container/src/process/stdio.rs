//! The standard streams of the child.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::config::{Stdio, Stream};
use crate::error::{Error, Result};

/// What descriptors the process has.
#[derive(Debug)]
pub(crate) struct StdioPlan {
    /// Those that become 0, 1 and 2. None leaves the caller's own in place.
    streams: [Option<OwnedFd>; 3],
    /// How many stay as they are from 3 on.
    pub further: u32,
}

impl StdioPlan {
    pub(crate) fn new(stdio: Stdio) -> Result<Self> {
        let Stdio { stdin, stdout, stderr, further } = stdio;
        Ok(StdioPlan { streams: [open(stdin)?, open(stdout)?, open(stderr)?], further })
    }

    /// Drops the descriptors, once the child has its copies.
    pub(crate) fn close(&mut self) {
        self.streams = [None, None, None];
    }

    /// The descriptors that the child needs until it has called [`StdioPlan::apply`], and those that it keeps.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let kept = (3..3 + self.further).map(|fd| fd as RawFd);
        self.streams.iter().flatten().map(AsRawFd::as_raw_fd).chain(kept)
    }

    /// Child: puts the streams in place. They are all above 2 (see `open`), so none overwrites another.
    pub(crate) fn apply(&self) -> Result<(), (usize, Errno)> {
        let into: [fn(&OwnedFd) -> nix::Result<()>; 3] =
            [|fd| dup2_stdin(fd), |fd| dup2_stdout(fd), |fd| dup2_stderr(fd)];
        for (target, (stream, into)) in self.streams.iter().zip(into).enumerate() {
            if let Some(stream) = stream {
                into(stream).map_err(|errno| (target, errno))?;
            }
        }
        Ok(())
    }
}

/// Yields a descriptor above 2.
fn open(stream: Stream) -> Result<Option<OwnedFd>> {
    let fd: OwnedFd = match stream {
        Stream::Inherit => return Ok(None),
        Stream::Null => {
            let null = OpenOptions::new().read(true).write(true).open("/dev/null");
            null.map_err(|source| Error::host("open /dev/null", source))?.into()
        }
        Stream::Descriptor(fd) => fd,
    };
    if fd.as_raw_fd() > 2 {
        return Ok(Some(fd));
    }
    // `try_clone` of the standard library duplicates to 3 or above.
    let high =
        fd.try_clone().map_err(|source| Error::host("duplicate a standard stream", source))?;
    Ok(Some(high))
}
