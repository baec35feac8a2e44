//! A network for who may change nothing of the host's: a program of that user's own opens sockets on the host for what
//! the instance sends, and listens for what is published. pasta(1) does so for a network namespace, passt(1) for a
//! virtual machine; both are one executable, of Debian's package `passt`.
//!
//! Each instance is alone on such a network, so that all have the same addresses: those that slirp has had since
//! the nineties. The host's loopback cannot be reached from it.

mod arguments;
mod process;
mod trial;

use std::env;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use self::process::Connector;
use crate::error::NetworkError;
use crate::lease::Lease;
use crate::mac::MacAddress;
use crate::name::{HostName, NetworkName};
use crate::ports::{PublishedPort, reserve};
/// The instance's interface.
pub const INTERFACE: &str = "eth0";

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 100);
const PREFIX: u8 = 24;
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// What is sent there goes to the first of the host's resolvers.
const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);

/// `linux/nsfs.h`: `_IO(0xb7, 1)`.
const NS_GET_USERNS: libc::c_ulong = 0xb701;

/// The network of one instance. It ends when this is dropped, and with the thread that connected the instance.
#[derive(Debug)]
pub struct UserMode {
    lease: Lease,
    /// They keep others from listening there until the program does.
    reserved: Vec<OwnedFd>,
    connector: Option<Connector>,
}

impl UserMode {
    /// A network for `owner`, who is found there by none of its names but from inside.
    ///
    /// # Errors
    /// A port is taken, privileged, or the address is not the host's.
    pub fn new(
        owner: &str,
        names: Vec<HostName>,
        mut ports: Vec<PublishedPort>,
    ) -> Result<Self, NetworkError> {
        if let Some(port) = ports.iter().find(|it| it.address.is_some_and(|it| it.is_ipv6())) {
            let why = "it has no IPv6 addresses";
            let network = NetworkName::user_mode();
            return Err(NetworkError::PortAddress { port: port.to_string(), network, why });
        }
        let reserved = reserve(&mut ports, false, true)?;
        let mac = MacAddress::of(ADDRESS);
        let owner = owner.to_owned();
        let lease = Lease { owner, names, address: ADDRESS, address6: None, mac, ports };
        Ok(Self { lease, reserved, connector: None })
    }

    /// What the instance has. Ports that were the kernel's to choose are chosen.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// How many bits of its address are the network's.
    pub fn prefix(&self) -> u8 {
        PREFIX
    }

    /// Where everything goes that is not on the network.
    pub fn gateway(&self) -> IpAddr {
        IpAddr::V4(GATEWAY)
    }

    /// Who answers names.
    pub fn name_server(&self) -> IpAddr {
        IpAddr::V4(NAME_SERVER)
    }

    /// Gives a network namespace its interface, with addresses and routes. The namespace belongs to a user namespace
    /// that the caller has made.
    ///
    /// # Errors
    /// There is no pasta, or what it says.
    pub fn enter(&mut self, namespace: BorrowedFd<'_>) -> Result<(), NetworkError> {
        let program = find("pasta")?;
        let failed = NetworkError::kernel("find the owner of", "a network namespace");
        // SAFETY: takes no argument, and gives a new descriptor.
        let owner = unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS) };
        let owner = Errno::result(owner).map_err(|errno| failed(errno.into()))?;
        // SAFETY: the kernel has just made it, for us.
        let owner = unsafe { OwnedFd::from_raw_fd(owner) };
        let namespace = namespace.try_clone_to_owned();
        let namespace =
            namespace.map_err(NetworkError::kernel("duplicate", "a network namespace"))?;
        let arguments = arguments::for_namespace(&self.lease);
        self.reserved.clear();
        let streams = [Stdio::from(namespace), Stdio::from(owner)];
        self.connector = Some(Connector::start(&program, &arguments, streams)?);
        Ok(())
    }

    /// The socket of a virtual machine: a stream of Ethernet frames, the length in front of each as a 32-bit
    /// big-endian number. `mtu`: what the guest's interface has, in bytes.
    ///
    /// # Errors
    /// There is no passt, or what it says.
    pub fn socket(&mut self, mtu: u16) -> Result<OwnedFd, NetworkError> {
        let program = find("passt")?;
        let pair = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC);
        let pair = pair.map_err(|errno| {
            NetworkError::kernel("make a pair of sockets for", "passt")(errno.into())
        });
        let (ours, theirs) = pair?;
        let arguments = arguments::for_machine(&self.lease, mtu);
        self.reserved.clear();
        let streams = [Stdio::from(theirs), Stdio::null()];
        self.connector = Some(Connector::start(&program, &arguments, streams)?);
        Ok(ours)
    }
}

/// Whether the programs are here.
///
/// # Errors
/// The one that is not.
pub fn find_user_mode() -> Result<(), NetworkError> {
    ["pasta", "passt"].into_iter().try_for_each(|program| find(program).map(drop))
}

/// Whether such networks can be had, found by making one.
///
/// # Errors
/// Why not.
pub fn try_user_mode() -> Result<(), NetworkError> {
    find_user_mode()?;
    trial::in_new_namespace(|namespace| {
        UserMode::new("check", Vec::new(), Vec::new())?.enter(namespace)
    })
}

fn find(program: &'static str) -> Result<PathBuf, NetworkError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).map(|folder| folder.join(program));
    places.find(|place| place.is_file()).ok_or(NetworkError::NoUserMode { program })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_until_the_program_has_it_and_ipv6_is_refused() {
        let free: PublishedPort = "127.0.0.1::80".parse().unwrap();
        let network = UserMode::new("web", Vec::new(), vec![free]).unwrap();
        let [chosen] = &network.lease().ports[..] else { panic!("{network:?}") };
        assert_ne!(chosen.host, 0);
        let taken = UserMode::new("other", Vec::new(), vec![chosen.clone()]).unwrap_err();
        assert!(matches!(taken, NetworkError::PortTaken { .. }), "{taken}");
        let six: PublishedPort = "[::1]:8080:80".parse().unwrap();
        let refused = UserMode::new("web", Vec::new(), vec![six]).unwrap_err().to_string();
        assert!(refused.contains("network `pasta`: it has no IPv6"), "{refused}");
    }
}
