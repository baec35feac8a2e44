//! The `linux.namespaces` of the configuration: which to make with clone3, which existing ones to join.

use std::ffi::CStr;
use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::stat::{FileStat, Mode, fstat, stat};
use nix::unistd::geteuid;
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use crate::error::{Error, Result};
use crate::proc_file;
use crate::step::{At, Failure, Step};

/// An existing namespace to join.
#[derive(Debug)]
pub(crate) struct JoinedNamespace {
    pub fd: OwnedFd,
    kind: CloneFlags,
    pub path: PathBuf,
}

/// `linux/sched.h`; nix has no name for it.
pub(crate) const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// `linux/nsfs.h`: `_IO(0xb7, 3)`.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

impl JoinedNamespace {
    /// A network namespace that the caller has open.
    pub(crate) fn network(fd: OwnedFd) -> Self {
        let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
        Self { fd, kind: CloneFlags::CLONE_NEWNET, path }
    }

    pub(crate) fn is(&self, kind: CloneFlags) -> bool {
        self.kind == kind
    }

    /// Whether it is the user namespace that we are in.
    fn is_ours(&self) -> bool {
        let identity = |file: FileStat| (file.st_dev, file.st_ino);
        let own = stat(c"/proc/thread-self/ns/user").map(identity);
        fstat(&self.fd).map(identity).is_ok_and(|it| own == Ok(it))
    }
}

/// The namespaces of one container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// To be made by clone3; without the cgroup namespace, which is made once the process is in its cgroup, and that of
    /// time, whose offsets are set before anybody is in it.
    pub new: CloneFlags,
    /// Whether to make a cgroup namespace.
    pub new_cgroup: bool,
    pub new_time: bool,
    /// In which the process is born, as none can change its own; where all are joined before, it is among them.
    pub pid: Option<JoinedNamespace>,
    pub joined: Vec<JoinedNamespace>,
    /// They are joined before any is made: the container has a user namespace, out of which the others are out of reach
    /// that belong to the caller's, and to which those belong that are made.
    pub join_before: bool,
}

impl Namespaces {
    pub(crate) fn from_oci(namespaces: &[LinuxNamespace]) -> Result<Self> {
        let mut plan = Namespaces {
            new: CloneFlags::empty(),
            new_cgroup: false,
            new_time: false,
            pid: None,
            joined: Vec::new(),
            join_before: false,
        };
        let mut seen = CloneFlags::empty();
        for namespace in namespaces {
            let kind = flag(namespace.typ());
            let field = format!("linux.namespaces {}", namespace.typ());
            if seen.contains(kind) {
                return Err(Error::invalid(field, "given twice"));
            }
            seen |= kind;
            match namespace.path() {
                None if kind == NEWTIME => plan.new_time = true,
                None if kind == CloneFlags::CLONE_NEWCGROUP => plan.new_cgroup = true,
                None => plan.new |= kind,
                Some(path) => match open(path, kind, &field)? {
                    // To go where one is already is refused of user namespaces (setns(2)).
                    user if kind == CloneFlags::CLONE_NEWUSER && user.is_ours() => {}
                    pid if kind == CloneFlags::CLONE_NEWPID => plan.pid = Some(pid),
                    other => plan.joined.push(other),
                },
            }
        }
        let is_joining = !plan.joined.is_empty() || plan.pid.is_some();
        plan.join_before = is_joining && plan.has(CloneFlags::CLONE_NEWUSER);
        if plan.join_before {
            plan.joined.extend(plan.pid.take());
        }
        Ok(plan)
    }

    pub(crate) fn is_new(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind)
    }

    /// Whether the container has its own, be it new or joined.
    pub(crate) fn has(&self, kind: CloneFlags) -> bool {
        self.is_new(kind) || self.joins(kind)
    }

    pub(crate) fn joins(&self, kind: CloneFlags) -> bool {
        self.joined.iter().chain(&self.pid).any(|joined| joined.kind == kind)
    }
}

/// Opens a namespace, and makes sure that it is one, and of this kind: what else the path may lead to is not opened for
/// anything but to be looked at.
fn open(path: &Path, kind: CloneFlags, field: &str) -> Result<JoinedNamespace> {
    let attempt = || format!("open namespace {}", path.display());
    let mut options = File::options();
    // A FIFO in its place holds nobody up.
    options.read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let opened = options.open(path).map_err(|source| Error::host(attempt(), source))?;
    let fd = OwnedFd::from(opened);
    // SAFETY: takes no argument; what is no namespace's file does not know the request.
    let found = unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) };
    match Errno::result(found) {
        Ok(found) if found == kind.bits() => {
            Ok(JoinedNamespace { fd, kind, path: path.to_path_buf() })
        }
        Ok(_) => Err(Error::invalid(field, format!("{} is of another type", path.display()))),
        Err(_) => Err(Error::invalid(field, format!("{} is no namespace", path.display()))),
    }
}

