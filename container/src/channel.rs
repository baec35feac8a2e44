//! The conversation between the runtime and the process it cloned.
//!
//! One `SOCK_SEQPACKET` pair, close-on-exec on both ends. The child sends `Ready` or one `Failure`, before them perhaps
//! its terminal, the notifications of its seccomp filter, and that its root is filled; and receives
//! `Mapped`, `Joined`, `Hooked` and `Start`. A successful execve closes the child's end: end-of-file after `Start` is success.
//! End-of-file in the child means that the runtime died, and the child leaves, so nothing waits for ever.

use std::io::IoSliceMut;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    self, AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg,
    socketpair,
};

use crate::step::{Failure, Step};

/// What the runtime sends to the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Command {
    /// `uid_map` and `gid_map` are written.
    Mapped = 1,
    /// The child is in its cgroups.
    Joined = 2,
    /// Go on to execve.
    Start = 3,
    /// The hooks of the creation are done.
    Hooked = 4,
    /// Others know the container now: it may outlive its maker.
    Known = 5,
}

/// What the child sends to the runtime.
#[derive(Debug)]
pub(crate) enum Report {
    /// The master of the terminal that the child has made for itself. More reports follow.
    Terminal(OwnedFd),
    /// The notifications of its seccomp filter. More reports follow.
    Listener(OwnedFd),
    /// The root is filled and not yet entered: the child waits for `Hooked`.
    Filled,
    /// Everything is set up; only execve is left.
    Ready,
    /// A step failed and the child is about to exit.
    Failed(Failure),
    /// The child's end is closed: it executed its program, or died.
    Closed,
}

const READY: u32 = u32::MAX;
const TERMINAL: u32 = u32::MAX - 2;
const LISTENER: u32 = u32::MAX - 3;
const FILLED: u32 = u32::MAX - 4;
const WIRE_LEN: usize = 12;

/// Makes the pair: (runtime's end, child's end).
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends a command to the child. `EPIPE` means that the child is gone; its report says why.
pub(crate) fn send(runtime_end: &OwnedFd, command: Command) -> Result<(), Errno> {
    retry(|| socket::send(runtime_end.as_raw_fd(), &[command as u8], MsgFlags::MSG_NOSIGNAL))
        .map(drop)
}

/// Waits for a report or the end. Ok(false): the time is over.
pub(crate) fn wait(runtime_end: &OwnedFd, limit: PollTimeout) -> Result<bool, Errno> {
    let mut watched = [PollFd::new(runtime_end.as_fd(), PollFlags::POLLIN)];
    retry(|| poll(&mut watched, limit)).map(|count| count > 0)
}

/// Waits for the child's next report.
pub(crate) fn receive(runtime_end: &OwnedFd) -> Result<Report, Errno> {
    let mut wire = [0u8; WIRE_LEN];
    let mut receive = || retry(|| receive_with_descriptor(runtime_end, &mut wire));
    let (received, descriptor) = match receive() {
        // The child died with a command of ours unread in its queue. That is told once, and before what it reported.
        Err(Errno::ECONNRESET) => receive()?,
        other => other?,
    };
    if received != WIRE_LEN {
        return Ok(Report::Closed);
    }
    let word = |i: usize| u32::from_le_bytes([wire[i], wire[i + 1], wire[i + 2], wire[i + 3]]);
    match (word(0), descriptor) {
        (READY, _) => return Ok(Report::Ready),
        (FILLED, _) => return Ok(Report::Filled),
        (TERMINAL, Some(master)) => return Ok(Report::Terminal(master)),
        (LISTENER, Some(notifications)) => return Ok(Report::Listener(notifications)),
        _ => {}
    }
    let step = Step::from_wire(word(0)).ok_or(Errno::EPROTO)?;
    let errno = Errno::from_raw(i32::try_from(word(8)).unwrap_or(0));
    Ok(Report::Failed(Failure { step, index: word(4), errno }))
}

