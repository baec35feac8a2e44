//! What is told of an instance's networks and ports, under podman's names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use isolab_instances::{Attachment, Instance, PublishedPort};
use serde_json::{Map, Value, json};

/// The ports that lead to it now.
pub fn ports(instance: &Instance) -> impl Iterator<Item = &PublishedPort> {
    instance.state.networks.iter().flat_map(|it| &it.lease.ports)
}

/// The host's address as podman tells it.
pub fn host_address(port: &PublishedPort) -> String {
    match port.address {
        None => "0.0.0.0".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => format!("[{address}]"),
    }
}

/// `0.0.0.0:8080->80/tcp, …`, as `podman ps` has it.
pub fn column(instance: &Instance) -> String {
    let range = |first: u16, count: u16| match count {
        1 => first.to_string(),
        count => format!("{first}-{}", first + (count - 1)),
    };
    let shown: Vec<String> = ports(instance)
        .map(|port| {
            let (host, guest) = (range(port.host, port.count), range(port.guest, port.count));
            format!("{}:{host}->{guest}/{}", host_address(port), port.protocol)
        })
        .collect();
    shown.join(", ")
}

/// As `podman ps --format json` has the ports.
pub fn rows(instance: &Instance) -> Value {
    let row = |port: &PublishedPort| {
        json!({
            "host_ip": port.address.map_or(String::new(), |address| address.to_string()),
            "host_port": port.host,
            "container_port": port.guest,
            "range": port.count,
            "protocol": port.protocol,
        })
    };
    ports(instance).map(row).collect()
}

/// `NetworkSettings` of `podman inspect`.
pub fn settings(instance: &Instance) -> Value {
    let attachments = &instance.state.networks;
    // Those of the first network stand above, too.
    let mut settings = attachments.first().map_or_else(Map::new, addresses);
    settings.insert("Ports".to_owned(), bindings(ports(instance)));
    let networks: Map<String, Value> = attachments
        .iter()
        .map(|attachment| {
            let mut network = addresses(attachment);
            network.insert("NetworkID".to_owned(), json!(attachment.network));
            network.insert("Aliases".to_owned(), json!(attachment.lease.names));
            network.insert("Interface".to_owned(), json!(attachment.interface));
            network.insert("HostInterface".to_owned(), json!(attachment.host_link()));
            (attachment.network.to_string(), Value::Object(network))
        })
        .collect();
    settings.insert("Networks".to_owned(), Value::Object(networks));
    Value::Object(settings)
}

fn addresses(attachment: &Attachment) -> Map<String, Value> {
    let gateway = |is_meant: fn(&IpAddr) -> bool| {
        let gateway = attachment.gateways.iter().find(|it| is_meant(it));
        gateway.map_or(String::new(), IpAddr::to_string)
    };
    let lease = &attachment.lease;
    let fields = json!({
        "Gateway": gateway(IpAddr::is_ipv4),
        "IPAddress": lease.address,
        "IPPrefixLen": attachment.prefix,
        "IPv6Gateway": gateway(IpAddr::is_ipv6),
        "GlobalIPv6Address": lease.address6.map_or(String::new(), |it| it.to_string()),
        "GlobalIPv6PrefixLen": attachment.prefix6.unwrap_or(0),
        "MacAddress": lease.mac,
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// `{"80/tcp": [{"HostIp": "", "HostPort": "8080"}]}`.
pub fn bindings<'a>(ports: impl Iterator<Item = &'a PublishedPort>) -> Value {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in ports {
        for offset in 0..port.count {
            let guest = format!("{}/{}", port.guest + offset, port.protocol);
            // One that is free is not known before the start.
            let host = if port.host == 0 { 0 } else { port.host + offset };
            let address = port.address.map_or("0.0.0.0".to_owned(), |address| address.to_string());
            let binding = json!({ "HostIp": address, "HostPort": host.to_string() });
            all.entry(guest).or_default().push(binding);
        }
    }
    json!(all)
}