/// Whether we are root of the whole host. The initial user namespace maps every id to itself (user_namespaces(7)).
pub fn is_root_of_host() -> bool {
    let is_initial = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    geteuid().is_root() && fs::read_to_string("/proc/self/uid_map").is_ok_and(is_initial)
}

/// The kinds that a container can have.
pub const NAMESPACES: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Time,
    LinuxNamespaceType::User,
    LinuxNamespaceType::Uts,
];

fn flag(typ: LinuxNamespaceType) -> CloneFlags {
    match typ {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Time => NEWTIME,
    }
}

/// Child: joins existing namespaces before any is made, so that those belong to the user namespace that is joined.
///
/// A namespace may belong to the caller's user namespace, and then has to be joined before that is left, or to the one
/// that is joined, and then after it: as runc does, what is not permitted is tried again.
pub(crate) fn join_from_outside(joined: &[JoinedNamespace]) -> Result<(), Failure> {
    let user = joined.iter().position(|one| one.kind == CloneFlags::CLONE_NEWUSER);
    let mut later = 0u8;
    for (index, namespace) in joined.iter().enumerate().filter(|(index, _)| Some(*index) != user) {
        match setns(&namespace.fd, namespace.kind) {
            Err(Errno::EPERM) if user.is_some() => later |= 1 << index,
            other => other.at_index(Step::JoinNamespace, index)?,
        }
    }
    let Some(user) = user else { return Ok(()) };
    setns(&joined[user].fd, CloneFlags::CLONE_NEWUSER).at_index(Step::JoinNamespace, user)?;
    for (index, namespace) in joined.iter().enumerate().filter(|(index, _)| later & 1 << index != 0)
    {
        setns(&namespace.fd, namespace.kind).at_index(Step::JoinNamespace, index)?;
    }
    Ok(())
}

/// Child: joins the existing namespaces.
pub(crate) fn join_all(joined: &[JoinedNamespace]) -> Result<(), Failure> {
    for (index, namespace) in joined.iter().enumerate() {
        setns(&namespace.fd, namespace.kind).at_index(Step::JoinNamespace, index)?;
    }
    Ok(())
}

/// Child: makes a time namespace and enters it, which after the clone takes two steps: its offsets can be changed as
/// long as nobody is in it. While /proc/self is still ours to write to, and nobody looks.
pub(crate) fn enter_new_time(offsets: &CStr) -> Result<(), Errno> {
    unshare(NEWTIME)?;
    if !offsets.is_empty() {
        proc_file::write(c"/proc/self/timens_offsets", offsets)?;
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let namespace = nix::fcntl::open(c"/proc/self/ns/time_for_children", flags, Mode::empty())?;
    setns(&namespace, NEWTIME)
}

/// Child: brings up `lo`, which is down in a new network namespace.
pub(crate) fn bring_up_loopback() -> Result<(), Errno> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain data for which all zeros is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the interface's name and flags from the request, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxNamespaceBuilder;

    #[test]
    fn twice_the_same_is_refused() {
        let one = LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Ipc).build().unwrap();
        assert!(Namespaces::from_oci(&[one.clone(), one]).is_err());
    }

    #[test]
    fn a_missing_namespace_file_is_named() {
        let one = LinuxNamespaceBuilder::default()
            .typ(LinuxNamespaceType::Network)
            .path("/absent/ns")
            .build();
        let error = Namespaces::from_oci(&[one.unwrap()]).unwrap_err().to_string();
        assert!(error.contains("/absent/ns"), "{error}");
    }

    #[test]
    fn what_is_no_namespace_or_of_another_type_is_refused() {
        for (typ, path, problem) in [
            (LinuxNamespaceType::Network, "/proc/self/ns/ipc", "of another type"),
            (LinuxNamespaceType::Pid, "/proc/self/ns/user", "of another type"),
            (LinuxNamespaceType::Ipc, "/dev/null", "no namespace"),
        ] {
            let one = LinuxNamespaceBuilder::default().typ(typ).path(path).build().unwrap();
            let error = Namespaces::from_oci(&[one]).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains(path), "{error}");
        }
    }
}
