//! `--network tap=`: an instance on a tap that the operator has set up.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use isolab_guest::{Interface, InterfaceAddress};
use isolab_vmm::backend::net::{MacAddress, NetOptions, NetOptionsError, TapSource};

/// A network controller on a tap of the host, and the guest's address on it.
#[derive(Clone, Debug)]
pub struct TapNetwork {
    /// The tap, and what the controller is like.
    pub tap: NetOptions,
    /// What the host calls the tap, if it is known: its counters are found by that.
    pub link: Option<String>,
    /// How the guest sets its interface up.
    pub interface: Interface,
}

/// A tap that is open already, and a place on the network behind it.
#[derive(Debug)]
pub struct OpenTap<'a> {
    /// What the host calls it.
    pub link: String,
    /// A descriptor for each of its queues, which stay the caller's and have to live until the machine is made.
    pub queues: &'a [OwnedFd],
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
    /// How the guest sets its interface up.
    pub interface: Interface,
    /// Whether the host's kernel moves the frames (vhost-net), at level `paravirt`.
    pub vhost: bool,
}

impl From<OpenTap<'_>> for TapNetwork {
    fn from(open: OpenTap<'_>) -> Self {
        let descriptors: Vec<_> = open.queues.iter().map(AsRawFd::as_raw_fd).collect();
        let tap = NetOptions {
            queue_pairs: Some(u16::try_from(descriptors.len()).unwrap_or(u16::MAX)),
            tap: TapSource::Descriptors(descriptors),
            mac: Some(MacAddress(open.mac)),
            vhost: Some(open.vhost),
            ..NetOptions::default()
        };
        Self { tap, link: Some(open.link), interface: open.interface }
    }
}

/// A socket that is connected to whoever moves frames, and a place on the network behind it.
#[derive(Debug)]
pub struct OpenStream<'a> {
    /// A stream of frames with the length in front of each; it stays the caller's, and has to live until the machine
    /// is made.
    pub socket: BorrowedFd<'a>,
    /// The guest's Ethernet address.
    pub mac: [u8; 6],
    /// What the guest's interface carries, in bytes.
    pub mtu: u16,
    /// How the guest sets its interface up.
    pub interface: Interface,
}

impl From<OpenStream<'_>> for TapNetwork {
    fn from(open: OpenStream<'_>) -> Self {
        let tap = NetOptions {
            tap: TapSource::Stream(open.socket.as_raw_fd()),
            mac: Some(MacAddress(open.mac)),
            mtu: Some(open.mtu),
            ..NetOptions::default()
        };
        Self { tap, link: None, interface: open.interface }
    }
}

/// A tap that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapNetworkError {
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

impl FromStr for TapNetwork {
    type Err = TapNetworkError;

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
        let (address, prefix) = address.ok_or(TapNetworkError::NoAddress)?;
        let own = InterfaceAddress { address: IpAddr::V4(address), prefix };
        if let Some(gateway) = gateway.filter(|gateway| !own.reaches(IpAddr::V4(*gateway))) {
            return Err(TapNetworkError::Gateway { gateway, address, prefix });
        }
        let gateways = gateway.into_iter().map(IpAddr::V4).collect();
        let interface = Interface { addresses: vec![own], gateways };
        if rest.is_empty() {
            return Err(NetOptionsError::NoBackend.into());
        }
        let tap: NetOptions = rest.join(",").parse()?;
        let link = match &tap.tap {
            TapSource::Named(name) => Some(name.clone()),
            TapSource::New | TapSource::Descriptors(_) | TapSource::Stream(_) => None,
        };
        Ok(Self { tap, link, interface })
    }
}

fn parse_address(text: &str) -> Result<(Ipv4Addr, u8), TapNetworkError> {
    let parts = text.split_once('/').and_then(|(address, prefix)| {
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        Some((address.parse().ok()?, prefix))
    });
    parts.ok_or_else(|| bad("ip", text, "an IPv4 address and a prefix length, as 10.0.0.2/24"))
}

fn bad(option: &'static str, value: &str, expected: &'static str) -> TapNetworkError {
    TapNetworkError::Value { option, value: value.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_and_an_address_make_a_network() {
        let text = "tap=vm0,ip=10.0.0.2/24,gateway=10.0.0.1,mac=02:00:00:00:00:01";
        let network: TapNetwork = text.parse().unwrap();
        assert_eq!(network.tap.tap, TapSource::Named("vm0".into()));
        assert!(network.tap.mac.is_some());
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(network.interface.addresses, [InterfaceAddress { address, prefix: 24 }]);
        assert_eq!(network.interface.gateways, [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))]);
        assert_eq!(network.link.as_deref(), Some("vm0"));
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
            let error = text.parse::<TapNetwork>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
