//! Tap devices: the host's end of a guest's network (Documentation/networking/tuntap.rst).

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::handover;
use super::net::{MAX_QUEUE_PAIRS, NetBackend, TapSource, VNET_HEADER_LENGTH};
use super::vectors::{Gather, Scatter};

/// Where taps come from.
const TUN_DEVICE: &str = "/dev/net/tun";
/// The kernel puts a number where the %d is.
const NEW_NAME: &str = "isolab%d";
/// What every queue of ours is: Ethernet frames, no extra header but virtio-net's.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// A tap that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel's limit is 15 bytes.
    #[error(
        "`{name}` cannot name a network interface: use 1 to 15 characters without `/`, `%` or space"
    )]
    BadName {
        /// What was asked for.
        name: String,
    },
    /// Zero or too many.
    #[error("tap: {pairs} queue pairs; use 1 to {MAX_QUEUE_PAIRS}")]
    BadQueuePairs {
        /// What was asked for.
        pairs: u16,
    },
    /// The module is not there, or a container was not given the device.
    #[error(
        "cannot open {TUN_DEVICE} for `{name}`: load the kernel module (`modprobe tun`), or pass the device into this container"
    )]
    NoTun {
        /// The tap's name.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The device node is root's alone.
    #[error(
        "no permission to open {TUN_DEVICE} for `{name}`: run as root, or let root open it to all with `chmod 0666 {TUN_DEVICE}`, as udev does; whose tap it is, is asked all the same"
    )]
    TunPermission {
        /// The tap's name.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// Not root, and the tap is not the operator's.
    #[error(
        "no permission to use the tap `{name}`: run as root, or let root make it for you with `ip tuntap add {name} mode tap user $USER`"
    )]
    Permission {
        /// The tap's name.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// One machine per tap queue.
    #[error("the tap `{name}` is in use by another process; each machine needs a tap of its own")]
    Busy {
        /// The tap's name.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The interface is no tap, or has fewer queues: EINVAL of TUNSETIFF.
    #[error("`{name}` exists and is no tap with as many queues as asked for ({pairs}): make it with `ip tuntap add {name} mode tap{}`", if *pairs > 1 { " multi_queue" } else { "" })]
    OtherKind {
        /// The interface's name.
        name: String,
        /// Queue pairs that were asked for.
        pairs: u16,
    },
    /// A socket that someone handed over in a tap's place.
    #[error("descriptor {fd} is no connected stream socket")]
    BadStream {
        /// The descriptor's number in this process.
        fd: RawFd,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A descriptor that someone handed over.
    #[error("descriptor {fd} is no tap queue with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR")]
    BadDescriptor {
        /// The descriptor's number in this process.
        fd: RawFd,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// The host refused something else of the tap.
    #[error("tap `{name}`: cannot {action}")]
    Host {
        /// The tap's name.
        name: String,
        /// What was attempted: a verb and its object.
        action: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

/// An open tap. A tap made here goes away with its last queue.
#[derive(Debug)]
pub struct Tap {
    name: String,
    mtu: u16,
    queues: Vec<TapQueue>,
}

impl Tap {
    /// Opens or makes the tap with one queue per queue pair. A new tap is brought up.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open(source: &TapSource, queue_pairs: u16) -> Result<Self, TapError> {
        if queue_pairs == 0 || queue_pairs > MAX_QUEUE_PAIRS {
            return Err(TapError::BadQueuePairs { pairs: queue_pairs });
        }
        let (name, files) = match source {
            TapSource::Named(name) => open_named(check_name(name)?, queue_pairs)?,
            TapSource::New => {
                let opened = open_named(NEW_NAME, queue_pairs)?;
                bring_up(&opened.0)?;
                opened
            }
            TapSource::Descriptors(fds) if fds.len() == usize::from(queue_pairs) => adopt(fds)?,
            TapSource::Descriptors(_) => {
                return Err(TapError::BadQueuePairs { pairs: queue_pairs });
            }
            TapSource::Stream(fd) => {
                let source = io::ErrorKind::InvalidInput.into();
                return Err(TapError::BadDescriptor { fd: *fd, source });
            }
        };
        for file in &files {
            let length = VNET_HEADER_LENGTH as libc::c_int;
            // SAFETY: TUNSETVNETHDRSZ reads one int.
            let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &length) };
            check(result, &name, "set the length of the virtio-net header")?;
        }
        let mtu = mtu(&name)?;
        let queues = files.into_iter().map(TapQueue).collect();
        Ok(Self { name, mtu, queues })
    }

    /// As [`Tap::open`], but with one queue where the tap is there already and has no more, and with all of those whose
    /// descriptors are given.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn open_up_to(source: &TapSource, queue_pairs: u16) -> Result<Self, TapError> {
        let queue_pairs = match source {
            TapSource::Descriptors(fds) => u16::try_from(fds.len()).unwrap_or(u16::MAX),
            _ => queue_pairs,
        };
        match Self::open(source, queue_pairs) {
            Err(TapError::OtherKind { .. }) if queue_pairs > 1 => Self::open(source, 1),
            other => other,
        }
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's MTU in bytes, at the time it was opened.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The queues, each a back end of its own.
    pub fn into_queues(self) -> Vec<TapQueue> {
        self.queues
    }
}

/// One queue of a tap.
#[derive(Debug)]
pub struct TapQueue(File);

impl TapQueue {
    /// The same queue once more, for a device that sends and receives on different threads.
    ///
    /// # Errors
    /// The host is out of descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl NetBackend for TapQueue {
    fn send(&mut self, frame: &Gather<'_>) -> io::Result<usize> {
        frame.write_to(self.0.as_fd())
    }

    fn receive(&mut self, buffers: &mut Scatter<'_>) -> io::Result<usize> {
        buffers.read_from(self.0.as_fd())
    }

    fn set_offloads(&mut self, tun_flags: u32) -> io::Result<()> {
        // SAFETY: TUNSETOFFLOAD takes its argument by value.
        let result = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::TUNSETOFFLOAD, tun_flags as libc::c_ulong)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn set_attached(&mut self, attached: bool) -> io::Result<()> {
        let flag = if attached { libc::IFF_ATTACH_QUEUE } else { libc::IFF_DETACH_QUEUE };
        let request = request("", flag);
        // SAFETY: TUNSETQUEUE reads an `ifreq`.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETQUEUE, &request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn event(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn check_name(name: &str) -> Result<&str, TapError> {
    let bad = |b: u8| b == b'/' || b == b'%' || b == b':' || b == 0 || b.is_ascii_whitespace();
    let usable = !name.is_empty()
        && name.len() < libc::IFNAMSIZ
        && name != "."
        && name != ".."
        && !name.bytes().any(bad);
    usable.then_some(name).ok_or_else(|| TapError::BadName { name: name.to_owned() })
}

/// Opens `pairs` queues of the tap `pattern`; a new one's queues after the first go by the name
/// that the kernel gave it.
fn open_named(pattern: &str, pairs: u16) -> Result<(String, Vec<File>), TapError> {
    let (name, first) = match open_queue(pattern, pairs > 1) {
        // A tap with one queue that root made with `multi_queue`.
        Err(TapError::OtherKind { .. }) if pairs == 1 => {
            open_queue(pattern, true).map_err(|e| with_pairs(e, pairs))?
        }
        other => other.map_err(|e| with_pairs(e, pairs))?,
    };
    let mut files = vec![first];
    for _ in 1..pairs {
        files.push(open_queue(&name, true).map_err(|e| with_pairs(e, pairs))?.1);
    }
    Ok((name, files))
}

fn with_pairs(error: TapError, asked: u16) -> TapError {
    match error {
        TapError::OtherKind { name, .. } => TapError::OtherKind { name, pairs: asked },
        other => other,
    }
}

fn open_queue(name: &str, multi_queue: bool) -> Result<(String, File), TapError> {
    let is_taken = |error: &TapError| matches!(error, TapError::Busy { .. });
    handover::take(|| try_open_queue(name, multi_queue), is_taken)
}

fn try_open_queue(name: &str, multi_queue: bool) -> Result<(String, File), TapError> {
    let owned = || name.replace("%d", "N");
    let file = open_device(TUN_DEVICE).map_err(|source| match source.kind() {
        io::ErrorKind::PermissionDenied => TapError::TunPermission { name: owned(), source },
        _ => TapError::NoTun { name: owned(), source },
    })?;
    let mut request = request(name, FLAGS | if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 });
    // SAFETY: TUNSETIFF reads and writes one `ifreq`.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } < 0 {
        let source = io::Error::last_os_error();
        return Err(match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => TapError::Permission { name: owned(), source },
            Some(libc::EBUSY) => TapError::Busy { name: owned(), source },
            Some(libc::EINVAL) => TapError::OtherKind { name: owned(), pairs: 1 },
            _ => TapError::Host { name: owned(), action: "attach to it", source },
        });
    }
    Ok((name_of(&request), file))
}

