//! A service's places on the project's networks.

use std::net::Ipv4Addr;

use isolab_network::{HostName, MacAddress};

use super::fields::Fields;
use super::known::{Known, missing};
use super::network::DEFAULT;
use crate::error::ComposeError;
use crate::file::merge::as_mapping;

/// How a service is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// To networks of the project, the one that ports are published on first.
    Networks(Vec<Membership>),
    /// To the host's interfaces.
    Host,
    /// To nothing.
    None,
}

/// A service's place on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The network, by its name in the files.
    pub network: String,
    /// Further names that it has there.
    pub aliases: Vec<HostName>,
    /// The address that it has.
    pub address: Option<Ipv4Addr>,
    /// Its Ethernet address.
    pub mac: Option<MacAddress>,
    /// Those with more come first.
    pub priority: i64,
}

/// A service's `networks`, or its `network_mode`.
pub(super) fn attached(fields: &mut Fields, known: &Known) -> Result<Attached, ComposeError> {
    let mode = fields.take("network_mode");
    let networks = fields.take("networks");
    if let Some(mode) = mode {
        let place = mode.place.clone();
        if networks.is_some() {
            let why = fields.name("network_mode and networks contradict each other");
            return Err(ComposeError::invalid(&place, why));
        }
        let what = fields.name("network_mode");
        return match mode.into_text(&what)?.as_str() {
            "none" => Ok(Attached::None),
            "host" => Ok(Attached::Host),
            "bridge" => Ok(Attached::Networks(vec![on_default()])),
            other => {
                let why =
                    "bridge, host and none are; an instance has a network namespace of its own";
                Err(ComposeError::unsupported(&place, format!("{what} {other}"), why))
            }
        };
    }
    let mut all = Vec::new();
    let what = fields.name("networks");
    if let Some(node) = networks {
        for (key, node) in as_mapping(node, "networks")?.into_entries(&what)? {
            if key.text != DEFAULT && !known.networks.contains_key(&key.text) {
                return Err(missing(&key.place, &what, &key.text));
            }
            let mut fields = Fields::of(node, format!("{what}.{}", key.text))?;
            all.push(Membership {
                network: key.text,
                aliases: fields.list("aliases")?,
                address: fields.parse("ipv4_address")?,
                mac: fields.parse("mac_address")?,
                priority: fields.parse("priority")?.unwrap_or(0),
            });
            fields.finish(&[
                ("ipv6_address", "IPv6 addresses are given by the network"),
                ("link_local_ips", "an interface has one address of each family"),
                ("driver_opts", "a bridge has no options"),
                ("gw_priority", "the first network is the way out; use priority"),
                ("interface_name", "interfaces are eth0, eth1 and so on"),
            ])?;
        }
    }
    if all.is_empty() {
        all.push(on_default());
    }
    // As Docker has it: by priority, then by name.
    all.sort_by(|one, other| {
        other.priority.cmp(&one.priority).then_with(|| one.network.cmp(&other.network))
    });
    Ok(Attached::Networks(all))
}

fn on_default() -> Membership {
    let network = DEFAULT.to_owned();
    Membership { network, aliases: Vec::new(), address: None, mac: None, priority: 0 }
}
