//! Ethernet addresses of endpoints.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use macaddr::MacAddr6;
use serde::{Deserialize, Serialize};

/// An Ethernet address that an interface can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

/// Text that is no Ethernet address a host can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of a network interface; write it as 02:00:00:00:00:01, the first byte even"
)]
pub struct BadMacAddress(String);

impl MacAddress {
    /// That of who has this IPv4 address: locally administered (IEEE 802, 8.2), and no other's on the
    /// network. Who gets an address next has the MAC that neighbours still remember for it.
    pub fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x69, a, b, c, d])
    }
}

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
        let own = MacAddress::of(Ipv4Addr::new(10, 210, 0, 255));
        assert_eq!(own.to_string(), "02:69:0a:d2:00:ff");
        assert_eq!("02:69:0A:d2:00:ff".parse(), Ok(own));
        for bad in ["", "02:69:0a:d2:00", "03:00:00:00:00:01", "00:00:00:00:00:00", "+2:0:0:0:0:1"]
        {
            assert_eq!(bad.parse::<MacAddress>(), Err(BadMacAddress(bad.to_owned())), "{bad}");
        }
    }
}
