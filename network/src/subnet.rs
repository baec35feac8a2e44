//! Which subnets networks have.

use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::error::NetworkError;

/// Where subnets come from that nobody chose: each is a /24 of it.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 210, 0, 0), 16);
const PREFIX: u8 = 24;
/// A network's smallest subnet: network, broadcast, the gateway, one instance.
const LONGEST_PREFIX: u8 = 30;
/// What a /8 has; more would only cost.
const SHORTEST_PREFIX: u8 = 8;

/// What is taken already, and by whom.
pub(crate) struct Taken(pub(crate) Vec<(IpNet, String)>);

impl Taken {
    /// # Errors
    /// Whose it is.
    pub(crate) fn check(&self, subnet: IpNet) -> Result<(), NetworkError> {
        let overlaps = |other: &IpNet| other.contains(&subnet) || subnet.contains(other);
        match self.0.iter().find(|(other, _)| overlaps(other)) {
            Some((_, other)) => Err(NetworkError::Overlap { subnet, other: other.clone() }),
            None => Ok(()),
        }
    }

    /// The first subnet of our pool that nobody has.
    pub(crate) fn choose(&self) -> Result<Ipv4Net, NetworkError> {
        let subnets = POOL.subnets(PREFIX).ok().into_iter().flatten();
        let mut free = subnets.filter(|subnet| self.check((*subnet).into()).is_ok());
        free.next().ok_or(NetworkError::NoSubnet { pool: POOL.into() })
    }
}

/// Judges a subnet that somebody chose, and gives its gateway: by default its first address.
pub(crate) fn judge(
    subnet: Ipv4Net,
    gateway: Option<Ipv4Addr>,
) -> Result<(Ipv4Net, Ipv4Addr), NetworkError> {
    let refuse = |why| NetworkError::Subnet { subnet: subnet.into(), why };
    if subnet.trunc() != subnet {
        return Err(refuse("that is an address in it; a subnet's own ends in zeros"));
    }
    if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&subnet.prefix_len()) {
        return Err(refuse("its prefix has to be of 8 to 30 bits"));
    }
    let first = subnet.network();
    if first.is_loopback()
        || first.is_multicast()
        || first.is_unspecified()
        || first.octets()[0] >= 240
    {
        return Err(refuse("no host can have these addresses"));
    }
    let first = Ipv4Addr::from_bits(first.to_bits() + 1);
    let gateway = gateway.unwrap_or(first);
    let is_host = gateway != subnet.network() && gateway != subnet.broadcast();
    match subnet.contains(&gateway) && is_host {
        true => Ok((subnet, gateway)),
        false => Err(refuse("the gateway is not one of its addresses")),
    }
}

/// A unique local /64 with a random global ID (RFC 4193, 3.2): nobody else's, as good as surely.
pub(crate) fn random_ipv6() -> Result<Ipv6Net, NetworkError> {
    let mut id = [0; 5];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut id))
        .map_err(NetworkError::io("read", "/dev/urandom"))?;
    let mut bytes = [0; 16];
    bytes[0] = 0xFD;
    bytes[1..6].copy_from_slice(&id);
    Ipv6Net::new(Ipv6Addr::from(bytes), 64)
        .map_err(|error| NetworkError::io("read", "/dev/urandom")(io::Error::other(error)))
}

/// A route's destination; none of the default route, which leads anywhere.
pub(crate) fn destination(address: IpAddr, prefix: u8) -> Option<IpNet> {
    IpNet::new(address, prefix).ok().filter(|net| net.prefix_len() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_s_subnet_is_chosen() {
        let taken = |nets: &[&str]| {
            Taken(
                nets.iter().map(|net| (net.parse().unwrap(), format!("the route {net}"))).collect(),
            )
        };
        let choose = |nets: &[&str]| taken(nets).choose().map(|net| net.to_string());
        assert_eq!(choose(&[]).unwrap(), "10.210.0.0/24");
        assert_eq!(choose(&["10.210.0.128/25", "10.210.1.7/32"]).unwrap(), "10.210.2.0/24");
        assert_eq!(choose(&["10.210.0.0/17", "192.168.0.0/16"]).unwrap(), "10.210.128.0/24");
        assert!(matches!(choose(&["10.0.0.0/8"]), Err(NetworkError::NoSubnet { .. })));
        let error = taken(&["10.0.0.0/9"]).check("10.1.0.0/16".parse().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "subnet 10.1.0.0/16 overlaps with the route 10.0.0.0/9");
    }

    #[test]
    fn a_subnet_has_room_for_its_gateway() {
        let judged = |subnet: &str, gateway: Option<&str>| {
            judge(subnet.parse().unwrap(), gateway.map(|it| it.parse().unwrap()))
                .map(|(_, it)| it.to_string())
        };
        assert_eq!(judged("10.1.0.0/30", None).unwrap(), "10.1.0.1");
        assert_eq!(judged("10.1.0.0/16", Some("10.1.255.254")).unwrap(), "10.1.255.254");
        for (subnet, gateway) in [
            ("10.1.0.1/24", None),
            ("10.1.0.0/31", None),
            ("8.0.0.0/7", None),
            ("127.1.0.0/24", None),
            ("224.0.0.0/24", None),
            ("10.1.0.0/24", Some("10.1.0.0")),
            ("10.1.0.0/24", Some("10.1.0.255")),
            ("10.1.0.0/24", Some("10.1.1.1")),
        ] {
            let error = judged(subnet, gateway).unwrap_err();
            assert!(matches!(error, NetworkError::Subnet { .. }), "{subnet}: {error}");
        }
        assert!(random_ipv6().unwrap().to_string().starts_with("fd"));
    }
}
