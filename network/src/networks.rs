//! The networks of this host.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use nix::fcntl::{Flock, FlockArg};

use crate::error::NetworkError;
use crate::firewall::InUse;
use crate::lease::Leases;
use crate::link::Links;
use crate::name::NetworkName;
use crate::record::NetworkRecord;
use crate::subnet::{Taken, judge, random_ipv6};

/// The network of who names none. It is made when it is used first.
pub const DEFAULT_NETWORK: &str = "isolab0";
/// Bridges are called this and a number.
const BRIDGE: &str = "isolab";

/// Where networks are kept.
#[derive(Clone, Debug)]
pub struct Folders {
    /// What lasts: the records, a file `NAME.json` for each network.
    pub records: PathBuf,
    /// What a restart of the host takes away: `NAME/leases/ADDRESS` for each endpoint.
    pub runtime: PathBuf,
}

impl Folders {
    /// Those of who keeps his data in `data`. What is in `/run` is one for all sessions of root, whatever
    /// XDG_RUNTIME_DIR each of them has: an address has one owner.
    pub fn of(data: &Path) -> Self {
        let records = data.join("networks");
        let runtime = match data == Path::new("/var/lib/isolab") {
            true => PathBuf::from("/run/isolab/networks"),
            false => records.join("run"),
        };
        Self { records, runtime }
    }
}

/// A network that is to be made.
#[derive(Clone, Debug)]
pub struct NewNetwork {
    /// Its name.
    pub name: NetworkName,
    /// Its addresses; without, some that nobody has.
    pub subnet: Option<Ipv4Net>,
    /// The bridge's address; without, the subnet's first.
    pub gateway: Option<Ipv4Addr>,
    /// With IPv6 addresses, too.
    pub ipv6: bool,
    /// Without a way out or in.
    pub internal: bool,
    /// What its maker wants to know of it.
    pub labels: BTreeMap<String, String>,
}

/// The networks of this host.
#[derive(Clone, Debug)]
pub struct Networks {
    folders: Folders,
    /// The executable that answers names.
    pub(crate) responder: PathBuf,
}

/// Held by who changes anything.
pub(crate) type Lock = Flock<File>;

