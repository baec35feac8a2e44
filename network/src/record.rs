//! What is written down of a network, in a file that lasts: JSON with podman's field names.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::error::NetworkError;
use crate::name::NetworkName;

const VERSION: u32 = 1;
/// One is a few hundred bytes; labels are the only part without a bound.
const MAX_RECORD: u64 = 1 << 20;

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Of this file's format.
    pub(crate) version: u32,
    /// Its name, and that of its file.
    pub name: NetworkName,
    /// The bridge that it has while it is used.
    #[serde(rename = "network_interface")]
    pub bridge: String,
    /// When it was made (RFC 3339).
    pub created: String,
    /// The IPv4 addresses.
    pub subnet: Ipv4Net,
    /// The bridge's own, where the name service answers.
    pub gateway: Ipv4Addr,
    /// The IPv6 addresses, if it has any: a /64.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subnet6: Option<Ipv6Net>,
    /// Without a way out or in.
    pub internal: bool,
    /// What its maker wants to know of it.
    pub labels: BTreeMap<String, String>,
}

impl NetworkRecord {
    pub(crate) fn new(
        name: NetworkName,
        bridge: String,
        subnet: Ipv4Net,
        gateway: Ipv4Addr,
    ) -> Self {
        let created = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        let (subnet6, internal, labels) = (None, false, BTreeMap::new());
        Self { version: VERSION, name, bridge, created, subnet, gateway, subnet6, internal, labels }
    }

    /// The bridge's IPv6 address.
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        self.address6(self.gateway)
    }

    /// The IPv6 address of who has this IPv4 address: one allocator serves both.
    pub fn address6(&self, address: Ipv4Addr) -> Option<Ipv6Addr> {
        let host = address.to_bits() & self.subnet.hostmask().to_bits();
        self.subnet6.map(|it| Ipv6Addr::from_bits(it.network().to_bits() | u128::from(host)))
    }

    /// All its subnets.
    pub fn subnets(&self) -> impl Iterator<Item = IpNet> {
        [Some(self.subnet.into()), self.subnet6.map(IpNet::V6)].into_iter().flatten()
    }

    /// The first and last address that instances can have; the gateway may be one of them.
    pub(crate) fn range(&self) -> (u32, u32) {
        (self.subnet.network().to_bits() + 1, self.subnet.broadcast().to_bits() - 1)
    }

    /// How many addresses instances can have.
    pub(crate) fn capacity(&self) -> u32 {
        let (first, last) = self.range();
        last - first
    }

    /// None where there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, NetworkError> {
        let bytes = match fs::metadata(path) {
            Ok(metadata) if metadata.len() > MAX_RECORD => {
                let large = io::Error::new(io::ErrorKind::FileTooLarge, "it is over 1 MiB");
                return Err(NetworkError::io("read", path)(large));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            _ => fs::read(path).map_err(NetworkError::io("read", path))?,
        };
        let damaged = |source| NetworkError::Record { path: path.to_owned(), source };
        let record: Self = serde_json::from_slice(&bytes).map_err(damaged)?;
        if record.version != VERSION {
            let other = format!("version {}", record.version);
            return Err(damaged(serde::de::Error::custom(other)));
        }
        Ok(Some(record))
    }

    /// Whole and on the disk, or not at all, also when the host is switched off.
    pub(crate) fn write(&self, path: &Path) -> Result<(), NetworkError> {
        let new = path.with_extension("new");
        let write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(true).write(true).mode(0o600);
            let mut file = options.open(&new)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(NetworkError::io("write", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_whole_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.json");
        assert_eq!(NetworkRecord::read(&path).unwrap(), None);
        let subnet = "10.1.0.0/24".parse().unwrap();
        let mut record = NetworkRecord::new(
            "web".parse().unwrap(),
            "isolab3".into(),
            subnet,
            Ipv4Addr::new(10, 1, 0, 1),
        );
        record.subnet6 = Some("fd00:1:2:3::/64".parse().unwrap());
        record.labels.insert("a".into(), "b".into());
        record.write(&path).unwrap();
        assert_eq!(NetworkRecord::read(&path).unwrap(), Some(record.clone()));
        assert_eq!(
            record.address6(Ipv4Addr::new(10, 1, 0, 9)),
            Some("fd00:1:2:3::9".parse().unwrap())
        );
        assert_eq!(record.capacity(), 253);
        for text in ["", "{}", &fs::read_to_string(&path).unwrap().replace(": 1", ": 2")] {
            fs::write(&path, text).unwrap();
            let error = NetworkRecord::read(&path).unwrap_err();
            assert!(matches!(error, NetworkError::Record { .. }), "{error}");
        }
    }
}
