//! Names of the other networks on which a client is as well: it asks the name service of one of its networks, and
//! finds those whom it reaches over any.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use isolab_network::{Lease, leases_in};

use crate::zone::Zone;

/// The names on the networks beside that of `leases` which `client`, an address there, is on, too. None where it is
/// on no other. Folders of networks are beside each other: `NETWORK/leases`.
pub fn zone_of(leases: &Path, zone: &Zone, client: IpAddr) -> Option<Zone> {
    let own = leases.parent()?;
    let owner = zone.owner(client)?;
    let networks = fs::read_dir(own.parent()?).ok()?;
    let others = networks.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path != own);
    let is_on = |leases: &Vec<Lease>| leases.iter().any(|lease| lease.owner == owner);
    // A network that is on its way out has no names.
    let found = others.filter_map(|path| leases_in(&path.join("leases")).ok()).filter(is_on);
    let names: Vec<Lease> = found.flatten().collect();
    (!names.is_empty()).then(|| Zone::of(names))
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_network::MacAddress;
    use std::net::Ipv4Addr;

    #[test]
    fn names_are_those_of_the_client_s_own_networks() {
        let runtime = tempfile::tempdir().unwrap();
        let write = |network: &str, owner: &str, address: [u8; 4]| {
            let folder = runtime.path().join(network).join("leases");
            fs::create_dir_all(&folder).unwrap();
            let address = Ipv4Addr::from(address);
            let lease = Lease {
                owner: owner.into(),
                names: vec![owner.parse().unwrap()],
                address,
                address6: None,
                mac: MacAddress::of(address),
                ports: Vec::new(),
            };
            fs::write(folder.join(address.to_string()), serde_json::to_vec(&lease).unwrap())
                .unwrap();
        };
        write("front", "web", [10, 0, 0, 2]);
        write("front", "both", [10, 0, 0, 3]);
        write("back", "both", [10, 0, 1, 2]);
        write("back", "db", [10, 0, 1, 3]);
        write("far", "db", [10, 0, 2, 2]);
        write("far", "secret", [10, 0, 2, 3]);
        let front = runtime.path().join("front/leases");
        let zone = Zone::of(leases_in(&front).unwrap());
        let asked = |client: [u8; 4]| zone_of(&front, &zone, Ipv4Addr::from(client).into());
        let both = asked([10, 0, 0, 3]).unwrap();
        assert_eq!(both.addresses("db").unwrap()[0].v4, Ipv4Addr::new(10, 0, 1, 3));
        assert!(both.addresses("db").unwrap().len() == 1 && both.addresses("secret").is_none());
        assert!(asked([10, 0, 0, 2]).is_none() && asked([10, 0, 0, 9]).is_none());
    }
}
