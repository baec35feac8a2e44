//! The host's end of the control channel to a guest's init.
//!
//! A [`Session`] is a conversation over one socket; at its other end is the guest, through a socket device or
//! a serial port. A thread of its own reads it and passes on what concerns a process; each stream that
//! has something to write has a thread that writes it, and each standard input one that reads it. So
//! whoever is slow holds up nobody else, and nothing here waits for the guest but those threads: a guest
//! may say anything, and may never read. One that says nothing for too long is given up ([`Patience`]).
//!
//! What the threads share is the conversation; a stream's thread knows it by a trait only.

mod conversation;
mod input;
mod mailbox;
mod outgoing;
mod output;
mod process;
mod reader;
mod session;
#[cfg(test)]
mod tests;
mod watch;

use std::io;
use std::os::fd::OwnedFd;

pub use mailbox::Mailbox;
pub use session::{MAX_PROCESSES, Session};
pub use watch::{Patience, Silence};

/// Our ends of a process's streams.
#[derive(Debug)]
pub struct Streams {
    /// Read until its end; without it, nothing is sent.
    pub stdin: Option<OwnedFd>,
    /// Written to until that fails.
    pub stdout: OwnedFd,
    /// Likewise; a terminal has none.
    pub stderr: Option<OwnedFd>,
}

/// How a process of the guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessEnd {
    /// With this exit code.
    Exited(u8),
    /// By this signal.
    Killed(u8),
    /// It never started; the exit code for that (126, 127) and why.
    NotStarted(u8, String),
    /// Init failed, or what came was not from init.
    Failed(String),
    /// The guest says nothing, and is given up.
    Silent(Silence),
    /// The guest ended before it.
    Lost,
}

/// A request that the guest was not, or cannot be, told.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The workload has ended, and with it the guest.
    #[error("the guest has ended")]
    Ended,
    /// It never said anything.
    #[error("the guest has not come up within {0} seconds")]
    Silent(u64),
    /// It reads nothing more, or does nothing about it.
    #[error("the guest does not answer on its control channel")]
    Stuck,
    /// A guest's init keeps track of so many.
    #[error("{MAX_PROCESSES} processes have been started in the guest and have not ended")]
    TooMany,
    /// The line has no room for it.
    #[error("its arguments and environment have {length} bytes; the guest can be sent {most}")]
    TooLong {
        /// Bytes of the request.
        length: usize,
        /// What there is room for.
        most: usize,
    },
    /// The host refused what it takes to carry its streams.
    #[error("cannot carry the streams of a process of the guest")]
    Host(#[source] io::Error),
}
