//! An instance's places on networks: taken, told, given up.

use std::fs::{File, OpenOptions};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use isolab_isolation::{
    Interface, InterfaceAddress, Level, Limits, Link, Network, OpenStream, OpenTap, Request,
    TapNetwork, UserAndNetwork,
};
use isolab_network::{
    Endpoint, EndpointKind, EndpointRequest, INTERFACE, Lease, NetworkName, NetworkOption,
    UserMode, bring_up_loopback, new_namespace,
};
use serde::{Deserialize, Serialize};

use super::{Asked, Networking, open};
use crate::error::InstanceError;

/// More queues than that of a tap have nothing to do: each is a processor's of the guest.
const MAX_QUEUES: u32 = 8;
/// What is done to a network namespace's descriptor, for errors.
const DUPLICATE: &str = "duplicate a network namespace's descriptor";
/// What an Ethernet carries, in bytes; a PC's controller knows no more.
const ETHERNET_MTU: u16 = 1500;

/// The place that an instance has on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The network.
    pub network: NetworkName,
    /// What its interface is called inside.
    pub interface: String,
    /// Its addresses, names and ports.
    pub lease: Lease,
    /// How many bits of its IPv4 address are the network's.
    pub prefix: u8,
    /// Likewise of its IPv6 address, if it has one.
    pub prefix6: Option<u8>,
    /// Where what is not for the network goes; at most one of each family.
    pub gateways: Vec<IpAddr>,
}

/// An instance's places on networks, as long as it runs. They are given up when this is dropped; only
/// [`Connected::disconnect`] says what went wrong with that.
#[derive(Debug, Default)]
pub struct Connected {
    endpoints: Vec<Endpoint>,
    /// In their place for who is not root; with the machine's socket, where it is one's.
    user_mode: Option<(UserMode, Option<OwnedFd>)>,
    /// What there is to tell of them.
    pub attachments: Vec<Attachment>,
}

impl Networking {
    /// Connects the instance of this name and id, and says how.
    ///
    /// # Errors
    /// As [`Networking::check`], or a network has no place for it. It is on none of them then.
    pub fn connect(
        &self,
        level: Level,
        (name, id): (&str, &str),
        request: &Request,
    ) -> Result<(Network, Connected), InstanceError> {
        let options = match self.understand()? {
            Asked::Networks(options) => options,
            Asked::Default => return Ok((Network::default_of(level), Connected::default())),
            Asked::None => return Ok((Network::of(Link::None), Connected::default())),
            Asked::Host => return Ok((Network::of(Link::Host), Connected::default())),
            Asked::Tap(tap) => return Ok((Network::of_tap(*tap), Connected::default())),
            Asked::UserMode => {
                let names = self.names(name, id, Vec::new());
                return connect_user_mode(level, UserMode::new(name, names, self.ports.clone())?);
            }
        };
        let networks = open()?;
        let mut ids = None;
        let namespace = match level {
            Level::Paravirt | Level::Fullvirt => None,
            // Root of a user namespace has rights in networks that belong to it alone.
            Level::Container if request.security.has_user_namespace() => {
                let made = UserAndNetwork::make()?;
                bring_up_loopback(&made.network)?;
                let network = made.network.try_clone();
                ids = Some(made);
                Some(network.map_err(InstanceError::host(DUPLICATE))?)
            }
            Level::Process | Level::Container => Some(new_namespace()?),
        };
        let mut connected = Connected::default();
        for (index, option) in options.into_iter().enumerate() {
            let NetworkOption::Named { network, address, mac, aliases } = option else { continue };
            let interface = format!("eth{index}");
            let kind = match &namespace {
                Some(namespace) => EndpointKind::Namespace {
                    namespace: namespace.try_clone().map_err(InstanceError::host(DUPLICATE))?,
                    interface: interface.clone(),
                },
                None => EndpointKind::Tap { queues: queues(level, request.limits) },
            };
            let endpoint = networks.attach(
                &network,
                EndpointRequest {
                    owner: name.to_owned(),
                    names: self.names(name, id, aliases),
                    address,
                    mac,
                    ports: if index == 0 { self.ports.clone() } else { Vec::new() },
                    kind,
                },
            )?;
            connected.attachments.push(Attachment::of(&endpoint, interface));
            connected.endpoints.push(endpoint);
        }
        let mut network = connected.network(level, namespace);
        if let Some(ids) = ids {
            network.link = Link::Owned(ids);
        }
        Ok((network, connected))
    }
}

/// A machine has its socket now; what has a network namespace is entered when that is there ([`Connected::enter`]).
fn connect_user_mode(
    level: Level,
    mut user_mode: UserMode,
) -> Result<(Network, Connected), InstanceError> {
    let attachment = Attachment {
        network: NetworkName::user_mode(),
        interface: INTERFACE.to_owned(),
        lease: user_mode.lease().clone(),
        prefix: user_mode.prefix(),
        prefix6: None,
        gateways: vec![user_mode.gateway()],
    };
    let mut network = Network::of(Link::None);
    network.addresses = attachment.addresses().map(|(address, _)| address).collect();
    network.name_servers = vec![user_mode.name_server()];
    let socket = match level.is_virtual_machine() {
        false => None,
        true => Some(user_mode.socket(ETHERNET_MTU)?),
    };
    if let Some(socket) = &socket {
        network.link = Link::Taps(vec![TapNetwork::from(OpenStream {
            socket: socket.as_fd(),
            mac: attachment.lease.mac.0,
            mtu: ETHERNET_MTU,
            interface: attachment.set_up(attachment.gateways.clone()),
        })]);
    }
    let (attachments, user_mode) = (vec![attachment], Some((user_mode, socket)));
    Ok((network, Connected { attachments, user_mode, ..Connected::default() }))
}

