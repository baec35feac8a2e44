//! How an instance is connected. Who makes networks is not known here: what is on the host's side of an instance's
//! interfaces is ready when the instance is made.

use std::net::IpAddr;
use std::os::fd::OwnedFd;

use crate::error::IsolationError;
use crate::level::Level;
use crate::security::UserAndNetwork;
use crate::tap_network::TapNetwork;

/// How an instance is connected.
#[derive(Debug)]
pub struct Network {
    /// By what.
    pub link: Link,
    /// What its own name stands for; without any, its loopback address.
    pub addresses: Vec<IpAddr>,
    /// Who answers names.
    pub name_servers: Vec<IpAddr>,
}

/// What connects an instance.
#[derive(Debug)]
pub enum Link {
    /// Nothing: it has its loopback interface.
    None,
    /// The host's own interfaces, which only those levels can have that share its kernel.
    Host,
    /// Interfaces in a network namespace, which is set up; for those levels.
    Namespace(OwnedFd),
    /// The same, for a container whose user namespace it belongs to.
    Owned(UserAndNetwork),
    /// Taps, on which the guest sets its interfaces up; for the others.
    Taps(Vec<TapNetwork>),
}

impl Network {
    /// Without an address of its own, and without names.
    pub fn of(link: Link) -> Self {
        Self { link, addresses: Vec::new(), name_servers: Vec::new() }
    }

    /// What an instance has of whose network nothing is said: a plain process is in its host's, as its level has no
    /// wall that it did not ask for, and no other pays for what it does not use.
    pub fn default_of(level: Level) -> Self {
        Self::of(match level {
            Level::Process => Link::Host,
            _ => Link::None,
        })
    }

    /// A tap that the operator has set up.
    pub fn of_tap(tap: TapNetwork) -> Self {
        let addresses = tap.interface.addresses.iter().map(|it| it.address).collect();
        Self { link: Link::Taps(vec![tap]), addresses, name_servers: Vec::new() }
    }

    /// Whether the level can have it.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(&self, level: Level) -> Result<(), IsolationError> {
        let why = match (&self.link, level.is_virtual_machine()) {
            (Link::Host, true) => "a virtual machine cannot share the host's interfaces",
            (Link::Owned(_), _) if level != Level::Container => {
                "a user namespace's network is a container's"
            }
            (Link::Namespace(_), true) => "a virtual machine has no network namespace",
            (Link::Taps(_), false) => "a tap is for the levels paravirt and fullvirt",
            _ => return Ok(()),
        };
        Err(IsolationError::Setting { field: "network", why: why.to_owned() })
    }
}
