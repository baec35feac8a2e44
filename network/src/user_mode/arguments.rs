//! What pasta and passt are told (passt(1)).

use std::fmt::Write;

use super::{ADDRESS, GATEWAY, INTERFACE, NAME_SERVER, PREFIX};
use crate::lease::Lease;
use crate::ports::{Protocol, PublishedPort};

/// Of pasta, whose standard input is the network namespace, and whose standard output the user namespace that owns it.
/// By these numbers, as later versions close all other descriptors before they look at the options.
pub(super) fn for_namespace(lease: &Lease) -> Vec<String> {
    let mac = lease.mac.to_string();
    let own = [
        "--netns",
        "/proc/self/fd/0",
        "--userns",
        "/proc/self/fd/1",
        // That is no file which could be removed.
        "--no-netns-quit",
        "--config-net",
        "--ns-ifname",
        INTERFACE,
        "--ns-mac-addr",
        &mac,
        // Nothing of the host's loopback is in the namespace's.
        "--tcp-ns",
        "none",
        "--udp-ns",
        "none",
    ];
    [common(lease), own.map(str::to_owned).to_vec()].concat()
}

/// Of passt, whose standard input is its end of the machine's socket.
pub(super) fn for_machine(lease: &Lease, mtu: u16) -> Vec<String> {
    let own = ["--fd".to_owned(), "0".to_owned(), "--mtu".to_owned(), mtu.to_string()];
    [common(lease), own.to_vec()].concat()
}

fn common(lease: &Lease) -> Vec<String> {
    let [address, gateway, name_server] =
        [ADDRESS, GATEWAY, NAME_SERVER].map(|address| address.to_string());
    let prefix = PREFIX.to_string();
    let fixed = [
        "--foreground",
        "--quiet",
        // Written when all is ready, which is how we know (`process.rs`).
        "--pid",
        "/proc/self/fd/2",
        "--ipv4-only",
        "--address",
        &address,
        "--netmask",
        &prefix,
        "--gateway",
        &gateway,
        "--dns-forward",
        &name_server,
        // By default the gateway's address stands for the host's loopback, with all that listens there for nobody else.
        "--no-map-gw",
    ];
    let mut arguments: Vec<String> = fixed.map(str::to_owned).to_vec();
    for (option, protocol) in [("--tcp-ports", Protocol::Tcp), ("--udp-ports", Protocol::Udp)] {
        let ports = lease.ports.iter().filter(|port| port.protocol == protocol).map(forward);
        let mut ports: Vec<String> = ports.collect();
        if ports.is_empty() {
            ports.push("none".to_owned());
        }
        for port in ports {
            arguments.extend([option.to_owned(), port]);
        }
    }
    arguments
}

/// `[ADDRESS/]HOST[-HOST]:GUEST[-GUEST]`
fn forward(port: &PublishedPort) -> String {
    let mut text = port.address.map_or(String::new(), |address| format!("{address}/"));
    let mut range = |first: u16| {
        let _ = match port.count {
            1 => write!(text, "{first}"),
            count => write!(text, "{first}-{}", first + (count - 1)),
        };
        text.push(':');
    };
    range(port.host);
    range(port.guest);
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mac::MacAddress;

    #[test]
    fn ports_go_by_their_protocol_and_what_has_none_says_so() {
        let lease = |ports: &[&str]| Lease {
            owner: "web".into(),
            names: Vec::new(),
            address: ADDRESS,
            address6: None,
            mac: MacAddress::of(ADDRESS),
            ports: ports.iter().map(|port| port.parse().unwrap()).collect(),
        };
        let told = |ports: &[&str]| {
            let all = for_machine(&lease(ports), 1500).join(" ");
            let begin = all.find("--tcp-ports").unwrap();
            all[begin..all.find(" --fd").unwrap()].to_owned()
        };
        assert_eq!(told(&[]), "--tcp-ports none --udp-ports none");
        assert_eq!(
            told(&["8080:80", "127.0.0.1:8000-8002:90-92", "53:53/udp"]),
            "--tcp-ports 8080:80 --tcp-ports 127.0.0.1/8000-8002:90-92 --udp-ports 53:53"
        );
        for all in [for_machine(&lease(&[]), 1500), for_namespace(&lease(&[]))] {
            assert!(all.contains(&"--no-map-gw".to_owned()), "{all:?}");
        }
    }
}
