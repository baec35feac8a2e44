//! `--network`: how an instance is connected.

use std::net::Ipv4Addr;
use std::str::FromStr;

use isolab_guest::Interface;
use isolab_vmm::backend::net::{NetOptions, NetOptionsError};

/// A network controller on a tap of the host, and the guest's address on it. The host's end of the
/// tap is the operator's to set up.
#[derive(Clone, Debug)]
pub struct Network {
    /// The tap, and what the controller is like.
    pub tap: NetOptions,
    /// How the guest sets its interface up.
    pub interface: Interface,
}

/// A `--network` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The guest cannot be connected without an address.
    #[error("a network needs an address: tap=NAME,ip=ADDRESS/PREFIX[,gateway=ADDRESS]")]
    NoAddress,
    /// The value is no address.
    #[error("network option {option}={value}: expected {expected}")]
    Value {
        /// The part before the `=`.
        option: &'static str,
        /// The part behind the `=`, as it was given.
        value: String,
        /// What could have been.
        expected: &'static str,
    },
    /// The gateway cannot be reached from the address.
    #[error("network option gateway={gateway}: not in the network of ip={address}/{prefix}")]
    Gateway {
        /// The gateway that was given.
        gateway: Ipv4Addr,
        /// The guest's address.
        address: Ipv4Addr,
        /// Its prefix length.
        prefix: u8,
    },
    /// One of the other options, which are those of `isolab vm run --net`.
    #[error(transparent)]
    Net(#[from] NetOptionsError),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (mut address, mut gateway, mut rest) = (None, None, Vec::new());
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("ip", value)) => address = Some(parse_address(value)?),
                Some(("gateway", value)) => {
                    let expected = "an IPv4 address";
                    let bad = |_| bad("gateway", value, expected);
                    gateway = Some(value.parse::<Ipv4Addr>().map_err(bad)?);
                }
                _ => rest.push(part),
            }
        }
        let (address, prefix) = address.ok_or(NetworkError::NoAddress)?;
        let interface = Interface { address, prefix, gateway };
        if let Some(gateway) = gateway.filter(|gateway| {
            (gateway.to_bits() ^ address.to_bits()) & interface.netmask().to_bits() != 0
        }) {
            return Err(NetworkError::Gateway { gateway, address, prefix });
        }
        if rest.is_empty() {
            return Err(NetOptionsError::NoBackend.into());
        }
        Ok(Self { tap: rest.join(",").parse()?, interface })
    }
}

fn parse_address(text: &str) -> Result<(Ipv4Addr, u8), NetworkError> {
    let parts = text.split_once('/').and_then(|(address, prefix)| {
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some((address.parse().ok()?, prefix))
    });
    parts.ok_or_else(|| bad("ip", text, "an IPv4 address and a prefix length, as 10.0.0.2/24"))
}

fn bad(option: &'static str, value: &str, expected: &'static str) -> NetworkError {
    NetworkError::Value { option, value: value.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use isolab_vmm::backend::net::TapSource;

    #[test]
    fn a_tap_and_an_address_make_a_network() {
        let text = "tap=vm0,ip=10.0.0.2/24,gateway=10.0.0.1,mac=02:00:00:00:00:01";
        let network: Network = text.parse().unwrap();
        assert_eq!(network.tap.tap, TapSource::Named("vm0".into()));
        assert!(network.tap.mac.is_some());
        let interface = Interface {
            address: Ipv4Addr::new(10, 0, 0, 2),
            prefix: 24,
            gateway: Some(Ipv4Addr::new(10, 0, 0, 1)),
        };
        assert_eq!(network.interface, interface);
        assert_eq!(interface.netmask(), Ipv4Addr::new(255, 255, 255, 0));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("tap=vm0", "needs an address"),
            ("ip=10.0.0.2/24", "back end"),
            ("tap,ip=10.0.0.2", "ip=10.0.0.2: expected"),
            ("tap,ip=10.0.0.2/33", "ip=10.0.0.2/33: expected"),
            ("tap,ip=::1/64", "ip=::1/64: expected"),
            ("tap,ip=10.0.0.2/24,gateway=x", "gateway=x: expected"),
            ("tap,ip=10.0.0.2/24,gateway=10.0.1.1", "not in the network"),
            ("tap,ip=10.0.0.2/24,dns=1.1.1.1", "`dns=1.1.1.1` is unknown"),
        ] {
            let error = text.parse::<Network>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
