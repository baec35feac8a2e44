//! How an endpoint comes and goes. All of it happens under the lock on the folder of all networks.
//!
//! What is made is written down before: the network's folder, then the lease, whose file name says what
//! the link is called. So whoever is killed between two steps leaves a lease without an owner, from which
//! the next one knows all that may be there.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;

use crate::endpoint::{Endpoint, EndpointKind, EndpointRequest, net4, net6};
use crate::error::NetworkError;
use crate::firewall::Firewall;
use crate::lease::{HeldLease, Lease, Leases, link_of};
use crate::link::namespace::in_namespace;
use crate::link::{Link, Links, Veth, tap};
use crate::mac::MacAddress;
use crate::name::NetworkName;
use crate::networks::{Lock, Networks};
use crate::ports;
use crate::record::NetworkRecord;
use crate::{responder, sysctl};

impl Networks {
    /// Gives an instance a place on a network. The default network is made at its first use.
    ///
    /// # Errors
    /// There is no such network, no address is left, a port is taken, we may not, or the host lacks
    /// something. Nothing is left then.
    pub fn attach(
        &self,
        network: &NetworkName,
        request: EndpointRequest,
    ) -> Result<Endpoint, NetworkError> {
        let lock = self.lock()?;
        let network = self.get_or_default(network, &lock)?;
        let leases = self.leases(&network.name);
        let mut links = Links::new();
        let swept = sweep_leases(&leases, &mut links)?;
        let address = choose_address(&network, &leases, request.address)?;
        let mut ports = request.ports;
        ports::judge(&ports, &network)?;
        let reserved = ports::reserve(&mut ports, network.subnet6.is_some(), false)?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(leases.folder());
        made.map_err(NetworkError::io("create", leases.folder()))?;
        let held = leases.write(Lease {
            owner: request.owner,
            names: request.names,
            address,
            address6: network.address6(address),
            mac: request.mac.unwrap_or(MacAddress::of(address)),
            ports,
        })?;
        let lease = held.lease.clone();
        match self.connect(&network, &lease, swept, &request.kind, &mut links) {
            Ok(taps) => {
                let networks = self.clone();
                Ok(Endpoint { networks, network, held: Some(held), lease, taps, ports: reserved })
            }
            Err(error) => {
                drop(reserved);
                // The first failure is the one to tell.
                let _ = self.give_up(&network, held, &mut links, &lock);
                Err(error)
            }
        }
    }

    fn connect(
        &self,
        network: &NetworkRecord,
        lease: &Lease,
        swept: bool,
        kind: &EndpointKind,
        links: &mut Links,
    ) -> Result<Vec<OwnedFd>, NetworkError> {
        let (bridge, is_new) = self.bridge(network, links)?;
        let publishes = !lease.ports.is_empty();
        if publishes {
            sysctl::set(&sysctl::route_localnet(&network.bridge), "1")?;
        }
        let mut firewall = Firewall::open();
        let done = match is_new || swept {
            true => false,
            false if publishes => firewall.publish(lease)?,
            false => firewall.is_there()?,
        };
        if !done {
            firewall.replace(&self.in_use()?)?;
        }
        responder::ensure(&self.responder, network, &self.runtime(&network.name))?;
        let link = lease.link();
        let taps = match kind {
            EndpointKind::Namespace { namespace, interface } => {
                let namespace = namespace.as_fd();
                let (name, peer) = (link.as_str(), interface.as_str());
                links.add_veth(&Veth { name, bridge, namespace, peer, mac: lease.mac })?;
                in_namespace(namespace, || configure(network, lease, interface))?;
                Vec::new()
            }
            EndpointKind::Tap { queues } => {
                let taps = tap::make(&link, *queues)?;
                links.join(&link, bridge)?;
                taps
            }
        };
        if publishes {
            links.reflect(&link)?;
        }
        Ok(taps)
    }

