//! The guest's network interfaces.

use std::ffi::c_ulong;
use std::fs;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use isolab_protocol::{Interface, InterfaceAddress, netmask4};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Failure;

/// How long the controller's link may take to come up. The workload starts without it then, as on
/// a machine whose cable is out.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// Brings `lo` up, as every container has it. A kernel without networking has none.
pub fn bring_up_loopback() -> Result<(), Failure> {
    match Configurator::open(AddressFamily::Inet) {
        Ok(configurator) => configurator.bring_up("lo"),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        Err(error) => Err(format!("bring up lo: socket: {error}")),
    }
}

/// Gives each network controller its addresses and routes, brings it up, and waits for the links.
pub fn configure(interfaces: &[Interface]) -> Result<(), Failure> {
    if interfaces.is_empty() {
        return Ok(());
    }
    let setup = Setup { v4: open(AddressFamily::Inet)?, v6: None };
    let setup = match interfaces.iter().flat_map(|it| &it.addresses).any(|it| it.address.is_ipv6())
    {
        true => Setup { v6: Some(open(AddressFamily::Inet6)?), ..setup },
        false => setup,
    };
    let names: Vec<String> = (0..interfaces.len()).map(|index| format!("eth{index}")).collect();
    for (interface, name) in interfaces.iter().zip(&names) {
        setup.configure(interface, name)?;
    }
    let deadline = Instant::now() + LINK_TIMEOUT;
    names.iter().for_each(|name| await_link(name, deadline));
    Ok(())
}

fn open(family: AddressFamily) -> Result<Configurator, Failure> {
    Configurator::open(family).map_err(|e| format!("set up the network: socket ({family:?}): {e}"))
}

fn await_link(name: &str, deadline: Instant) {
    let carrier = format!("/sys/class/net/{name}/carrier");
    while fs::read(&carrier).is_ok_and(|state| state.starts_with(b"0")) && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(1));
    }
}

/// A socket of each family that is needed.
struct Setup {
    v4: Configurator,
    v6: Option<Configurator>,
}

impl Setup {
    fn configure(&self, interface: &Interface, name: &str) -> Result<(), Failure> {
        if self.v6.is_some() {
            // Nobody else has our address, so that it can be used at once (RFC 4862, 5.4).
            let setting = format!("/proc/sys/net/ipv6/conf/{name}/accept_dad");
            fs::write(&setting, "0").map_err(|e| format!("write {setting}: {e}"))?;
        }
        // Says who has the address when the link is up: who has asked before would ask again after a second
        // only. Not every kernel can.
        let _ = fs::write(format!("/proc/sys/net/ipv4/conf/{name}/arp_notify"), "1");
        for InterfaceAddress { address, prefix } in &interface.addresses {
            if let IpAddr::V4(address) = address {
                self.v4.set_address(name, libc::SIOCSIFADDR, "address", *address)?;
                self.v4.set_address(name, libc::SIOCSIFNETMASK, "netmask", netmask4(*prefix))?;
            }
        }
        self.v4.bring_up(name)?;
        let Some(v6) = &self.v6 else { return self.add_routes(interface, None) };
        let index = index_of(name)?;
        for InterfaceAddress { address, prefix } in &interface.addresses {
            if let IpAddr::V6(address) = address {
                v6.add_address6(name, index, *address, *prefix)?;
            }
        }
        self.add_routes(interface, Some((v6, index)))
    }

    fn add_routes(
        &self,
        interface: &Interface,
        v6: Option<(&Configurator, u32)>,
    ) -> Result<(), Failure> {
        for gateway in &interface.gateways {
            match (gateway, v6) {
                (IpAddr::V4(gateway), _) => self.v4.add_default_route(*gateway)?,
                (IpAddr::V6(gateway), Some((v6, index))) => {
                    v6.add_default_route6(*gateway, index)?;
                }
                (IpAddr::V6(gateway), None) => {
                    return Err(format!("set the default route to {gateway}: no IPv6 address"));
                }
            }
        }
        Ok(())
    }
}

fn index_of(name: &str) -> Result<u32, Failure> {
    let path = format!("/sys/class/net/{name}/ifindex");
    let text = fs::read_to_string(&path).map_err(|e| format!("read {path}: {e}"))?;
    text.trim().parse().map_err(|e| format!("read {path}: {e}"))
}