fn open_device(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Duplicates descriptors that someone else opened, after a look at what they are.
fn adopt(fds: &[RawFd]) -> Result<(String, Vec<File>), TapError> {
    let mut name = String::new();
    let mut files = Vec::with_capacity(fds.len());
    for &fd in fds {
        let bad = |source| TapError::BadDescriptor { fd, source };
        let mut answer = request("", 0);
        // SAFETY: TUNGETIFF writes one `ifreq`, or fails when `fd` is no tap or not even open.
        if unsafe { libc::ioctl(fd, libc::TUNGETIFF, &mut answer) } < 0 {
            return Err(bad(io::Error::last_os_error()));
        }
        // SAFETY: TUNGETIFF set the flags.
        let flags = i32::from(unsafe { answer.ifr_ifru.ifru_flags });
        if flags & FLAGS != FLAGS {
            return Err(bad(io::ErrorKind::InvalidInput.into()));
        }
        // SAFETY: the ioctl has shown that `fd` is open; it is borrowed for this call only.
        let owned = unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned().map_err(bad)?;
        set_nonblocking(&owned).map_err(bad)?;
        name = name_of(&answer);
        files.push(owned.into());
    }
    Ok((name, files))
}

fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

fn bring_up(name: &str) -> Result<(), TapError> {
    let socket = control_socket(name)?;
    let mut request = request(name, 0);
    // SAFETY: both requests read and write one `ifreq`, and the first sets the flags.
    let result = unsafe {
        let got = libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request);
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        got.min(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request))
    };
    check(result, name, "bring it up")
}

