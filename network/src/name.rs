//! Names of networks, and of endpoints on them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// RFC 1035, 2.3.4: a label.
const MAX_LABEL: usize = 63;
/// RFC 1035, 2.3.4: 255 octets on the wire, of which two are the first label's length and the root.
const MAX_HOST: usize = 253;

/// A network's name: `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, at most 63 bytes, as podman has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

/// A name by which others on the network find an endpoint: labels of letters, digits, `-` and `_`, with
/// dots between them. Its case does not matter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// What cannot be a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Of a network.
    #[error(
        "`{0}` cannot be a network's name: 1 to 63 of A-Z a-z 0-9 _ . - that begin with a letter or digit, and not `none`, `host`, `default`, `bridge`, `container`, `pasta` or `tap`"
    )]
    Network(String),
    /// Of an endpoint.
    #[error(
        "`{0}` cannot be a name on a network: labels of 1 to 63 of A-Z a-z 0-9 _ - with dots between"
    )]
    Host(String),
}

/// What a network of user mode is called where the name of a network is told.
pub const USER_MODE: &str = "pasta";

/// What stands for something else where a network's name can.
const RESERVED: [&str; 7] = ["none", "host", "default", "bridge", "container", USER_MODE, "tap"];

impl NetworkName {
    /// What stands for the network of an instance that is alone on it ([`UserMode`](crate::UserMode)). It is no name
    /// that a network can be given.
    pub fn user_mode() -> Self {
        Self(USER_MODE.to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NetworkName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let fits = text.len() <= MAX_LABEL && text.bytes().all(allowed);
        match begins && fits && !RESERVED.contains(&text) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadName::Network(text.to_owned())),
        }
    }
}

impl HostName {
    /// The name as text, in lower case.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let is_label =
            |label: &str| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(allowed);
        match text.len() <= MAX_HOST && text.split('.').all(is_label) {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(BadName::Host(text.to_owned())),
        }
    }
}

macro_rules! as_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }
    };
}

as_text!(NetworkName);
as_text!(HostName);

impl TryFrom<String> for NetworkName {
    type Error = BadName;

    /// As it was written down: also what nobody can be named.
    fn try_from(text: String) -> Result<Self, BadName> {
        if text == USER_MODE { Ok(Self::user_mode()) } else { text.parse() }
    }
}

impl TryFrom<String> for HostName {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_s_name_is_a_file_name_and_stands_for_nothing_else() {
        let long = "x".repeat(63);
        for good in ["a", "web-1.x_y", "0", &long] {
            assert_eq!(good.parse::<NetworkName>().unwrap().as_str(), good);
        }
        let too_long = "x".repeat(64);
        for bad in ["", ".", "..", "-a", "a/b", "a b", "a\n", "ü", "none", "host", &too_long] {
            assert_eq!(
                bad.parse::<NetworkName>(),
                Err(BadName::Network(bad.to_owned())),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_network_of_one_is_read_back_and_named_by_nobody() {
        let own = NetworkName::user_mode();
        assert_eq!(NetworkName::try_from(String::from(own.clone())), Ok(own));
        assert!(USER_MODE.parse::<NetworkName>().is_err());
        assert!(NetworkName::try_from("none".to_owned()).is_err());
    }

    #[test]
    fn a_host_s_name_is_one_of_the_name_service() {
        assert_eq!("Web-1.x_y".parse::<HostName>().unwrap().as_str(), "web-1.x_y");
        let (label, name) = ("x".repeat(64), vec!["x".repeat(63); 4].join("."));
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "ü", &label, &name] {
            assert_eq!(bad.parse::<HostName>(), Err(BadName::Host(bad.to_owned())), "{bad:?}");
        }
    }
}
