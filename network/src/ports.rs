//! Published ports: what reaches a port of the host goes to one of an endpoint.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket,
    sockopt,
};
use serde::{Deserialize, Serialize};

use crate::error::NetworkError;
use crate::record::NetworkRecord;

/// Ports of one endpoint. Each has a descriptor, of which a process may have 1024.
pub(crate) const MAX_PORTS: usize = 512;

/// What carries a port's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One `-p`: `[IP:][HOST]:GUEST[/udp]`, or ranges `8000-8010:9000-9010`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The host's address; without one, all of them.
    #[serde(rename = "host_ip")]
    pub address: Option<IpAddr>,
    /// The first port of the host; 0 is one that is free.
    #[serde(rename = "host_port")]
    pub host: u16,
    /// The first port of the endpoint.
    #[serde(rename = "container_port")]
    pub guest: u16,
    /// How many ports one after the other, at least 1.
    #[serde(rename = "range")]
    pub count: u16,
    /// What carries them.
    pub protocol: Protocol,
}

/// What cannot be published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no port to publish ([IP:][HOST]:GUEST[/tcp|/udp], each a port or a range): {why}"
)]
pub struct BadPort {
    text: String,
    why: &'static str,
}

impl FromStr for PublishedPort {
    type Err = BadPort;

    fn from_str(text: &str) -> Result<Self, BadPort> {
        let bad = |why| BadPort { text: text.to_owned(), why };
        let (rest, protocol) = match text.rsplit_once('/') {
            None => (text, Protocol::Tcp),
            Some((rest, "tcp")) => (rest, Protocol::Tcp),
            Some((rest, "udp")) => (rest, Protocol::Udp),
            Some(_) => return Err(bad("the protocol is tcp or udp")),
        };
        let (rest, guest) = rest.rsplit_once(':').unwrap_or(("", rest));
        let (address, host) = match rest.rsplit_once(':') {
            None => (None, rest),
            Some((address, host)) => {
                let plain = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let address = match plain {
                    Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::V6).ok(),
                    None => address.parse::<Ipv4Addr>().map(IpAddr::V4).ok(),
                };
                let expected = "the address is an IPv4 address, or an IPv6 address in brackets";
                (Some(address.ok_or_else(|| bad(expected))?), host)
            }
        };
        let range = |text| parse_range(text).ok_or_else(|| bad("a port is 1 to 65535"));
        let (guest, count) = range(guest)?;
        let (host, host_count) = if host.is_empty() { (0, 1) } else { range(host)? };
        if host_count != count {
            return Err(bad("both ranges have as many ports"));
        }
        Ok(Self { address, host, guest, count, protocol })
    }
}

/// The first port, and how many.
fn parse_range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    Some((first, last.checked_sub(first)?.checked_add(1)?))
}

impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        let range = |f: &mut fmt::Formatter<'_>, first: u16| match self.count {
            1 => write!(f, "{first}"),
            count => write!(f, "{first}-{}", first + (count - 1)),
        };
        range(f, self.host)?;
        f.write_str(":")?;
        range(f, self.guest)?;
        write!(f, "/{}", self.protocol)
    }
}

/// Whether the network can have these ports.
pub(crate) fn judge(ports: &[PublishedPort], network: &NetworkRecord) -> Result<(), NetworkError> {
    let name = || network.name.clone();
    if network.internal && !ports.is_empty() {
        return Err(NetworkError::Internal { network: name() });
    }
    for port in ports {
        let why = match port.address {
            Some(IpAddr::V6(_)) if network.subnet6.is_none() => "it has no IPv6 addresses",
            // There is no route_localnet for IPv6.
            Some(IpAddr::V6(Ipv6Addr::LOCALHOST)) => "what is sent to ::1 never leaves the host",
            _ => continue,
        };
        return Err(NetworkError::PortAddress { port: port.to_string(), network: name(), why });
    }
    Ok(())
}

