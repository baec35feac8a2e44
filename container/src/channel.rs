//! The conversation between the runtime and the process it cloned.
//!
//! One `SOCK_SEQPACKET` pair, close-on-exec on both ends. The child sends `Ready` or one `Failure`, and receives
//! `Mapped`, `Joined` and `Start`. A successful execve closes the child's end: end-of-file after `Start` is success.
//! End-of-file in the child means that the runtime died, and the child leaves, so nothing waits for ever.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockType, recv, socketpair};

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
}

/// What the child sends to the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Report {
    /// Everything is set up; only execve is left.
    Ready,
    /// A step failed and the child is about to exit.
    Failed(Failure),
    /// The child's end is closed: it executed its program, or died.
    Closed,
}

const READY: u32 = u32::MAX;
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

/// Waits for the child's next report.
pub(crate) fn receive(runtime_end: &OwnedFd) -> Result<Report, Errno> {
    let mut wire = [0u8; WIRE_LEN];
    let mut receive = || retry(|| recv(runtime_end.as_raw_fd(), &mut wire, MsgFlags::empty()));
    let received = match receive() {
        // The child died with a command of ours unread in its queue. That is told once, and before what it reported.
        Err(Errno::ECONNRESET) => receive()?,
        other => other?,
    };
    if received != WIRE_LEN {
        return Ok(Report::Closed);
    }
    let word = |i: usize| u32::from_le_bytes([wire[i], wire[i + 1], wire[i + 2], wire[i + 3]]);
    if word(0) == READY {
        return Ok(Report::Ready);
    }
    let step = Step::from_wire(word(0)).ok_or(Errno::EPROTO)?;
    let errno = Errno::from_raw(i32::try_from(word(8)).unwrap_or(0));
    Ok(Report::Failed(Failure { step, index: word(4), errno }))
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

/// Child: reports a failure; if even that fails nobody is listening. Makes system calls only.
pub(crate) fn report_failure(child_end: RawFd, failure: &Failure) {
    let _ =
        send_words(child_end, [failure.step as u32, failure.index, failure.errno as i32 as u32]);
}

fn send_words(child_end: RawFd, words: [u32; 3]) -> Result<(), Errno> {
    let mut wire = [0u8; WIRE_LEN];
    for (slot, word) in wire.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    retry(|| socket::send(child_end, &wire, MsgFlags::MSG_NOSIGNAL)).map(drop)
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
        assert_eq!(receive(&runtime).unwrap(), Report::Failed(sent));
        report_ready(child.as_raw_fd()).unwrap();
        assert_eq!(receive(&runtime).unwrap(), Report::Ready);
    }

    #[test]
    fn a_dead_child_reads_as_closed_even_with_commands_unread() {
        let (runtime, child) = pair().unwrap();
        send(&runtime, Command::Joined).unwrap();
        drop(child);
        assert_eq!(receive(&runtime).unwrap(), Report::Closed);
    }

    #[test]
    fn a_dead_child_s_report_is_received_even_with_commands_unread() {
        let (runtime, child) = pair().unwrap();
        let sent = Failure { step: Step::Mount, index: 7, errno: Errno::ENOSPC };
        send(&runtime, Command::Joined).unwrap();
        report_failure(child.as_raw_fd(), &sent);
        drop(child);
        assert_eq!(receive(&runtime).unwrap(), Report::Failed(sent));
        assert_eq!(receive(&runtime).unwrap(), Report::Closed);
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
