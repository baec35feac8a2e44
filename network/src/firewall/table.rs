//! The table `inet isolab`, as `nft list table inet isolab` shows it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use super::InUse;
use super::rule::{Family, PacketSide, interface_key};
use super::transaction::{Hook, Transaction, Type};
use crate::lease::Lease;
use crate::ports::{Protocol, PublishedPort};

/// Numbers by which `nft` knows types (its include/datatype.h). In a concatenation each has six bits.
const IPV4_ADDRESS: Type = Type { number: 7, length: 4 };
const IPV6_ADDRESS: Type = Type { number: 8, length: 16 };
const PROTOCOL: Type = Type { number: 12, length: 4 };
const SERVICE: Type = Type { number: 13, length: 4 };
const INTERFACE: Type = Type { number: 41, length: libc::IFNAMSIZ as u32 };

/// Loopback addresses: 127.0.0.0/8.
const LOOPBACK: ([u8; 4], [u8; 4]) = ([127, 0, 0, 0], [255, 0, 0, 0]);

const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const PUBLISHED: &str = "published";

const BOTH: [Family; 2] = [Family::V4, Family::V6];

pub(super) fn write(table: &mut Transaction, networks: &[InUse]) {
    sets(table, networks);
    maps(table, networks);
    guard_loopback(table);
    publish(table);
    translate_sources(table, networks);
    filter(table, networks);
}

fn sets(table: &mut Transaction, networks: &[InUse]) {
    let bridge = |(network, _): &InUse| interface_key(&network.bridge).to_vec();
    table.set(BRIDGES, INTERFACE, &networks.iter().map(bridge).collect::<Vec<_>>());
    let internal = networks.iter().filter(|(network, _)| network.internal).map(bridge);
    table.set(INTERNAL, INTERFACE, &internal.collect::<Vec<_>>());
    let gateways = networks.iter().map(|(network, _)| network.gateway.octets().to_vec());
    table.set(gateways_of(Family::V4), IPV4_ADDRESS, &gateways.collect::<Vec<_>>());
    let gateways = networks.iter().filter_map(|(network, _)| network.gateway6());
    let gateways: Vec<_> = gateways.map(|gateway| gateway.octets().to_vec()).collect();
    table.set(gateways_of(Family::V6), IPV6_ADDRESS, &gateways);
}

/// Published ports: for each family those of all the host's addresses, and those of one.
fn maps(table: &mut Transaction, networks: &[InUse]) {
    let leases: Vec<&Lease> = networks.iter().flat_map(|(_, leases)| leases).collect();
    for family in BOTH {
        let address = if family == Family::V4 { IPV4_ADDRESS } else { IPV6_ADDRESS };
        let target = concatenation(&[address, SERVICE]);
        let service = [PROTOCOL, SERVICE];
        table.map(
            map_of(family, false),
            concatenation(&service),
            target,
            elements(&leases, family, false),
        );
        let bound = concatenation(&[address, PROTOCOL, SERVICE]);
        table.map(map_of(family, true), bound, target, elements(&leases, family, true));
    }
}

/// Of one lease more.
pub(super) fn add_ports(table: &mut Transaction, lease: &Lease) {
    for family in BOTH {
        for with_address in [false, true] {
            let elements = elements(&[lease], family, with_address);
            table.add_to_map(map_of(family, with_address), elements);
        }
    }
}

/// 127.0.0.1 is the host's own, though our bridges let packets from and to it pass (`route_localnet`), so
/// that a published port answers there. Before connection tracking: an answer to the host's own connection
/// has the bridge's address yet.
fn guard_loopback(table: &mut Transaction) {
    let hook = Hook { kind: "filter", number: libc::NF_INET_PRE_ROUTING, priority: -300 };
    table.chain("guard", Some(hook));
    let (network, mask) = LOOPBACK;
    let rule = table.rule("guard").arrives_by_any(BRIDGES);
    rule.in_subnet(PacketSide::Destination, Family::V4, &network, &mask).drop_packet();
}

fn publish(table: &mut Transaction) {
    table.chain(PUBLISHED, None);
    for family in BOTH {
        for with_address in [true, false] {
            table.rule(PUBLISHED).translate(family, with_address, map_of(family, with_address));
        }
    }
    let before = |number| Some(Hook { kind: "nat", number, priority: libc::NF_IP_PRI_NAT_DST });
    // From others. What a neighbour sends to 127.0.0.1 is dropped by the host's routing, unless it is
    // translated before.
    table.chain("arriving", before(libc::NF_INET_PRE_ROUTING));
    let (network, mask) = LOOPBACK;
    let rule =
        table.rule("arriving").in_subnet(PacketSide::Destination, Family::V4, &network, &mask);
    rule.return_to_caller();
    table.rule("arriving").for_host().jump(PUBLISHED);
    // From the host itself.
    table.chain("leaving", before(libc::NF_INET_LOCAL_OUT));
    table.rule("leaving").for_host().jump(PUBLISHED);
}