fn mtu(name: &str) -> Result<u16, TapError> {
    let socket = control_socket(name)?;
    let mut request = request(name, 0);
    // SAFETY: SIOCGIFMTU reads and writes one `ifreq`.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &mut request) };
    check(result, name, "read its MTU")?;
    // SAFETY: SIOCGIFMTU set the MTU.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// Any socket will do for the interface ioctls.
fn control_socket(name: &str) -> Result<OwnedFd, TapError> {
    let flags = SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::Datagram, flags, None).map_err(|errno| TapError::Host {
        name: name.to_owned(),
        action: "make a socket to configure it",
        source: errno.into(),
    })
}

fn check(result: libc::c_int, name: &str, action: &'static str) -> Result<(), TapError> {
    if result >= 0 {
        return Ok(());
    }
    let source = io::Error::last_os_error();
    Err(TapError::Host { name: name.to_owned(), action, source })
}

/// An `ifreq` with a name (checked to fit, or our own) and flags.
fn request(name: &str, flags: libc::c_int) -> libc::ifreq {
    // SAFETY: `ifreq` is plain data, for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    request
}

fn name_of(request: &libc::ifreq) -> String {
    let bytes = request.ifr_name.map(|c| c as u8);
    let name = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::{FromRawFd, IntoRawFd};

    use super::*;
    use crate::backend::vectors::VectorBuffer;

    /// Runs `test` in a network namespace of its own. A host that cannot is a failure with its
    /// reason, not a silent pass.
    fn in_namespace(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(|| {
            // Of this thread only, which ends with the test.
            let own = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET);
            assert_eq!(own, Ok(()), "tap tests need a network namespace, run as root");
            let tun = File::open(TUN_DEVICE);
            assert!(tun.is_ok(), "tap tests need {TUN_DEVICE}: {:?}", tun.err());
            test();
        })
        .join()
        .unwrap();
    }

    /// A packet socket on `name`, to see the host's side of frames.
    fn packet_socket(name: &str) -> File {
        let protocol = (libc::ETH_P_ALL as u16).to_be();
        // SAFETY: plain calls with live arguments; the descriptor is owned at once.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol));
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            let file = File::from_raw_fd(fd);
            let mut request = request(name, 0);
            assert_eq!(libc::ioctl(fd, libc::SIOCGIFINDEX as _, &mut request), 0);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = request.ifr_ifru.ifru_ifindex;
            let length = size_of::<libc::sockaddr_ll>() as u32;
            assert_eq!(libc::bind(fd, (&raw const address).cast(), length), 0);
            file
        }
    }

    fn frame(kind: u16) -> Vec<u8> {
        let mut frame = vec![0xFF; 6];
        frame.extend([2, 0, 0, 0, 0, 1]);
        frame.extend(kind.to_be_bytes());
        frame.extend([0x5A; 60]);
        frame
    }

    /// The experimental ethertype of IEEE 802, so that no stack answers.
    const KIND: u16 = 0x88B5;

    #[test]
    fn as_root_frames_go_both_ways() {
        in_namespace(|| {
            let tap = Tap::open(&TapSource::New, 1).unwrap();
            assert_eq!((tap.name(), tap.mtu()), ("isolab0", 1500));
            let mut host = packet_socket(tap.name());
            let mut queue = tap.into_queues().remove(0);
            queue.set_offloads(libc::TUN_F_CSUM | libc::TUN_F_TSO4).unwrap();
            queue.set_offloads(0).unwrap();

            let header = [0; VNET_HEADER_LENGTH];
            let out = frame(KIND);
            let mut vectors = VectorBuffer::default();
            let mut whole = vectors.gather();
            whole.add(&header);
            whole.add(&out);
            let sent = queue.send(&whole).unwrap();
            assert_eq!(sent, header.len() + out.len());
            let mut seen = [0; 2048];
            loop {
                let length = host.read(&mut seen).unwrap();
                if seen[..length] == out {
                    break;
                }
            }
            host.write_all(&frame(KIND + 1)).unwrap();
            // The kernel's own router solicitations may come first.
            loop {
                let mut header = [0; VNET_HEADER_LENGTH];
                let mut data = [0; 2048];
                let mut buffers = vectors.scatter();
                buffers.add(&mut header);
                buffers.add(&mut data);
                match queue.receive(&mut buffers) {
                    Ok(length) if data[..length - 12] == frame(KIND + 1) => break,
                    Ok(_) => {}
                    Err(error) => panic!("the frame did not arrive: {error}"),
                }
            }
            let mut buffers = vectors.scatter();
            buffers.add(&mut seen);
            let error = queue.receive(&mut buffers);
            assert!(error.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock));
        });
    }

    #[test]
    fn as_root_queues_can_be_detached_and_attached() {
        in_namespace(|| {
            let tap = Tap::open(&TapSource::Named("multi".into()), 3).unwrap();
            assert_eq!(tap.queues.len(), 3);
            let mut queues = tap.into_queues();
            queues[2].set_attached(false).unwrap();
            queues[2].set_attached(true).unwrap();
            // With the queues the interface goes.
            drop(queues);
            assert!(mtu("multi").is_err());
        });
    }

    #[test]
    fn as_root_errors_name_the_tap_and_a_hint() {
        in_namespace(|| {
            let _first = Tap::open(&TapSource::Named("taken".into()), 1).unwrap();
            let busy = Tap::open(&TapSource::Named("taken".into()), 1).unwrap_err();
            assert!(matches!(busy, TapError::Busy { .. }), "{busy}");
            let other = Tap::open(&TapSource::Named("lo".into()), 2).unwrap_err().to_string();
            assert!(other.contains("`lo`") && other.contains("multi_queue"), "{other}");
            let wrong = Tap::open(&TapSource::Named("taken".into()), 2).unwrap_err();
            assert!(matches!(wrong, TapError::OtherKind { pairs: 2, .. }), "{wrong}");
        });
    }

    #[test]
    fn as_root_there_are_as_many_queues_as_the_tap_has_room_for() {
        in_namespace(|| {
            // A tap that someone made, and keeps, with one queue or several.
            for (name, multi_queue, queues) in [("one", false, 1), ("several", true, 4)] {
                let (_, file) = open_queue(name, multi_queue).unwrap();
                // SAFETY: TUNSETPERSIST takes its argument by value.
                let kept = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETPERSIST, 1) };
                assert_eq!(kept, 0);
                drop(file);
                let tap = Tap::open_up_to(&TapSource::Named(name.into()), 4).unwrap();
                assert_eq!(tap.queues.len(), queues, "{name}");
            }
            assert_eq!(Tap::open_up_to(&TapSource::New, 2).unwrap().queues.len(), 2);
            let (_, file) = open_queue("given", false).unwrap();
            let given = TapSource::Descriptors(vec![file.into_raw_fd()]);
            assert_eq!(Tap::open_up_to(&given, 2).unwrap().queues.len(), 1);
            let lo = Tap::open_up_to(&TapSource::Named("lo".into()), 4).unwrap_err();
            assert!(matches!(lo, TapError::OtherKind { .. }), "{lo}");
        });
    }

    #[test]
    fn as_root_open_descriptors_are_adopted_if_they_are_taps() {
        in_namespace(|| {
            let (name, file) = open_queue("given", false).unwrap();
            let fd = file.into_raw_fd();
            let tap = Tap::open(&TapSource::Descriptors(vec![fd]), 1).unwrap();
            assert_eq!(tap.name(), name);
            let null = File::open("/dev/null").unwrap();
            for bad in [null.as_raw_fd(), -1] {
                let error = Tap::open(&TapSource::Descriptors(vec![bad]), 1).unwrap_err();
                assert!(matches!(error, TapError::BadDescriptor { .. }), "{error}");
            }
            assert!(Tap::open(&TapSource::Descriptors(vec![fd]), 2).is_err());
        });
    }

    #[test]
    fn names_and_numbers_are_checked_before_anything_is_opened() {
        for name in ["", "a/b", "tap%d", "sixteen-letters!", "two words", ".."] {
            let error = Tap::open(&TapSource::Named(name.into()), 1).unwrap_err();
            assert!(matches!(error, TapError::BadName { .. }), "{name}");
        }
        for pairs in [0, MAX_QUEUE_PAIRS + 1] {
            let error = Tap::open(&TapSource::New, pairs).unwrap_err();
            assert!(matches!(error, TapError::BadQueuePairs { .. }));
        }
    }
}