/// The socket that netdevice(7)'s and ipv6(7)'s requests go through.
struct Configurator(OwnedFd);

/// `in6_rtmsg` of linux/ipv6_route.h, whose fields are private in the libc crate.
#[repr(C)]
struct Route6 {
    destination: libc::in6_addr,
    source: libc::in6_addr,
    gateway: libc::in6_addr,
    kind: u32,
    destination_length: u16,
    source_length: u16,
    metric: u32,
    info: libc::c_ulong,
    flags: u32,
    index: libc::c_int,
}

impl Configurator {
    fn open(family: AddressFamily) -> io::Result<Self> {
        Ok(Self(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?))
    }

    fn bring_up(&self, name: &str) -> Result<(), Failure> {
        let flags = libc::IFF_UP as libc::c_short;
        let request = request_for(name, libc::__c_anonymous_ifr_ifru { ifru_flags: flags });
        self.request(libc::SIOCSIFFLAGS, &request).map_err(|e| format!("bring up {name}: {e}"))
    }

    fn set_address(
        &self,
        name: &str,
        code: c_ulong,
        what: &str,
        address: Ipv4Addr,
    ) -> Result<(), Failure> {
        let address = socket_address(address);
        let request = request_for(name, libc::__c_anonymous_ifr_ifru { ifru_addr: address });
        self.request(code, &request).map_err(|e| format!("set the {what} of {name}: {e}"))
    }

    fn add_address6(
        &self,
        name: &str,
        index: u32,
        address: Ipv6Addr,
        prefix: u8,
    ) -> Result<(), Failure> {
        let request = libc::in6_ifreq {
            ifr6_addr: libc::in6_addr { s6_addr: address.octets() },
            ifr6_prefixlen: u32::from(prefix),
            ifr6_ifindex: index.cast_signed(),
        };
        self.request(libc::SIOCSIFADDR, &request)
            .map_err(|e| format!("set the address {address} of {name}: {e}"))
    }

    fn add_default_route(&self, gateway: Ipv4Addr) -> Result<(), Failure> {
        // SAFETY: rtentry is plain old data, for which zeroes are valid.
        let mut route: libc::rtentry = unsafe { mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        self.request(libc::SIOCADDRT, &route)
            .map_err(|e| format!("set the default route to {gateway}: {e}"))
    }

    fn add_default_route6(&self, gateway: Ipv6Addr, index: u32) -> Result<(), Failure> {
        let any = libc::in6_addr { s6_addr: Ipv6Addr::UNSPECIFIED.octets() };
        let route = Route6 {
            destination: any,
            source: any,
            gateway: libc::in6_addr { s6_addr: gateway.octets() },
            kind: 0,
            destination_length: 0,
            source_length: 0,
            metric: 1,
            info: 0,
            flags: u32::from(libc::RTF_UP | libc::RTF_GATEWAY),
            index: index.cast_signed(),
        };
        self.request(libc::SIOCADDRT, &route)
            .map_err(|e| format!("set the default route to {gateway}: {e}"))
    }

    /// One request; `argument` is what `code` takes: of IPv4 an `rtentry` for SIOCADDRT, else an `ifreq`;
    /// of IPv6 an `in6_rtmsg` for SIOCADDRT, else an `in6_ifreq`.
    fn request<T>(&self, code: c_ulong, argument: &T) -> io::Result<()> {
        // SAFETY: the socket is open, and the kernel reads the structure that belongs to `code` and the
        // socket's family (every caller is above); none of these requests writes to it or keeps the
        // pointer.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), code as _, argument) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn request_for(name: &str, argument: libc::__c_anonymous_ifr_ifru) -> libc::ifreq {
    let mut ifr_name = [0; libc::IFNAMSIZ];
    // The last byte stays zero.
    for (byte, target) in name.bytes().zip(&mut ifr_name[..libc::IFNAMSIZ - 1]) {
        *target = byte as libc::c_char;
    }
    libc::ifreq { ifr_name, ifr_ifru: argument }
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut sa_data = [0; 14];
    // sockaddr_in: two bytes of port, then the address in network order.
    for (byte, target) in address.octets().into_iter().zip(&mut sa_data[2..6]) {
        *target = byte as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data }
}