/// Takes the host's ports, so that nobody else can, and says which they are where the kernel chose.
///
/// The sockets are bound and hear nothing: packets go another way before they would reach them. The kernel
/// gives the ports back with their last descriptor. `after_others`: connections of who listened there before may still
/// be waiting for their end (TIME_WAIT), as who will listen there does not mind.
///
/// # Errors
/// A port is taken, privileged, or the address is not the host's.
pub(crate) fn reserve(
    ports: &mut [PublishedPort],
    with_ipv6: bool,
    after_others: bool,
) -> Result<Vec<OwnedFd>, NetworkError> {
    let count = ports.iter().map(|port| usize::from(port.count)).sum();
    if count > MAX_PORTS {
        return Err(NetworkError::TooManyPorts { count, limit: MAX_PORTS });
    }
    let mut sockets = Vec::with_capacity(count);
    for port in ports {
        let addresses: &[IpAddr] = match port.address {
            Some(address) => &[address],
            None if with_ipv6 => {
                &[IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            }
            None => &[IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        };
        for offset in 0..port.count {
            for address in addresses {
                let wanted = SocketAddr::new(*address, port.host + offset);
                let is_taken = |taken: &nix::Result<_>| matches!(taken, Err(Errno::EADDRINUSE));
                let mut taken = take(wanted, port.protocol, false);
                // Of datagrams it would share the port with who listens.
                if after_others && port.protocol == Protocol::Tcp && is_taken(&taken) {
                    taken = take(wanted, port.protocol, true);
                }
                let socket = taken.map_err(|errno| {
                    let (port, source) = (port.to_string(), io::Error::from(errno));
                    match errno {
                        Errno::EADDRINUSE => NetworkError::PortTaken { port, source },
                        _ => NetworkError::Port { port, source },
                    }
                })?;
                if port.host == 0 {
                    port.host = chosen(&socket).map_err(|source| NetworkError::Port {
                        port: port.to_string(),
                        source: source.into(),
                    })?;
                }
                sockets.push(socket);
            }
        }
    }
    Ok(sockets)
}

fn take(address: SocketAddr, protocol: Protocol, reuse: bool) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    if reuse {
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

fn chosen(socket: &OwnedFd) -> nix::Result<u16> {
    let name: SockaddrStorage = getsockname(socket.as_raw_fd())?;
    let v4 = name.as_sockaddr_in().map(|name| name.port());
    v4.or(name.as_sockaddr_in6().map(|name| name.port())).ok_or(Errno::EAFNOSUPPORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_read_back_as_written() {
        for (text, shown) in [
            ("8080:80", "8080:80/tcp"),
            ("127.0.0.1:53:53/udp", "127.0.0.1:53:53/udp"),
            ("[::1]:8000-8002:9000-9002/tcp", "[::1]:8000-8002:9000-9002/tcp"),
            ("80", "0:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1:0:80/tcp"),
            ("1-65535:1-65535", "1-65535:1-65535/tcp"),
        ] {
            assert_eq!(text.parse::<PublishedPort>().unwrap().to_string(), shown);
        }
        for (text, why) in [
            ("", "1 to 65535"),
            ("0:80", "1 to 65535"),
            ("80:65536", "1 to 65535"),
            ("80:90-80", "1 to 65535"),
            ("8000-8001:80", "as many ports"),
            ("80:80/sctp", "tcp or udp"),
            ("::1:80:80", "in brackets"),
            ("web:80:80", "IPv4"),
        ] {
            let error = text.parse::<PublishedPort>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(text), "{text}: {error}");
        }
    }

    #[test]
    fn a_port_is_one_owner_s() {
        let mut ports: Vec<PublishedPort> = vec!["127.0.0.1::80".parse().unwrap()];
        let sockets = reserve(&mut ports, false, false).unwrap();
        assert_ne!(ports[0].host, 0);
        let error = reserve(&mut ports.clone(), false, false).unwrap_err();
        assert!(
            matches!(&error, NetworkError::PortTaken { port, .. } if *port == ports[0].to_string())
        );
        // Nobody is heard there.
        let there = (Ipv4Addr::LOCALHOST, ports[0].host);
        let refused = std::net::TcpStream::connect(there).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        drop(sockets);
        // A connection that its server has ended first waits there, and keeps those away who mind.
        let listener = std::net::TcpListener::bind(there).unwrap();
        let client = std::net::TcpStream::connect(there).unwrap();
        assert!(reserve(&mut ports.clone(), false, true).is_err());
        drop(listener.accept().unwrap());
        drop((client, listener));
        assert!(reserve(&mut ports.clone(), false, false).is_err());
        reserve(&mut ports, false, true).unwrap();
        let many = vec!["8000-8600:8000-8600".parse().unwrap()];
        let error = reserve(&mut many.clone(), false, false).unwrap_err();
        assert!(matches!(error, NetworkError::TooManyPorts { count: 601, .. }));
        let mut foreign = vec!["192.0.2.77:8080:80".parse().unwrap()];
        let error = reserve(&mut foreign, false, false).unwrap_err();
        assert!(matches!(error, NetworkError::Port { .. }), "{error}");
    }
}
