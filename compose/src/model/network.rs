//! Networks of a project.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use isolab_network::NetworkName;

use super::fields::{Fields, valued};
use crate::error::ComposeError;
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