/// A queue for each processor of a guest whose controller has several.
fn queues(level: Level, limits: Limits) -> u16 {
    let cpus = limits.cpus.map_or(1, |cpus| cpus.ceil() as u32);
    match level {
        Level::Paravirt => cpus.clamp(1, MAX_QUEUES) as u16,
        _ => 1,
    }
}

/// Whether the host's kernel can move a guest's frames by itself. Tried once, and kept open: at a close of this device
/// the kernel waits for RCU, twice, for some 8 ms.
fn has_vhost() -> bool {
    static DEVICE: OnceLock<Option<File>> = OnceLock::new();
    let open = || OpenOptions::new().read(true).write(true).open("/dev/vhost-net").ok();
    DEVICE.get_or_init(open).is_some()
}

impl Attachment {
    fn of(endpoint: &Endpoint, interface: String) -> Self {
        let gateways = [endpoint.gateway().map(IpAddr::V4), endpoint.gateway6().map(IpAddr::V6)];
        Self {
            network: endpoint.network().name.clone(),
            interface,
            lease: endpoint.lease().clone(),
            prefix: endpoint.address().prefix_len(),
            prefix6: endpoint.address6().map(|address| address.prefix_len()),
            gateways: gateways.into_iter().flatten().collect(),
        }
    }

    /// Its addresses, IPv4 first.
    pub fn addresses(&self) -> impl Iterator<Item = (IpAddr, u8)> {
        let v6 = self.lease.address6.zip(self.prefix6);
        let v6 = v6.map(|(address, prefix)| (IpAddr::V6(address), prefix));
        std::iter::once((IpAddr::V4(self.lease.address), self.prefix)).chain(v6)
    }

    /// The host's end of its link; none where a program of the user's takes its place.
    pub fn host_link(&self) -> Option<String> {
        (self.network != NetworkName::user_mode()).then(|| self.lease.link())
    }

    /// How a guest sets its interface up.
    fn set_up(&self, gateways: Vec<IpAddr>) -> Interface {
        let address = |(address, prefix)| InterfaceAddress { address, prefix };
        Interface { addresses: self.addresses().map(address).collect(), gateways }
    }
}

impl Connected {
    /// Connects the network namespace that was made with the instance, where it is still to be: before the instance is
    /// started.
    ///
    /// # Errors
    /// The program that connects instances without root is missing, or what it says.
    pub fn enter(&mut self, namespace: Option<BorrowedFd<'_>>) -> Result<(), InstanceError> {
        match (&mut self.user_mode, namespace) {
            (Some((user_mode, None)), Some(namespace)) => Ok(user_mode.enter(namespace)?),
            _ => Ok(()),
        }
    }

    fn network(&self, level: Level, namespace: Option<OwnedFd>) -> Network {
        let servers = self.endpoints.iter().map(|it| IpAddr::V4(it.name_server()));
        let addresses = self.attachments.iter().flat_map(Attachment::addresses);
        Network {
            addresses: addresses.map(|(address, _)| address).collect(),
            name_servers: servers.collect(),
            link: match namespace {
                Some(namespace) => Link::Namespace(namespace),
                None => Link::Taps(self.taps(level)),
            },
        }
    }

    fn taps(&self, level: Level) -> Vec<TapNetwork> {
        let vhost = level == Level::Paravirt && has_vhost();
        // Of several ways out the first is taken; of each family one.
        let mut ways: Vec<IpAddr> = Vec::new();
        let mut taps = Vec::new();
        for (endpoint, attachment) in self.endpoints.iter().zip(&self.attachments) {
            let is_new = |way: &&IpAddr| ways.iter().all(|it| it.is_ipv4() != way.is_ipv4());
            let gateways: Vec<IpAddr> =
                attachment.gateways.iter().filter(is_new).copied().collect();
            ways.extend(&gateways);
            taps.push(TapNetwork::from(OpenTap {
                link: attachment.lease.link(),
                queues: endpoint.taps(),
                mac: attachment.lease.mac.0,
                interface: attachment.set_up(gateways),
                vhost,
            }));
        }
        taps
    }

    /// Gives all places up.
    ///
    /// # Errors
    /// The first one that could not be given up; the others are all the same.
    pub fn disconnect(self) -> Result<(), InstanceError> {
        let mut result = Ok(());
        for endpoint in self.endpoints {
            let detached = endpoint.detach();
            result = result.and(detached);
        }
        Ok(result?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_a_queue_for_each_processor() {
        let limits = |cpus| Limits { cpus, ..Limits::default() };
        assert_eq!(queues(Level::Paravirt, limits(None)), 1);
        assert_eq!(queues(Level::Paravirt, limits(Some(2.5))), 3);
        assert_eq!(queues(Level::Paravirt, limits(Some(100.0))), 8);
        assert_eq!(queues(Level::Fullvirt, limits(Some(4.0))), 1);
    }
}
