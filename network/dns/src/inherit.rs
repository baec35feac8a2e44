//! What our parent hands over: the lock that says that we live, and for each of the network's addresses a
//! socket for datagrams and one for streams.

use std::io::{self, IoSliceMut};
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockType, getsockopt, recvmsg, sockopt};

/// What we have from our parent.
pub struct Inherited {
    pub lock: OwnedFd,
    pub datagrams: Vec<UdpSocket>,
    pub streams: Vec<TcpListener>,
}

/// Takes it from the Unix socket that is standard input.
pub fn receive() -> Result<Inherited> {
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 5]);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(io::stdin().as_raw_fd(), &mut parts, Some(&mut space), flags)
        .context("isolab starts isolab-dns itself")?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just made these descriptors, for us alone.
            descriptors.extend(numbers.into_iter().map(|it| unsafe { OwnedFd::from_raw_fd(it) }));
        }
    }
    let mut descriptors = descriptors.into_iter();
    let lock = descriptors.next().context("no lock was handed over")?;
    let mut inherited = Inherited { lock, datagrams: Vec::new(), streams: Vec::new() };
    for socket in descriptors {
        match getsockopt(&socket, sockopt::SockType)? {
            SockType::Datagram => inherited.datagrams.push(socket.into()),
            SockType::Stream => inherited.streams.push(socket.into()),
            other => bail!("a socket of an unknown kind was handed over: {other:?}"),
        }
    }
    Ok(inherited)
}