    /// The network's bridge, and whether it is new.
    fn bridge(
        &self,
        network: &NetworkRecord,
        links: &mut Links,
    ) -> Result<(u32, bool), NetworkError> {
        match links.find(&network.bridge)? {
            Some(link) if !is_bridge_of(network, &link) => {
                let (link, network) = (network.bridge.clone(), network.name.clone());
                return Err(NetworkError::LinkNotOurs { link, network });
            }
            // It is up when it is finished.
            Some(link) if link.is_up => return Ok((link.index, false)),
            // Who made it was killed before it was finished.
            Some(_) => links.remove(&network.bridge)?,
            None => {}
        }
        let taken = self.taken_on_host(links)?;
        network.subnets().try_for_each(|subnet| taken.check(subnet))?;
        let mac = MacAddress::of(network.gateway);
        let bridge = links.add_bridge(&network.bridge, mac.0)?;
        self.set_sysctls(network)?;
        let prefix = network.subnet.prefix_len();
        let own = ipnet::Ipv4Net::new(network.gateway, prefix).unwrap_or(network.subnet);
        links.add_address(bridge, own.into())?;
        if let (Some(subnet), Some(gateway)) = (network.subnet6, network.gateway6()) {
            let own = ipnet::Ipv6Net::new(gateway, subnet.prefix_len()).unwrap_or(subnet);
            links.add_address(bridge, own.into())?;
        }
        links.bring_up(bridge, &network.bridge)?;
        for address in self.leases(&network.name).addresses()? {
            let link = link_of(address);
            if links.find(&link)?.is_some() {
                // Somebody removed the bridge under it.
                tracing::warn!(network = %network.name, link, "its bridge was gone; connected again");
                links.join(&link, bridge)?;
            }
        }
        Ok((bridge, true))
    }

    fn set_sysctls(&self, network: &NetworkRecord) -> Result<(), NetworkError> {
        let setting = |name| sysctl::ipv6(&network.bridge, name);
        match network.subnet6 {
            // Otherwise whoever is on the network reaches services of the host by a link-local address.
            None => sysctl::set(&setting("disable_ipv6"), "1")?,
            // Whoever is on the network could make himself the host's router.
            Some(_) => sysctl::set(&setting("accept_ra"), "0")?,
        }
        if !network.internal && !sysctl::is_on(sysctl::IP_FORWARD) {
            // Written down before: `inspect` tells of what we set.
            let mark = self.forwarding_mark();
            fs::write(&mark, "").map_err(NetworkError::io("write", mark))?;
            sysctl::set(sysctl::IP_FORWARD, "1")?;
        }
        Ok(())
    }

    pub(crate) fn detach(
        &self,
        network: &NetworkRecord,
        held: HeldLease,
    ) -> Result<(), NetworkError> {
        let lock = self.lock()?;
        self.give_up(network, held, &mut Links::new(), &lock)
    }

    fn give_up(
        &self,
        network: &NetworkRecord,
        held: HeldLease,
        links: &mut Links,
        lock: &Lock,
    ) -> Result<(), NetworkError> {
        let leases = self.leases(&network.name);
        remove_lease(&leases, held.lease.address, links)?;
        let publishes = !held.lease.ports.is_empty();
        drop(held);
        self.settle(network, publishes, links, lock)
    }

    /// After leases are gone: the firewall follows, and a network without users is taken down.
    fn settle(
        &self,
        network: &NetworkRecord,
        published: bool,
        links: &mut Links,
        _: &Lock,
    ) -> Result<(), NetworkError> {
        if !self.leases(&network.name).addresses()?.is_empty() {
            return match published {
                true => Firewall::open().replace(&self.in_use()?),
                false => Ok(()),
            };
        }
        let runtime = self.runtime(&network.name);
        responder::stop(network, &runtime)?;
        let bridge = links.find(&network.bridge)?;
        if bridge.is_some_and(|link| is_bridge_of(network, &link)) {
            links.remove(&network.bridge)?;
        }
        // The table is that of the others now; the folder says until then that there may be more to do.
        let others = self.in_use()?.into_iter().filter(|(other, _)| other.name != network.name);
        Firewall::open().replace(&others.collect::<Vec<_>>())?;
        match fs::remove_dir_all(&runtime) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(NetworkError::io("remove", runtime)),
        }
    }

    /// Removes what owners left who were killed: links, addresses, names, ports, and all that networks
    /// without users have on the host. Gives the names of the networks where there was something.
    ///
    /// # Errors
    /// Something cannot be removed.
    pub fn sweep(&self) -> Result<Vec<NetworkName>, NetworkError> {
        let names = self.names_in_use()?;
        if names.is_empty() {
            return Ok(names);
        }
        let lock = self.lock()?;
        let mut swept = Vec::new();
        for name in names {
            let leases = self.leases(&name);
            let mut links = Links::new();
            let found = sweep_leases(&leases, &mut links)?;
            let over = found || leases.addresses()?.is_empty();
            // Without a record it is not ours: another data folder's.
            if let (true, Ok(record)) = (over, self.get(&name)) {
                self.settle(&record, true, &mut links, &lock)?;
                swept.push(name);
            }
        }
        Ok(swept)
    }

    /// Whose endpoints a network has, after those of the dead are gone.
    pub(crate) fn users_left(
        &self,
        network: &NetworkRecord,
        lock: &Lock,
    ) -> Result<Vec<String>, NetworkError> {
        let leases = self.leases(&network.name);
        if !self.runtime(&network.name).exists() {
            return Ok(Vec::new());
        }
        let mut links = Links::new();
        sweep_leases(&leases, &mut links)?;
        let left = leases.addresses()?;
        if left.is_empty() {
            self.settle(network, true, &mut links, lock)?;
        }
        let owner = |address| match leases.read(address) {
            Some(lease) => lease.owner,
            None => address.to_string(),
        };
        Ok(left.into_iter().map(owner).collect())
    }
}

