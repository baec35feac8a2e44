//! The names of one network: what its leases say.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use isolab_network::{HostName, Lease, leases_in};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// The names at one moment.
#[derive(Debug, Default)]
pub struct Zone {
    by_name: HashMap<String, Vec<Addresses>>,
    by_address: HashMap<IpAddr, Vec<HostName>>,
    owners: HashMap<IpAddr, String>,
}

/// One endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub v4: Ipv4Addr,
    pub v6: Option<Ipv6Addr>,
}

impl Zone {
    pub fn of(leases: Vec<Lease>) -> Self {
        let mut zone = Self::default();
        for lease in leases {
            let addresses = Addresses { v4: lease.address, v6: lease.address6 };
            for name in &lease.names {
                zone.by_name.entry(name.as_str().to_owned()).or_default().push(addresses);
            }
            for address in [Some(lease.address.into()), lease.address6.map(IpAddr::V6)] {
                zone.by_address.extend(address.map(|address| (address, lease.names.clone())));
                zone.owners.extend(address.map(|address| (address, lease.owner.clone())));
            }
        }
        zone
    }

    /// Who has this name, in lower case; several may.
    pub fn addresses(&self, name: &str) -> Option<&[Addresses]> {
        self.by_name.get(name).map(Vec::as_slice)
    }

    /// Whose this address is.
    pub fn owner(&self, address: IpAddr) -> Option<&str> {
        self.owners.get(&address).map(String::as_str)
    }

    /// The names of who has this address.
    pub fn names(&self, address: IpAddr) -> Option<&[HostName]> {
        self.by_address.get(&address).map(Vec::as_slice)
    }
}

/// The names as they are now. With the folder of the leases the process ends: the network is no longer used.
pub struct Names {
    folder: PathBuf,
    changes: Inotify,
    zone: Mutex<Arc<Zone>>,
}

impl Names {
    /// The names of the leases in `folder`.
    pub fn watch(folder: &Path) -> Result<Self> {
        let cannot = || format!("cannot watch {}", folder.display());
        let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
        let changes = Inotify::init(flags).with_context(cannot)?;
        // Leases appear by a rename. The folder goes with the last one.
        let events =
            AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_DELETE_SELF;
        changes.add_watch(folder, events | AddWatchFlags::IN_ONLYDIR).with_context(cannot)?;
        // After the watch: what comes between is seen.
        let zone = Mutex::new(Arc::new(Zone::of(leases_in(folder)?)));
        Ok(Self { folder: folder.to_owned(), changes, zone })
    }

    /// The names as of now: whoever got an endpoint before this call is among them. An inotify event
    /// is there when the rename returns.
    pub fn now(&self) -> Arc<Zone> {
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        // Any number of events is one reason to look.
        if matches!(self.changes.read_events(), Err(Errno::EAGAIN)) {
            return Arc::clone(&zone);
        }
        if !self.folder.exists() {
            // The network is no longer used; whoever saw that first ends us.
            process::exit(0);
        }
        // A folder that cannot be read is on its way out.
        if let Ok(leases) = leases_in(&self.folder) {
            *zone = Arc::new(Zone::of(leases));
        }
        Arc::clone(&zone)
    }

    /// Where the leases are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Readable when something has changed.
    pub fn changes(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}
