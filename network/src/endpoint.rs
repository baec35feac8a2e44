//! An endpoint: the place of one instance on a network.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use ipnet::{Ipv4Net, Ipv6Net};

use crate::error::NetworkError;
use crate::lease::{HeldLease, Lease};
use crate::mac::MacAddress;
use crate::name::HostName;
use crate::networks::Networks;
use crate::ports::PublishedPort;
use crate::record::NetworkRecord;

/// What an endpoint is to be like.
#[derive(Debug)]
pub struct EndpointRequest {
    /// Of whom people speak: the instance's name.
    pub owner: String,
    /// By what names others on the network find it.
    pub names: Vec<HostName>,
    /// Its address; without, one that is free.
    pub address: Option<Ipv4Addr>,
    /// Its Ethernet address; without, one that follows from the address.
    pub mac: Option<MacAddress>,
    /// What reaches it from outside.
    pub ports: Vec<PublishedPort>,
    /// What it looks like to its user.
    pub kind: EndpointKind,
}

/// What an endpoint looks like to its user.
#[derive(Debug)]
pub enum EndpointKind {
    /// An interface in a network namespace, up and with its addresses and routes.
    Namespace {
        /// The namespace. It has to live as long as the endpoint.
        namespace: OwnedFd,
        /// The interface's name there, at most 15 bytes.
        interface: String,
    },
    /// A tap, with virtio-net's header before each frame. Addresses are the guest's to set.
    Tap {
        /// How many queues, each with a descriptor.
        queues: u16,
    },
}

/// The place of one instance on a network. It is given up when dropped; only [`Endpoint::detach`] can
/// say that this failed.
#[derive(Debug)]
pub struct Endpoint {
    pub(crate) networks: Networks,
    pub(crate) network: NetworkRecord,
    pub(crate) held: Option<HeldLease>,
    pub(crate) lease: Lease,
    pub(crate) taps: Vec<OwnedFd>,
    /// They keep others from listening there.
    pub(crate) ports: Vec<OwnedFd>,
}

impl Endpoint {
    /// What it has, as others see it. Ports that were the kernel's to choose are chosen.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The network.
    pub fn network(&self) -> &NetworkRecord {
        &self.network
    }

    /// Its address, and the network's prefix.
    pub fn address(&self) -> Ipv4Net {
        net4(&self.network, &self.lease)
    }

    /// Its IPv6 address, where the network has some.
    pub fn address6(&self) -> Option<Ipv6Net> {
        net6(&self.network, &self.lease)
    }

    /// Where everything goes that is not on the network; nowhere, where that is internal.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        (!self.network.internal).then_some(self.network.gateway)
    }

    /// Likewise for IPv6.
    pub fn gateway6(&self) -> Option<Ipv6Addr> {
        self.network.gateway6().filter(|_| !self.network.internal)
    }

    /// Who answers names.
    pub fn name_server(&self) -> Ipv4Addr {
        self.network.gateway
    }

    /// A tap's descriptors, one for each queue. The tap is gone with the last copy of the last one.
    pub fn taps(&self) -> &[OwnedFd] {
        &self.taps
    }

    /// A descriptor that keeps the endpoint, for whoever looks after the instance when we are killed.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn owner_lock(&self) -> io::Result<OwnedFd> {
        match &self.held {
            Some(held) => held.lock.try_clone().map(OwnedFd::from),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Gives it up: removes its link, address, names and ports, and what the network had on the host if
    /// it was the last.
    ///
    /// # Errors
    /// What could not be removed. The next command tries again.
    pub fn detach(mut self) -> Result<(), NetworkError> {
        self.release()
    }

    fn release(&mut self) -> Result<(), NetworkError> {
        let Some(held) = self.held.take() else { return Ok(()) };
        self.taps.clear();
        self.ports.clear();
        self.networks.detach(&self.network, held)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Err(error) = self.release() {
            // Nobody is left to tell but the log; the next command sweeps.
            tracing::warn!(%error, network = %self.network.name, "an endpoint is left behind");
        }
    }
}

pub(crate) fn net4(network: &NetworkRecord, lease: &Lease) -> Ipv4Net {
    let prefix = network.subnet.prefix_len();
    // The prefix is a subnet's, so that it is valid.
    Ipv4Net::new(lease.address, prefix).unwrap_or_else(|_| lease.address.into())
}

pub(crate) fn net6(network: &NetworkRecord, lease: &Lease) -> Option<Ipv6Net> {
    let prefix = network.subnet6?.prefix_len();
    Ipv6Net::new(lease.address6?, prefix).ok()
}
