//! `--network`: which network an instance is on, and how.

use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::mac::MacAddress;
use crate::name::{HostName, NetworkName, USER_MODE};

/// One `--network`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkOption {
    /// `none`: a loopback interface and nothing else.
    None,
    /// `host`: the host's own interfaces.
    Host,
    /// `pasta`: the network of a user who is not root.
    UserMode,
    /// `NAME[,ip=ADDRESS][,mac=ADDRESS][,alias=NAME]…`
    Named {
        /// The network.
        network: NetworkName,
        /// The address that is wanted.
        address: Option<Ipv4Addr>,
        /// The Ethernet address that is wanted.
        mac: Option<MacAddress>,
        /// Further names that the instance has there.
        aliases: Vec<HostName>,
    },
}

/// A `--network` that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadNetworkOption {
    /// A part that no network has.
    #[error("network option `{0}` is unknown; there are ip=ADDRESS, mac=ADDRESS and alias=NAME")]
    Unknown(String),
    /// `none`, `host` and `pasta` have none.
    #[error("network `{0}` takes no options")]
    Options(String),
    /// A value that is none.
    #[error("network option {option}={value}: {why}")]
    Value {
        /// The option's name.
        option: String,
        /// What was written.
        value: String,
        /// What is wrong.
        why: String,
    },
    /// The network's name.
    #[error(transparent)]
    Name(#[from] crate::name::BadName),
}

impl FromStr for NetworkOption {
    type Err = BadNetworkOption;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Docker and podman write a colon.
        let (name, options) =
            text.split_once([',', ':']).map_or((text, None), |(name, rest)| (name, Some(rest)));
        match (name, options) {
            ("none", None) => return Ok(Self::None),
            ("host", None) => return Ok(Self::Host),
            (USER_MODE, None) => return Ok(Self::UserMode),
            ("none" | "host" | USER_MODE, Some(_)) => {
                return Err(BadNetworkOption::Options(name.to_owned()));
            }
            _ => {}
        }
        let network = name.parse()?;
        let (mut address, mut mac, mut aliases) = (None, None, Vec::new());
        for part in options.into_iter().flat_map(|options| options.split(',')) {
            let unknown = || BadNetworkOption::Unknown(part.to_owned());
            let (option, value) = part.split_once('=').ok_or_else(unknown)?;
            match option {
                "ip" => address = Some(read(option, value)?),
                "mac" => mac = Some(read(option, value)?),
                "alias" => aliases.push(read(option, value)?),
                _ => return Err(unknown()),
            }
        }
        Ok(Self::Named { network, address, mac, aliases })
    }
}

fn read<T: FromStr<Err: ToString>>(option: &str, value: &str) -> Result<T, BadNetworkOption> {
    value.parse().map_err(|error: T::Err| BadNetworkOption::Value {
        option: option.to_owned(),
        value: value.to_owned(),
        why: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_has_an_address_and_names() {
        assert_eq!("none".parse(), Ok(NetworkOption::None));
        assert_eq!("host".parse(), Ok(NetworkOption::Host));
        assert_eq!("pasta".parse(), Ok(NetworkOption::UserMode));
        let all = "web,ip=10.1.0.5,mac=02:00:00:00:00:01,alias=db,alias=DB.local";
        let expected = NetworkOption::Named {
            network: "web".parse().unwrap(),
            address: Some(Ipv4Addr::new(10, 1, 0, 5)),
            mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
            aliases: vec!["db".parse().unwrap(), "db.local".parse().unwrap()],
        };
        assert_eq!(all.parse(), Ok(expected.clone()));
        assert_eq!(all.replacen(',', ":", 1).parse(), Ok(expected));
        for (text, words) in [
            ("", "cannot be a network's name"),
            ("none,ip=10.1.0.5", "`none` takes no options"),
            ("pasta,ip=10.1.0.5", "`pasta` takes no options"),
            ("web,ip", "`ip` is unknown"),
            ("web,ip=10.1.0.500", "ip=10.1.0.500: invalid IPv4"),
            ("web,mac=1", "mac=1: `1` is no address"),
            ("web,alias=a b", "cannot be a name"),
            ("web,dns=1.1.1.1", "`dns=1.1.1.1` is unknown"),
        ] {
            let error = text.parse::<NetworkOption>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
