//! The process that answers names on a network (`network/dns`): started with the first endpoint, ended
//! with the last.
//!
//! We bind its sockets, so that a query is never refused, and hand them over with the lock that says that
//! it lives. It reads the leases itself, and needs no word of ours about them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::error::NetworkError;
use crate::record::NetworkRecord;

/// RFC 1035, 4.2.
const PORT: u16 = 53;
const LOCK: &str = "responder";
/// How long it may take to die of SIGKILL, in milliseconds.
const KILL_TIMEOUT: u16 = 5000;

/// Starts it unless it lives.
pub(crate) fn ensure(
    program: &Path,
    network: &NetworkRecord,
    runtime: &Path,
) -> Result<(), NetworkError> {
    let path = runtime.join(LOCK);
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(NetworkError::io("open", &path))?;
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(()),
        Err((_, errno)) => return Err(NetworkError::io("lock", path)(errno.into())),
    };
    let mut sockets: Vec<OwnedFd> = Vec::new();
    let gateways = [Some(IpAddr::V4(network.gateway)), network.gateway6().map(IpAddr::V6)];
    for address in gateways.into_iter().flatten() {
        let address = SocketAddr::new(address, PORT);
        let bound = UdpSocket::bind(address).and_then(|datagrams| {
            sockets.push(datagrams.into());
            sockets.push(TcpListener::bind(address)?.into());
            Ok(())
        });
        bound.map_err(NetworkError::kernel("listen for names on", address.to_string()))?;
    }
    let pid = spawn(program, network, runtime, &lock, &sockets)
        .map_err(NetworkError::kernel("start", program.display().to_string()))?;
    fs::write(&path, pid.to_string()).map_err(NetworkError::io("write", path))?;
    // It goes on with the lock: ours must not be undone, only closed.
    forget_unlock(lock);
    Ok(())
}

fn spawn(
    program: &Path,
    network: &NetworkRecord,
    runtime: &Path,
    lock: &File,
    sockets: &[OwnedFd],
) -> io::Result<u32> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    let mut descriptors = vec![lock.as_raw_fd()];
    descriptors.extend(sockets.iter().map(AsRawFd::as_raw_fd));
    let rights = [ControlMessage::ScmRights(&descriptors)];
    sendmsg::<()>(ours.as_raw_fd(), &[IoSlice::new(b"!")], &rights, MsgFlags::empty(), None)?;
    let mut options = OpenOptions::new();
    let log = options.create(true).truncate(true).write(true).mode(0o600);
    let child = Command::new(program)
        .arg(runtime.join("leases"))
        .args(network.internal.then_some("--internal"))
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        // Never ours: whoever waits for the end of our output would wait for the network's.
        .stderr(log.open(runtime.join("responder.log"))?)
        .process_group(0)
        .current_dir("/")
        .env_clear()
        .spawn()?;
    Ok(child.id())
}

fn forget_unlock(lock: Flock<File>) {
    // SAFETY: `lock` is forgotten below, so that this is the descriptor's only owner.
    let file = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(lock.as_raw_fd()) };
    std::mem::forget(lock);
    drop(file);
}

/// Ends it, if it lives.
pub(crate) fn stop(network: &NetworkRecord, runtime: &Path) -> Result<(), NetworkError> {
    let path = runtime.join(LOCK);
    let Ok(file) = File::open(&path) else { return Ok(()) };
    let Some(pid) = fs::read_to_string(&path).ok().and_then(|text| text.parse::<i32>().ok()) else {
        // Killed before it could write that down; the responder ends with the folder of leases.
        return Ok(());
    };
    let failed = || NetworkError::kernel("end the name service of", network.name.to_string());
    let process = match open_pidfd(pid) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        process => process.map_err(failed())?,
    };
    // In this order: as long as the lock is held, the number is that of who holds it.
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => return Ok(()),
        Err((_, Errno::EWOULDBLOCK)) => {}
        Err((_, errno)) => return Err(NetworkError::io("lock", path)(errno.into())),
    }
    kill(&process).map_err(failed())?;
    let mut waited = [PollFd::new(std::os::fd::AsFd::as_fd(&process), PollFlags::POLLIN)];
    let ended = poll(&mut waited, PollTimeout::from(KILL_TIMEOUT));
    if ended.map_err(io::Error::from).map_err(failed())? == 0 {
        return Err(NetworkError::Responder { network: network.name.clone(), pid });
    }
    // Where it was our child; otherwise it is its parent's, or init's.
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
    Ok(())
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes its arguments by value.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call gave a new descriptor, which is nobody else's.
    Ok(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd as i32) })
}

fn kill(process: &OwnedFd) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a `siginfo_t`, pidfd_send_signal takes its arguments by value.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, none, 0)
    };
    Errno::result(sent).map(drop).map_err(io::Error::from)
}