/// By its address a bridge is known for ours: it has it from the first moment.
fn is_bridge_of(network: &NetworkRecord, link: &Link) -> bool {
    link.mac == Some(MacAddress::of(network.gateway).0) && link.kind.as_deref() == Some("bridge")
}

/// Removes leases without an owner, and says whether there were any.
fn sweep_leases(leases: &Leases, links: &mut Links) -> Result<bool, NetworkError> {
    let mut found = false;
    for address in leases.addresses()? {
        if !leases.is_held(address)? {
            remove_lease(leases, address, links)?;
            found = true;
        }
    }
    Ok(found)
}

fn remove_lease(leases: &Leases, address: Ipv4Addr, links: &mut Links) -> Result<(), NetworkError> {
    links.remove(&link_of(address))?;
    leases.remove(address)
}

/// An address that nobody has: the one that is wanted, or the next after the one that was given last, so
/// that who still remembers a former owner does not take the new one for him.
fn choose_address(
    network: &NetworkRecord,
    leases: &Leases,
    wanted: Option<Ipv4Addr>,
) -> Result<Ipv4Addr, NetworkError> {
    let mut taken: Vec<u32> = leases.addresses()?.into_iter().map(Ipv4Addr::to_bits).collect();
    taken.push(network.gateway.to_bits());
    let (first, last) = network.range();
    if let Some(address) = wanted {
        let refuse = |why: &str| {
            let (network, why) = (network.name.clone(), why.to_owned());
            Err(NetworkError::Address { address, network, why })
        };
        let bits = address.to_bits();
        return match leases.read(address) {
            Some(lease) => refuse(&format!("it is `{}`'s", lease.owner)),
            None if bits == network.gateway.to_bits() => refuse("it is the gateway's"),
            None if taken.contains(&bits) => refuse("it is taken"),
            None if !(first..=last).contains(&bits) => {
                refuse(&format!("it is no host's of {}", network.subnet))
            }
            None => Ok(address),
        };
    }
    let before = leases.last().map_or(first, Ipv4Addr::to_bits).clamp(first, last);
    taken.sort_unstable();
    let mut free = (before + 1..=last).chain(first..=before);
    // As many steps as addresses are taken in a row.
    free.find(|bits| taken.binary_search(bits).is_err()).map(Ipv4Addr::from_bits).ok_or_else(|| {
        let (subnet, count) = (network.subnet.into(), network.capacity());
        NetworkError::Exhausted { network: network.name.clone(), subnet, count }
    })
}

/// In the instance's namespace.
fn configure(network: &NetworkRecord, lease: &Lease, interface: &str) -> Result<(), NetworkError> {
    let mut links = Links::new();
    let missing =
        || NetworkError::kernel("find the link", interface)(io::ErrorKind::NotFound.into());
    let index = links.find(interface)?.ok_or_else(missing)?.index;
    links.add_address(index, net4(network, lease).into())?;
    if let Some(address) = net6(network, lease) {
        links.add_address(index, address.into())?;
    }
    links.bring_up(index, interface)?;
    if !network.internal {
        links.add_default_route(network.gateway.into())?;
        if let Some(gateway) = network.gateway6() {
            links.add_default_route(gateway.into())?;
        }
    }
    Ok(())
}
