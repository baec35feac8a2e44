//! What is said on an instance's socket, between whoever looks after it and the commands.
//!
//! The socket is of the kind SOCK_SEQPACKET, so that a message is a message: JSON, of at most
//! [`MAX_MESSAGE`] bytes. Descriptors go beside it (unix(7), SCM_RIGHTS), so that no byte of a
//! workload's streams goes through JSON. A client sends a [`Request`], in an envelope that has the
//! version, and gets one or more [`Reply`]s; what it may send besides, meanwhile, is said there.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use isolab_isolation::{FileRequest, FurtherProcess, ProcessEntry, Stats};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, setsockopt, socket, socketpair, sockopt,
};
use nix::sys::time::TimeVal;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Of what is said today.
pub(crate) const VERSION: u32 = 1;
/// The longest message, in bytes.
pub(crate) const MAX_MESSAGE: usize = 128 << 10;
/// How many descriptors a message may bring: a process's standard streams.
const MAX_DESCRIPTORS: usize = 3;

/// What is asked for, with the version of what is said.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Envelope {
    pub(crate) version: u32,
    pub(crate) request: Request,
}

/// What may be asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Of a supervisor's own starter: it is told [`Reply::Started`], or why not.
    Start,
    /// The workload's streams. Descriptors: what is typed or piped in, if `stdin`; where output and
    /// errors go. Of a starter, as [`Request::Start`] besides. Answer: [`Reply::Started`], and
    /// [`Reply::Ended`] at the end; meanwhile [`Aside::Resize`].
    Attach { stdin: bool },
    /// A further process. Descriptors: its standard streams, without input if not `stdin`, and none at
    /// all with a terminal. Answer: [`Reply::Started`], with the terminal's descriptor if it has one, and
    /// [`Reply::Ended`]; meanwhile every [`Aside`].
    Exec { process: FurtherProcess, terminal: Option<Size>, stdin: bool },
    /// Files of a guest, as archives. Descriptors and answers as those of [`Request::Exec`] without a terminal.
    Files { request: FileRequest, stdin: bool },
    /// A signal to the workload. Answer: [`Reply::Done`].
    Signal { signal: i32 },
    /// The end of the workload, for good. Answer: [`Reply::Ended`], when nothing is left.
    Stop { signal: i32, timeout: u64 },
    /// Answer: [`Reply::Done`].
    Pause,
    /// Answer: [`Reply::Done`].
    Unpause,
    /// Answer: [`Reply::Stats`].
    Stats,
    /// Answer: [`Reply::Processes`].
    Processes,
    /// Answer: [`Reply::Ended`], when nothing is left.
    Wait,
}

/// What a client says while its request is being answered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Aside {
    /// The terminal's size is another.
    Resize(Size),
    /// A signal to the process.
    Signal(i32),
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) rows: u16,
    pub(crate) columns: u16,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reply {
    /// It is done.
    Done,
    /// The process runs.
    Started,
    /// It ended with this code.
    Ended { code: i32 },
    /// It was not done; the exit code that says so, and why.
    Failed { code: u8, why: String },
    /// What the instance uses.
    Stats(Stats),
    /// What runs in it.
    Processes(Vec<ProcessEntry>),
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Both ends of a new connection.
    pub(crate) fn pair() -> nix::Result<(Self, Self)> {
        let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (one, other) = socketpair(kind.0, kind.1, None, kind.2)?;
        Ok((Self(one), Self(other)))
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// How long a message may take to come, and to go; then the error is `WouldBlock`.
    pub(crate) fn set_timeouts(
        &self,
        receive: Option<Duration>,
        send: Option<Duration>,
    ) -> nix::Result<()> {
        let value = |time: Option<Duration>| {
            let time = time.unwrap_or_default();
            TimeVal::new(time.as_secs() as i64, i64::from(time.subsec_micros()))
        };
        setsockopt(&self.0, sockopt::ReceiveTimeout, &value(receive))?;
        setsockopt(&self.0, sockopt::SendTimeout, &value(send))
    }

    /// Sends a message, with descriptors.
    ///
    /// # Errors
    /// The other side is gone, or the message too long.
    pub(crate) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        if text.len() > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"));
        }
        let fds: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let rights = if fds.is_empty() { &[][..] } else { &rights[..] };
        let raw = self.0.as_raw_fd();
        sendmsg::<UnixAddr>(raw, &[IoSlice::new(&text)], rights, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// Answers a client, with descriptors. One who has gone meanwhile needs no answer.
    pub(crate) fn reply(&self, reply: &Reply, fds: &[BorrowedFd]) {
        let _ = self.send(reply, fds);
    }

    /// Receives a message, with its descriptors, which are closed on exec. None: the other side is gone.
    ///
    /// # Errors
    /// It is none of ours: too long, or malformed.
    pub(crate) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut text = vec![0; MAX_MESSAGE];
        let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut slices = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut fds = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                // SAFETY: the kernel has just made these descriptors for us; nobody else has them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        let (length, flags) = (received.bytes, received.flags);
        if length == 0 {
            return Ok(None);
        }
        if flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
        }
        Ok(Some((serde_json::from_slice(&text[..length])?, fds)))
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A socket for these messages.
pub(crate) fn new_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn messages_stay_whole_and_bring_descriptors() {
        let (one, other) = Channel::pair().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        one.send(&Request::Signal { signal: 15 }, &[]).unwrap();
        one.send(&Request::Attach { stdin: true }, &[writer.as_fd()]).unwrap();
        drop((one, writer));
        let (first, fds) = other.receive::<Request>().unwrap().unwrap();
        assert!(matches!(first, Request::Signal { signal: 15 }) && fds.is_empty());
        let (second, mut fds) = other.receive::<Request>().unwrap().unwrap();
        assert!(matches!(second, Request::Attach { stdin: true }));
        let mut writer = File::from(fds.pop().unwrap());
        assert!(fds.is_empty());
        writer.write_all(b"through").unwrap();
        drop(writer);
        let mut text = String::new();
        File::from(OwnedFd::from(reader)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(other.receive::<Request>().unwrap().is_none());
    }

    #[test]
    fn what_is_no_message_is_an_error_and_nothing_waits_for_ever() {
        let (one, other) = Channel::pair().unwrap();
        for bad in ["\"no such\"", "{}", "[1", "{\"signal\":{}}"] {
            nix::unistd::write(&one.0, bad.as_bytes()).unwrap();
            let error = other.receive::<Request>().unwrap_err();
            assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "{bad}");
        }
        let long = "x".repeat(MAX_MESSAGE);
        assert!(one.send(&long, &[]).is_err());
        other.set_timeouts(Some(Duration::from_millis(1)), None).unwrap();
        assert_eq!(other.receive::<Request>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