fn receive_with_descriptor(
    runtime_end: &OwnedFd,
    wire: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut parts = [IoSliceMut::new(wire)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(runtime_end.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let mut descriptor = None;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = message {
            for fd in descriptors {
                // SAFETY: the kernel has just made it for us, and nobody else knows it.
                descriptor = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    Ok((received.bytes, descriptor))
}

/// Child: waits for one particular command. Makes system calls only.
pub(crate) fn await_command(child_end: RawFd, wanted: Command) -> Result<(), Errno> {
    let mut wire = [0u8; 1];
    match retry(|| recv(child_end, &mut wire, MsgFlags::empty()))? {
        1 if wire[0] == wanted as u8 => Ok(()),
        // The runtime died.
        0 => Err(Errno::EPIPE),
        _ => Err(Errno::EPROTO),
    }
}

/// Child: reports that only execve is left. Makes system calls only.
pub(crate) fn report_ready(child_end: RawFd) -> Result<(), Errno> {
    send_words(child_end, [READY, 0, 0])
}

/// Child: reports that the root is filled. Makes system calls only.
pub(crate) fn report_filled(child_end: RawFd) -> Result<(), Errno> {
    send_words(child_end, [FILLED, 0, 0])
}

/// What SCM_RIGHTS with one descriptor takes, aligned as cmsg(3) wants it.
#[repr(C)]
struct Rights {
    header: libc::cmsghdr,
    descriptor: RawFd,
}

/// Child: hands the terminal's master out. Makes system calls only.
pub(crate) fn send_terminal(child_end: RawFd, master: &OwnedFd) -> Result<(), Errno> {
    send_descriptor(child_end, TERMINAL, master)
}

/// Child: hands out from where the notifications of its filter are read. Makes system calls only.
pub(crate) fn send_listener(child_end: RawFd, notifications: &OwnedFd) -> Result<(), Errno> {
    send_descriptor(child_end, LISTENER, notifications)
}

/// Makes system calls only, as nix's sendmsg does not.
fn send_descriptor(child_end: RawFd, kind: u32, descriptor: &OwnedFd) -> Result<(), Errno> {
    let mut wire = wire_of([kind, 0, 0]);
    let mut part = libc::iovec { iov_base: wire.as_mut_ptr().cast(), iov_len: wire.len() };
    let mut rights = Rights {
        header: libc::cmsghdr {
            cmsg_len: offset_of!(Rights, descriptor) + size_of::<RawFd>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        descriptor: descriptor.as_raw_fd(),
    };
    // SAFETY: msghdr is plain data for which all zeros is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut rights).cast();
    message.msg_controllen = size_of::<Rights>();
    retry(|| {
        // SAFETY: the message points to one iovec and one control message, which outlive the call; the kernel reads both.
        let sent = unsafe { libc::sendmsg(child_end, &raw const message, libc::MSG_NOSIGNAL) };
        Errno::result(sent).map(drop)
    })
}

/// Child: reports a failure; if even that fails nobody is listening. Makes system calls only.
pub(crate) fn report_failure(child_end: RawFd, failure: &Failure) {
    let _ =
        send_words(child_end, [failure.step as u32, failure.index, failure.errno as i32 as u32]);
}

fn send_words(child_end: RawFd, words: [u32; 3]) -> Result<(), Errno> {
    let wire = wire_of(words);
    retry(|| socket::send(child_end, &wire, MsgFlags::MSG_NOSIGNAL)).map(drop)
}

fn wire_of(words: [u32; 3]) -> [u8; WIRE_LEN] {
    let mut wire = [0u8; WIRE_LEN];
    for (slot, word) in wire.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    wire
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        let (runtime, child) = pair().unwrap();
        let sent = Failure { step: Step::Mount, index: 7, errno: Errno::EPERM };
        report_failure(child.as_raw_fd(), &sent);
        assert_failed(&runtime, sent);
        report_ready(child.as_raw_fd()).unwrap();
        assert!(matches!(receive(&runtime).unwrap(), Report::Ready));
    }

    fn assert_failed(runtime: &OwnedFd, sent: Failure) {
        let received = receive(runtime).unwrap();
        assert!(matches!(received, Report::Failed(failure) if failure == sent), "{received:?}");
    }

    #[test]
    fn a_descriptor_comes_over_the_wire_closed_on_exec() {
        let (runtime, child) = pair().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        send_terminal(child.as_raw_fd(), &writer.into()).unwrap();
        let Report::Terminal(received) = receive(&runtime).unwrap() else { panic!("another") };
        let flags = nix::fcntl::fcntl(&received, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
        nix::unistd::write(&received, b"x").unwrap();
        drop(received);
        assert_eq!(std::io::read_to_string(reader).unwrap(), "x");
    }

    #[test]
    fn a_dead_child_reads_as_closed_even_with_commands_unread() {
        let (runtime, child) = pair().unwrap();
        send(&runtime, Command::Joined).unwrap();
        drop(child);
        assert!(matches!(receive(&runtime).unwrap(), Report::Closed));
    }

    #[test]
    fn a_dead_child_s_report_is_received_even_with_commands_unread() {
        let (runtime, child) = pair().unwrap();
        let sent = Failure { step: Step::Mount, index: 7, errno: Errno::ENOSPC };
        send(&runtime, Command::Joined).unwrap();
        report_failure(child.as_raw_fd(), &sent);
        drop(child);
        assert_failed(&runtime, sent);
        assert!(matches!(receive(&runtime).unwrap(), Report::Closed));
    }

    #[test]
    fn a_dead_runtime_sends_the_child_home() {
        let (runtime, child) = pair().unwrap();
        drop(runtime);
        assert_eq!(await_command(child.as_raw_fd(), Command::Start), Err(Errno::EPIPE));
    }

    #[test]
    fn commands_out_of_order_are_a_protocol_error() {
        let (runtime, child) = pair().unwrap();
        send(&runtime, Command::Start).unwrap();
        assert_eq!(await_command(child.as_raw_fd(), Command::Mapped), Err(Errno::EPROTO));
    }
}
