//! Ethernet addresses of network interfaces.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;

use macaddr::MacAddr6;
use serde::{Deserialize, Serialize};

/// An Ethernet address (EUI-48), in the order of transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// A random address, locally administered and unicast (IEEE 802, 8.2).
    pub fn random() -> Self {
        // Seeded by the operating system; addresses need to differ, not to be secret.
        let [a, b, c, d, e, f, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
        Self([a & 0xFC | 0x02, b, c, d, e, f])
    }
}

/// Text that is no Ethernet address a host can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of a network interface; write it as 02:00:00:00:00:01, the first byte even"
)]
pub struct BadMacAddress(String);

impl FromStr for MacAddress {
    type Err = BadMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse::<MacAddr6>().ok();
        let address = address.filter(|address| address.is_unicast() && !address.is_nil());
        address
            .map(|address| Self(address.into_array()))
            .ok_or_else(|| BadMacAddress(text.to_owned()))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = BadMacAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        let address: MacAddress = "02:00:5e:00:53:Af".parse().unwrap();
        assert_eq!(address.0, [2, 0, 0x5E, 0, 0x53, 0xAF]);
        assert_eq!(address.to_string(), "02:00:5e:00:53:af");
        assert_eq!("02-00-5E-00-53-AF".parse(), Ok(address), "IEEE 802's own notation");
    }

    #[test]
    fn what_is_no_interface_address_is_refused() {
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "+2:00:00:00:00:01",
            "03:00:00:00:00:01",
            "00:00:00:00:00:00",
            "02-00-00-00-00:01",
        ] {
            let refused = text.parse::<MacAddress>();
            assert!(refused.is_err(), "{text}");
        }
    }

    #[test]
    fn random_addresses_differ_and_are_local() {
        let (a, b) = (MacAddress::random(), MacAddress::random());
        assert_ne!(a, b);
        assert_eq!(a.0[0] & 3, 2);
    }
}
