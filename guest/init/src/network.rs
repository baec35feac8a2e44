//! The guest's network interfaces.

use std::ffi::c_ulong;
use std::fs;
use std::io;
use std::mem;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use isolab_protocol::{Interface, NETWORK_INTERFACE};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use crate::Failure;

/// How long the controller's link may take to come up. The workload starts without it then, as on
/// a machine whose cable is out.
const LINK_TIMEOUT: Duration = Duration::from_secs(5);

/// Brings `lo` up, as every container has it. A kernel without networking has none.
pub fn bring_up_loopback() -> Result<(), Failure> {
    match Configurator::open() {
        Ok(configurator) => configurator.bring_up("lo"),
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => Ok(()),
        Err(error) => Err(format!("bring up lo: socket: {error}")),
    }
}

/// Gives the network controller its address, brings it up, and waits for its link.
pub fn configure(interface: &Interface) -> Result<(), Failure> {
    let name = NETWORK_INTERFACE;
    let configurator = Configurator::open().map_err(|e| format!("set up {name}: socket: {e}"))?;
    configurator.set_address(name, libc::SIOCSIFADDR, "address", interface.address)?;
    configurator.set_address(name, libc::SIOCSIFNETMASK, "netmask", interface.netmask())?;
    configurator.bring_up(name)?;
    if let Some(gateway) = interface.gateway {
        configurator.add_default_route(gateway)?;
    }
    let carrier = format!("/sys/class/net/{name}/carrier");
    let deadline = Instant::now() + LINK_TIMEOUT;
    while fs::read(&carrier).is_ok_and(|state| state.starts_with(b"0")) && Instant::now() < deadline
    {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The socket that netdevice(7)'s requests go through.
struct Configurator(OwnedFd);

impl Configurator {
    fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self(socket(AddressFamily::Inet, SockType::Datagram, flags, None)?))
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

    /// One request; `argument` is what `code` takes: an `rtentry` for SIOCADDRT, else an `ifreq`.
    fn request<T>(&self, code: c_ulong, argument: &T) -> io::Result<()> {
        // SAFETY: the socket is open, and the kernel reads the structure that belongs to `code`
        // (every caller is above); none of these requests writes to it or keeps the pointer.
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