impl Networks {
    /// The networks in these folders, which are made where they are missing. `responder` is the path of
    /// the executable `isolab-dns`, which is started for each network that is used.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn open(folders: Folders, responder: PathBuf) -> Result<Self, NetworkError> {
        for folder in [&folders.records, &folders.runtime] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(NetworkError::io("create", folder))?;
        }
        Ok(Self { folders, responder })
    }

    /// Makes a network.
    ///
    /// # Errors
    /// The name or the subnet is taken, or the subnet is none that a network can have.
    pub fn create(&self, new: NewNetwork) -> Result<NetworkRecord, NetworkError> {
        let lock = self.lock()?;
        if self.record(&new.name)?.is_some() {
            return Err(NetworkError::Exists { name: new.name });
        }
        self.make(new, &lock)
    }

    fn make(&self, new: NewNetwork, _: &Lock) -> Result<NetworkRecord, NetworkError> {
        let records = self.list()?;
        let mut links = Links::new();
        let mut taken = self.taken_on_host(&mut links)?;
        for record in &records {
            let others = record.subnets().map(|net| (net, format!("network `{}`", record.name)));
            taken.0.extend(others);
        }
        let subnet = match new.subnet {
            Some(subnet) => subnet,
            None => taken.choose()?,
        };
        let (subnet, gateway) = judge(subnet, new.gateway)?;
        taken.check(subnet.into())?;
        let names = links.names()?;
        let is_free = |bridge: &String| {
            !names.contains(bridge) && records.iter().all(|record| record.bridge != *bridge)
        };
        // The default network's bridge has its name, which no other's gets.
        let own = (new.name.as_str() == DEFAULT_NETWORK).then(|| DEFAULT_NETWORK.to_owned());
        let numbered = (1..=u32::MAX).map(|number| format!("{BRIDGE}{number}"));
        let bridge = own.into_iter().chain(numbered).find(is_free).unwrap_or_default();
        let mut record = NetworkRecord::new(new.name, bridge, subnet, gateway);
        record.subnet6 = if new.ipv6 { Some(random_ipv6()?) } else { None };
        record.internal = new.internal;
        record.labels = new.labels;
        record.write(&self.record_path(&record.name))?;
        Ok(record)
    }

    /// All networks, in the order of their names.
    ///
    /// # Errors
    /// A record cannot be read.
    pub fn list(&self) -> Result<Vec<NetworkRecord>, NetworkError> {
        let folder = &self.folders.records;
        let mut records = Vec::new();
        for entry in fs::read_dir(folder).map_err(NetworkError::io("read", folder))? {
            let path = entry.map_err(NetworkError::io("read", folder))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                // It may just have been removed.
                records.extend(NetworkRecord::read(&path)?);
            }
        }
        records.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(records)
    }

    /// The network of that name.
    ///
    /// # Errors
    /// There is none, or its record cannot be read.
    pub fn get(&self, name: &NetworkName) -> Result<NetworkRecord, NetworkError> {
        self.record(name)?.ok_or_else(|| NetworkError::Unknown { name: name.clone() })
    }

    /// Removes a network that nobody uses.
    ///
    /// # Errors
    /// There is none of that name, or somebody has an endpoint on it.
    pub fn remove(&self, name: &NetworkName) -> Result<(), NetworkError> {
        if name.as_str() == DEFAULT_NETWORK {
            return Err(NetworkError::Default { name: name.clone() });
        }
        let lock = self.lock()?;
        let record = self.get(name)?;
        let users = self.users_left(&record, &lock)?;
        if !users.is_empty() {
            return Err(NetworkError::InUse { name: name.clone(), users });
        }
        self.remove_record(name)
    }

    /// Removes all networks that nobody uses, but for the default one, and gives their names.
    ///
    /// # Errors
    /// One cannot be removed.
    pub fn prune(&self) -> Result<Vec<NetworkName>, NetworkError> {
        let lock = self.lock()?;
        let mut removed = Vec::new();
        for record in self.list()? {
            if record.name.as_str() != DEFAULT_NETWORK
                && self.users_left(&record, &lock)?.is_empty()
            {
                self.remove_record(&record.name)?;
                removed.push(record.name);
            }
        }
        Ok(removed)
    }

    fn remove_record(&self, name: &NetworkName) -> Result<(), NetworkError> {
        let path = self.record_path(name);
        fs::remove_file(&path).map_err(NetworkError::io("remove", path))
    }

    /// The network's record; the default network's is made where it is missing.
    pub(crate) fn get_or_default(
        &self,
        name: &NetworkName,
        lock: &Lock,
    ) -> Result<NetworkRecord, NetworkError> {
        match self.record(name)? {
            Some(record) => Ok(record),
            None if name.as_str() == DEFAULT_NETWORK => self.make(
                NewNetwork {
                    name: name.clone(),
                    subnet: None,
                    gateway: None,
                    ipv6: false,
                    internal: false,
                    labels: BTreeMap::new(),
                },
                lock,
            ),
            None => Err(NetworkError::Unknown { name: name.clone() }),
        }
    }

    /// What the host's routes lead to.
    pub(crate) fn taken_on_host(&self, links: &mut Links) -> Result<Taken, NetworkError> {
        let mut own = Vec::new();
        for record in self.list()? {
            own.extend(links.find(&record.bridge)?.map(|link| link.index));
        }
        let routes = links.destinations()?.into_iter();
        let others = routes.filter(|(_, link)| !own.contains(link));
        Ok(Taken(others.map(|(net, _)| (net, format!("the host's route to {net}"))).collect()))
    }

    /// The networks that somebody uses, and the leases of those who live.
    pub(crate) fn in_use(&self) -> Result<Vec<InUse>, NetworkError> {
        let mut all = Vec::new();
        for name in self.names_in_use()? {
            let Some(record) = self.record(&name)? else { continue };
            let leases = self.leases(&name);
            let mut living = Vec::new();
            for address in leases.addresses()? {
                if leases.is_held(address)? {
                    living.extend(leases.read(address));
                }
            }
            all.push((record, living));
        }
        Ok(all)
    }

    /// The networks that have a folder at run time: they are used, or were when somebody was killed.
    pub(crate) fn names_in_use(&self) -> Result<Vec<NetworkName>, NetworkError> {
        let folder = &self.folders.runtime;
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(NetworkError::io("read", folder))? {
            let entry = entry.map_err(NetworkError::io("read", folder))?;
            names.extend(entry.file_name().to_str().and_then(|name| name.parse().ok()));
        }
        names.sort_unstable();
        Ok(names)
    }

    pub(crate) fn runtime(&self, name: &NetworkName) -> PathBuf {
        self.folders.runtime.join(name.as_str())
    }

    pub(crate) fn leases(&self, name: &NetworkName) -> Leases {
        Leases::in_folder(self.runtime(name).join("leases"))
    }

    /// Says that it was us who made the host forward packets.
    pub(crate) fn forwarding_mark(&self) -> PathBuf {
        self.folders.runtime.join(".ip-forward-set")
    }

    pub(crate) fn lock(&self) -> Result<Lock, NetworkError> {
        let path = &self.folders.runtime;
        let folder = File::open(path).map_err(NetworkError::io("open", path))?;
        Flock::lock(folder, FlockArg::LockExclusive)
            .map_err(|(_, errno)| NetworkError::io("lock", path)(io::Error::from(errno)))
    }

    fn record(&self, name: &NetworkName) -> Result<Option<NetworkRecord>, NetworkError> {
        NetworkRecord::read(&self.record_path(name))
    }

    fn record_path(&self, name: &NetworkName) -> PathBuf {
        Path::new(&self.folders.records).join(format!("{name}.json"))
    }
}
