//! Who has which address: a file for each, whose name is the address. Its owner has it locked; the kernel
//! takes the lock away with the last holder, so that what is without a lock is nobody's.
//!
//! Files appear whole and locked, by a rename, and only while the folder of all networks is locked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::error::NetworkError;
use crate::mac::MacAddress;
use crate::name::HostName;
use crate::ports::PublishedPort;

/// A lease that is being written. No address looks so.
const NEW: &str = ".new";
/// The address that was given last. No address looks so either.
const LAST: &str = ".last";
/// A lease is a few hundred bytes, and some 100 more for each port.
const MAX_LEASE: u64 = 1 << 20;

/// What an endpoint has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Of whom people speak: the instance's name.
    pub owner: String,
    /// By what names others on the network find it.
    pub names: Vec<HostName>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its IPv6 address, where the network has some.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address6: Option<Ipv6Addr>,
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// What reaches it from outside.
    pub ports: Vec<PublishedPort>,
}

impl Lease {
    /// The host's end of its link, or its tap. It follows from the address, so that it is known of leases
    /// that say nothing else.
    pub fn link(&self) -> String {
        link_of(self.address)
    }
}

pub(crate) fn link_of(address: Ipv4Addr) -> String {
    format!("isl{:08x}", address.to_bits())
}

/// A lease that is ours as long as this, or a copy of its descriptor, exists.
#[derive(Debug)]
pub(crate) struct HeldLease {
    pub(crate) lease: Lease,
    pub(crate) lock: Flock<File>,
}

/// The leases of one network.
#[derive(Clone, Debug)]
pub(crate) struct Leases {
    folder: PathBuf,
}

impl Leases {
    pub(crate) fn in_folder(folder: PathBuf) -> Self {
        Self { folder }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// All addresses that somebody has, whether or not he lives; none where the network is not used.
    pub(crate) fn addresses(&self) -> Result<Vec<Ipv4Addr>, NetworkError> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(NetworkError::io("read", &self.folder))?,
        };
        let mut addresses = Vec::new();
        for entry in entries {
            let entry = entry.map_err(NetworkError::io("read", &self.folder))?;
            addresses
                .extend(entry.file_name().to_str().and_then(|name| name.parse::<Ipv4Addr>().ok()));
        }
        Ok(addresses)
    }

    /// Writes a lease down, and locks it.
    pub(crate) fn write(&self, lease: Lease) -> Result<HeldLease, NetworkError> {
        let new = self.folder.join(NEW);
        let write = || -> io::Result<Flock<File>> {
            // One that a kill left behind may be locked yet, by who has a copy of its descriptor.
            tolerate_missing(fs::remove_file(&new))?;
            let mut options = OpenOptions::new();
            let file = options.create_new(true).read(true).write(true).mode(0o600).open(&new)?;
            let lock =
                Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno)?;
            (&*lock).write_all(&serde_json::to_vec(&lease)?)?;
            // Where to look next. What is not all there says nothing, and does no harm.
            fs::write(self.folder.join(LAST), lease.address.to_string())?;
            fs::rename(&new, self.folder.join(lease.address.to_string()))?;
            Ok(lock)
        };
        let lock = write().map_err(NetworkError::io("write", &new))?;
        Ok(HeldLease { lease, lock })
    }

    /// The address that was given last.
    pub(crate) fn last(&self) -> Option<Ipv4Addr> {
        fs::read_to_string(self.folder.join(LAST)).ok()?.parse().ok()
    }

    /// Whether somebody holds the lease of `address`.
    pub(crate) fn is_held(&self, address: Ipv4Addr) -> Result<bool, NetworkError> {
        let path = self.folder.join(address.to_string());
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(NetworkError::io("open", &path))?,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_) => Ok(false),
            Err((_, Errno::EWOULDBLOCK)) => Ok(true),
            Err((_, errno)) => Err(NetworkError::io("lock", path)(errno.into())),
        }
    }

    /// What is written in the lease of `address`; None if that is nothing that we understand.
    pub(crate) fn read(&self, address: Ipv4Addr) -> Option<Lease> {
        let file = File::open(self.folder.join(address.to_string())).ok()?;
        let mut text = Vec::new();
        file.take(MAX_LEASE).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok().filter(|lease: &Lease| lease.address == address)
    }

    /// Gives an address back.
    pub(crate) fn remove(&self, address: Ipv4Addr) -> Result<(), NetworkError> {
        let path = self.folder.join(address.to_string());
        tolerate_missing(fs::remove_file(&path)).map_err(NetworkError::io("remove", path))
    }
}

fn tolerate_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What the leases in `folder` say, in the order of their addresses. It needs no lock: a lease appears
/// whole. One that cannot be read is left out.
///
/// # Errors
/// The folder cannot be read. Where it is missing, the network is not used.
pub fn leases_in(folder: &Path) -> Result<Vec<Lease>, NetworkError> {
    let leases = Leases::in_folder(folder.to_owned());
    let mut addresses = leases.addresses()?;
    addresses.sort_unstable();
    Ok(addresses.into_iter().filter_map(|address| leases.read(address)).collect())
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    use super::*;

    #[test]
    fn a_lease_is_held_until_its_last_descriptor_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let leases = Leases::in_folder(folder.path().to_owned());
        assert!(Leases::in_folder(folder.path().join("none")).addresses().unwrap().is_empty());
        let address = Ipv4Addr::new(10, 1, 0, 2);
        let lease = Lease {
            owner: "web".into(),
            names: vec!["web".parse().unwrap()],
            address,
            address6: None,
            mac: MacAddress::of(address),
            ports: vec!["8080:80".parse().unwrap()],
        };
        assert_eq!(lease.link(), "isl0a010002");
        let held = leases.write(lease.clone()).unwrap();
        assert!(leases.is_held(address).unwrap());
        let copy = held.lock.try_clone().unwrap();
        // As a kill of the owner leaves it: its descriptor is closed, and nothing else done.
        let descriptor = held.lock.as_raw_fd();
        std::mem::forget(held);
        // SAFETY: the descriptor's owner is forgotten, which nothing uses any more.
        drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
        assert!(leases.is_held(address).unwrap());
        drop(copy);
        assert!(!leases.is_held(address).unwrap());
        assert_eq!(leases_in(folder.path()).unwrap(), [lease]);
        assert_eq!(leases.last(), Some(address));
        // What others put there, and what a kill left of one.
        for strange in [".new", "10.1.0.3", "web", "10.1.0.4"] {
            fs::write(folder.path().join(strange), "{").unwrap();
        }
        assert_eq!(leases_in(folder.path()).unwrap().len(), 1);
        assert_eq!(leases.addresses().unwrap().len(), 3);
        assert!(!leases.is_held(Ipv4Addr::new(10, 1, 0, 3)).unwrap());
        leases.remove(address).unwrap();
        leases.remove(address).unwrap();
        assert!(leases_in(folder.path()).unwrap().is_empty());
    }
}