fn translate_sources(table: &mut Transaction, networks: &[InUse]) {
    let chain = "sources";
    let priority = libc::NF_IP_PRI_NAT_SRC;
    table.chain(chain, Some(Hook { kind: "nat", number: libc::NF_INET_POST_ROUTING, priority }));
    let (network, mask) = LOOPBACK;
    let rule = table.rule(chain).leaves_by_any(BRIDGES);
    rule.in_subnet(PacketSide::Source, Family::V4, &network, &mask).masquerade();
    for (network, _) in networks {
        for subnet in network.subnets() {
            let (family, address, mask) = bytes(subnet);
            let from_here = |table: &mut Transaction| {
                // The answer has to come back through the host, which undoes the translation.
                let rule = table.rule(chain).leaves_by(&network.bridge).of_published_port();
                rule.in_subnet(PacketSide::Source, family, &address, &mask).masquerade();
            };
            from_here(table);
            if !network.internal {
                let rule = table.rule(chain).leaves_by_other(&network.bridge);
                rule.in_subnet(PacketSide::Source, family, &address, &mask).masquerade();
            }
        }
    }
}

/// Networks reach the world and, each through its gateway, the host; the world and other networks reach
/// published ports.
fn filter(table: &mut Transaction, networks: &[InUse]) {
    let hook = |number| Some(Hook { kind: "filter", number, priority: libc::NF_IP_PRI_FILTER });
    table.chain("forward", hook(libc::NF_INET_FORWARD));
    for (network, _) in networks {
        // Bridged frames come here where br_netfilter is on.
        table.rule("forward").arrives_by(&network.bridge).leaves_by(&network.bridge).accept();
    }
    table.rule("forward").arrives_by_any(INTERNAL).drop_packet();
    table.rule("forward").leaves_by_any(INTERNAL).drop_packet();
    table.rule("forward").leaves_by_any(BRIDGES).of_known_connection().accept();
    table.rule("forward").leaves_by_any(BRIDGES).of_published_port().accept();
    table.rule("forward").leaves_by_any(BRIDGES).drop_packet();
    table.chain("input", hook(libc::NF_INET_LOCAL_IN));
    for family in BOTH {
        // Another network's name service, for example.
        let rule = table.rule("input").arrives_by_any(BRIDGES);
        rule.for_address_in(family, gateways_of(family)).not_for_its_interface().drop_packet();
    }
}

fn gateways_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "gateways4",
        Family::V6 => "gateways6",
    }
}

fn map_of(family: Family, with_address: bool) -> &'static str {
    match (family, with_address) {
        (Family::V4, false) => "ports4",
        (Family::V4, true) => "bound4",
        (Family::V6, false) => "ports6",
        (Family::V6, true) => "bound6",
    }
}

fn concatenation(types: &[Type]) -> Type {
    types.iter().fold(Type { number: 0, length: 0 }, |all, it| Type {
        number: all.number << 6 | it.number,
        length: all.length + it.length,
    })
}

/// Address, first address and mask, in the order of the wire.
fn bytes(subnet: IpNet) -> (Family, Vec<u8>, Vec<u8>) {
    match subnet {
        IpNet::V4(it) => {
            (Family::V4, it.network().octets().to_vec(), it.netmask().octets().to_vec())
        }
        IpNet::V6(it) => {
            (Family::V6, it.network().octets().to_vec(), it.netmask().octets().to_vec())
        }
    }
}

fn elements(leases: &[&Lease], family: Family, with_address: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut elements = Vec::new();
    for lease in leases {
        let target = match family {
            Family::V4 => Some(lease.address.octets().to_vec()),
            Family::V6 => lease.address6.map(|address| address.octets().to_vec()),
        };
        let Some(target) = target else { continue };
        for port in &lease.ports {
            let Some(host) = host_address(port, family, with_address) else { continue };
            for offset in 0..port.count {
                let service = service(port.protocol, port.host + offset);
                let to = [&target[..], &padded(port.guest + offset)].concat();
                elements.push(([&host[..], &service].concat(), to));
            }
        }
    }
    elements
}

/// The part of the key that is an address; None where the port is not of this map.
fn host_address(port: &PublishedPort, family: Family, with_address: bool) -> Option<Vec<u8>> {
    let address = port.address.filter(|address| !address.is_unspecified());
    match (address, family, with_address) {
        (None, Family::V4, false) if port.address.is_none_or(|it| it == Ipv4Addr::UNSPECIFIED) => {
            Some(Vec::new())
        }
        (None, Family::V6, false) if port.address.is_none_or(|it| it.is_ipv6()) => Some(Vec::new()),
        (Some(IpAddr::V4(address)), Family::V4, true) => Some(address.octets().to_vec()),
        (Some(IpAddr::V6(address)), Family::V6, true) => Some(address.octets().to_vec()),
        _ => None,
    }
}

fn service(protocol: Protocol, port: u16) -> Vec<u8> {
    let protocol = match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP,
        Protocol::Udp => libc::IPPROTO_UDP,
    };
    [[protocol as u8, 0, 0, 0], padded(port)].concat()
}

/// A port in a register.
fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}
