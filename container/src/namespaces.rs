//! The `linux.namespaces` of the configuration: which to make with clone3, which existing ones to join.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use crate::error::{Error, Result};
use crate::step::{At, Failure, Step};

/// An existing namespace to join.
#[derive(Debug)]
pub(crate) struct JoinedNamespace {
    pub fd: OwnedFd,
    kind: CloneFlags,
    pub path: PathBuf,
}

/// The namespaces of one container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// To be made by clone3; without the cgroup namespace, which is made once the process is in its cgroup.
    pub new: CloneFlags,
    /// Whether to make a cgroup namespace.
    pub new_cgroup: bool,
    pub joined: Vec<JoinedNamespace>,
}

impl Namespaces {
    pub(crate) fn from_oci(namespaces: &[LinuxNamespace]) -> Result<Self> {
        let mut plan =
            Namespaces { new: CloneFlags::empty(), new_cgroup: false, joined: Vec::new() };
        let mut seen = CloneFlags::empty();
        for namespace in namespaces {
            let kind = flag(namespace.typ());
            let field = format!("linux.namespaces {}", namespace.typ());
            if seen.contains(kind) {
                return Err(Error::invalid(field, "given twice"));
            }
            seen |= kind;
            match namespace.path() {
                None if namespace.typ() == LinuxNamespaceType::Time => {
                    return Err(Error::unsupported(field, "not implemented yet"));
                }
                None if kind == CloneFlags::CLONE_NEWCGROUP => plan.new_cgroup = true,
                None => plan.new |= kind,
                Some(path) => plan.joined.push(join(namespace.typ(), path, &field)?),
            }
        }
        // The user namespace first: it holds the rights to join the others.
        plan.joined.sort_by_key(|joined| joined.kind != CloneFlags::CLONE_NEWUSER);
        Ok(plan)
    }

    pub(crate) fn is_new(&self, kind: CloneFlags) -> bool {
        self.new.contains(kind)
    }

    /// Whether the container has its own, be it new or joined.
    pub(crate) fn has(&self, kind: CloneFlags) -> bool {
        self.is_new(kind) || self.joined.iter().any(|joined| joined.kind == kind)
    }
}

fn join(typ: LinuxNamespaceType, path: &std::path::Path, field: &str) -> Result<JoinedNamespace> {
    if matches!(typ, LinuxNamespaceType::Pid | LinuxNamespaceType::User | LinuxNamespaceType::Time)
    {
        return Err(Error::unsupported(field, "joining an existing one is not implemented yet"));
    }
    let opened = File::open(path)
        .map_err(|source| Error::host(format!("open namespace {}", path.display()), source))?;
    Ok(JoinedNamespace { fd: opened.into(), kind: flag(typ), path: path.to_path_buf() })
}

fn flag(typ: LinuxNamespaceType) -> CloneFlags {
    match typ {
        LinuxNamespaceType::Mount => CloneFlags::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => CloneFlags::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => CloneFlags::CLONE_NEWIPC,
        LinuxNamespaceType::User => CloneFlags::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => CloneFlags::CLONE_NEWPID,
        LinuxNamespaceType::Network => CloneFlags::CLONE_NEWNET,
        LinuxNamespaceType::Time => CloneFlags::from_bits_retain(0x80),
    }
}

/// Child: joins the existing namespaces.
pub(crate) fn join_all(joined: &[JoinedNamespace]) -> Result<(), Failure> {
    for (index, namespace) in joined.iter().enumerate() {
        setns(&namespace.fd, namespace.kind).at_index(Step::JoinNamespace, index)?;
    }
    Ok(())
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
}
