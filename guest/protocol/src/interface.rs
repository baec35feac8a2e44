//! The guest's network interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// One of the guest's network controllers, and how it is set up. They are called `eth0`, `eth1` … in the order
/// in which the machine has them: the kernel finds them in that of their slots, and there is no udev to rename
/// them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The guest's addresses on it.
    pub addresses: Vec<InterfaceAddress>,
    /// Where what is for none of its networks goes; at most one of each family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
}

/// An address, and the network around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceAddress {
    /// The guest's own.
    pub address: IpAddr,
    /// How many of its bits are the network's, 0 to 32, or 128.
    pub prefix: u8,
}

impl InterfaceAddress {
    /// Whether another address is in the same network.
    pub fn reaches(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()) & netmask4(self.prefix).to_bits() == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()) & netmask6(self.prefix).to_bits() == 0
            }
            _ => false,
        }
    }
}

/// An IPv4 prefix as a mask.
pub fn netmask4(prefix: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0))
}

fn netmask6(prefix: u8) -> Ipv6Addr {
    Ipv6Addr::from_bits(u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_who_is_near() {
        assert_eq!(netmask4(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!((netmask4(0), netmask4(32)), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST));
        let reaches = |address: &str, prefix, other: &str| {
            let address = address.parse().unwrap();
            InterfaceAddress { address, prefix }.reaches(other.parse().unwrap())
        };
        assert!(reaches("10.0.0.2", 24, "10.0.0.1") && !reaches("10.0.0.2", 24, "10.0.1.1"));
        assert!(reaches("fd00::2", 64, "fd00::1") && !reaches("fd00::2", 64, "fd00:0:0:1::1"));
        assert!(!reaches("10.0.0.2", 0, "fd00::1"));
    }
}
