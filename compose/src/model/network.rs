//! Networks of a project, and a service's places on them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use isolab_network::{HostName, MacAddress, NetworkName};

use super::fields::Fields;
use super::missing;
use super::service::Known;
use crate::error::ComposeError;
use crate::file::merge::as_mapping;
use crate::file::node::Node;
use crate::place::Place;

/// The network of services that name none.
pub const DEFAULT: &str = "default";

/// A network of the project.
#[derive(Clone, Debug)]
pub struct ProjectNetwork {
    /// Its name on this host, if the files say one.
    pub name: Option<NetworkName>,
    /// Whether it is there without the project.
    pub external: bool,
    /// Without a way out or in.
    pub internal: bool,
    /// With IPv6 addresses, too.
    pub ipv6: bool,
    /// Its addresses, if they are said.
    pub subnet: Option<Ipv4Net>,
    /// The bridge's address, likewise.
    pub gateway: Option<Ipv4Addr>,
    /// What is said of it.
    pub labels: BTreeMap<String, String>,
    /// Where it was written.
    pub place: Place,
}

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

pub(super) fn read_all(
    node: Option<Node>,
) -> Result<BTreeMap<String, ProjectNetwork>, ComposeError> {
    let mut all = BTreeMap::new();
    for (key, node) in node.map_or(Ok(Vec::new()), |node| node.into_entries("networks"))? {
        let what = format!("networks.{}", key.text);
        let mut fields = Fields::of(node, what.clone())?;
        let mut network = ProjectNetwork {
            name: fields.parse("name")?,
            external: fields.flag("external")?.unwrap_or(false),
            internal: fields.flag("internal")?.unwrap_or(false),
            ipv6: fields.flag("enable_ipv6")?.unwrap_or(false),
            subnet: None,
            gateway: None,
            labels: valued(fields.assignments("labels")?),
            place: key.place,
        };
        let driver = fields.take("driver");
        if let Some(driver) = driver {
            let place = driver.place.clone();
            match driver.into_text(&what)?.as_str() {
                "bridge" | "default" => {}
                other => {
                    let what = format!("{what}: driver {other}");
                    return Err(ComposeError::unsupported(
                        &place,
                        what,
                        "every network is a bridge",
                    ));
                }
            }
        }
        // Everybody can be connected to every network.
        fields.take("attachable");
        if let Some(ipam) = fields.take("ipam") {
            (network.subnet, network.gateway) = addresses(ipam, &what)?;
        }
        fields.finish(&[
            ("driver_opts", "a bridge has no options"),
            ("enable_ipv4", "every network has IPv4 addresses"),
        ])?;
        all.insert(key.text, network);
    }
    Ok(all)
}

fn addresses(ipam: Node, what: &str) -> Result<(Option<Ipv4Net>, Option<Ipv4Addr>), ComposeError> {
    let mut fields = Fields::of(ipam, format!("{what}: ipam"))?;
    let place = fields.place.clone();
    let driver = fields.text("driver")?;
    let config = fields.take("config");
    fields.finish(&[("options", "addresses are given in turn")])?;
    if driver.is_some_and(|driver| driver != "default") {
        let why = "addresses are given by isolab itself";
        return Err(ComposeError::unsupported(&place, format!("{what}: ipam.driver"), why));
    }
    let (mut subnet, mut gateway) = (None, None);
    for item in config.map_or(Ok(Vec::new()), |it| it.into_items("ipam.config"))? {
        let mut fields = Fields::of(item, format!("{what}: ipam.config"))?;
        let place = fields.place.clone();
        if subnet.is_some() {
            let why =
                "a network has one subnet of IPv4 addresses, and enable_ipv6 gives it one of IPv6";
            return Err(ComposeError::unsupported(&place, format!("{what}: a second subnet"), why));
        }
        subnet = fields.parse("subnet")?;
        gateway = fields.parse("gateway")?;
        fields.finish(&[
            ("ip_range", "addresses are given from all of the subnet"),
            ("aux_addresses", "an address is set aside by whoever has it"),
        ])?;
    }
    Ok((subnet, gateway))
}

/// What is said of something: a name alone has an empty value.
pub(super) fn valued(labels: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    labels.into_iter().map(|(name, value)| (name, value.unwrap_or_default())).collect()
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
