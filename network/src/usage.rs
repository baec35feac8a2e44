//! What `inspect` tells of a network beside its record.

use serde::Serialize;

use crate::error::NetworkError;
use crate::firewall::{Hook, dropping_chains};
use crate::lease::{Lease, leases_in};
use crate::link::Links;
use crate::name::NetworkName;
use crate::networks::Networks;
use crate::record::NetworkRecord;
use crate::sysctl;

/// A network, who is on it, and what it has on the host.
#[derive(Debug, Serialize)]
pub struct NetworkUsage {
    /// What is written down of it.
    #[serde(flatten)]
    pub network: NetworkRecord,
    /// Who is on it.
    pub endpoints: Vec<Lease>,
    /// What it needs of the host.
    pub host: HostFacts,
}

/// What a network changes on the host, all that it changes, and what stands in its way.
#[derive(Debug, Serialize)]
pub struct HostFacts {
    /// Links of ours that are there now.
    pub links: Vec<String>,
    /// The nftables table that is ours.
    pub nftables: &'static str,
    /// Sysctls that we set while the network is used, and to what.
    pub sysctls: Vec<String>,
    /// Whether the host forwards IPv4, which a network that is not internal makes it do. The kernel then
    /// has `forwarding` of each interface on, and `accept_redirects` off.
    pub ip_forward: bool,
    /// Whether that was us. It is not undone: others may count on it by then.
    pub ip_forward_set_by_isolab: bool,
    /// Whether the host forwards IPv6. We do not turn it on: a host that does no longer hears router
    /// advertisements. Without it, IPv6 addresses are reached from the host and the network only.
    pub ipv6_forward: bool,
    /// Chains of others that drop what is forwarded unless their rules accept it: none, or the network
    /// may not reach the world. Unknown without CAP_NET_ADMIN.
    pub forward_dropped_by: Option<Vec<String>>,
    /// Likewise for what is sent to the host: names may not be answered.
    pub input_dropped_by: Option<Vec<String>>,
}

impl Networks {
    /// What a network is and has now.
    ///
    /// # Errors
    /// There is none of that name, or the host cannot be looked at.
    pub fn usage(&self, name: &NetworkName) -> Result<NetworkUsage, NetworkError> {
        let network = self.get(name)?;
        let endpoints = leases_in(self.leases(name).folder())?;
        let host = self.host_facts(&network, &endpoints)?;
        Ok(NetworkUsage { network, endpoints, host })
    }

    /// How many endpoints a network has.
    ///
    /// # Errors
    /// Its leases cannot be read.
    pub fn endpoints(&self, name: &NetworkName) -> Result<usize, NetworkError> {
        Ok(self.leases(name).addresses()?.len())
    }

    fn host_facts(
        &self,
        network: &NetworkRecord,
        endpoints: &[Lease],
    ) -> Result<HostFacts, NetworkError> {
        let mut links = Links::new();
        let mut found = Vec::new();
        for name in [network.bridge.clone()].into_iter().chain(endpoints.iter().map(Lease::link)) {
            if links.find(&name)?.is_some() {
                found.push(name);
            }
        }
        let bridge = &network.bridge;
        let mut sysctls = vec![format!("{}=1", sysctl::route_localnet(bridge))];
        sysctls.push(match network.subnet6 {
            None => format!("{}=1", sysctl::ipv6(bridge, "disable_ipv6")),
            Some(_) => format!("{}=0", sysctl::ipv6(bridge, "accept_ra")),
        });
        if !network.internal {
            sysctls.push(format!("{}=1", sysctl::IP_FORWARD));
        }
        let ip_forward = sysctl::is_on(sysctl::IP_FORWARD);
        Ok(HostFacts {
            links: found,
            nftables: "inet isolab",
            sysctls,
            ip_forward,
            ip_forward_set_by_isolab: ip_forward && self.forwarding_mark().exists(),
            ipv6_forward: sysctl::is_on(sysctl::IPV6_FORWARD),
            input_dropped_by: dropping_chains(Hook::Input).ok(),
            forward_dropped_by: dropping_chains(Hook::Forward).ok(),
        })
    }
}
