//! `linux.netDevices`: links of the runtime's network namespace that become the container's (config-linux.md, "Network
//! Devices").
//!
//! The runtime moves them by rtnetlink(7) when the container's namespace is there. What becomes of them with the namespace
//! is the kernel's: physical ones go back to the host, the others are gone (network_namespaces(7)).

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;

use netlink_bindings::rt_addr::{self, Ifaddrmsg};
use netlink_bindings::rt_link::{self, Ifinfomsg};
use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::{NetlinkSocket, ReplyError};
use nix::sched::{CloneFlags, setns};
use oci_spec::runtime::Linux;

use crate::error::{Error, Result};
use crate::namespaces::Namespaces;

/// linux/if.h: `IFNAMSIZ`, with the byte that ends it.
const NAME_SIZE: usize = 16;

/// A device to be moved.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NetDevice {
    /// On the host.
    name: String,
    /// In the container; with `%d`, the kernel finds a number that is free.
    inside: String,
}

/// What a device is to keep, which the kernel takes from it when it leaves its namespace.
struct Kept {
    index: u32,
    addresses: Vec<Address>,
}

/// An address that lasts and is not for a part of the network.
struct Address {
    header: Ifaddrmsg,
    /// Its own; the other end's, where the link has one and it is told.
    local: IpAddr,
    peer: IpAddr,
    broadcast: Option<std::net::Ipv4Addr>,
}

/// The devices, in the order of their names.
///
/// # Errors
/// A name that no device can have, or there is no network namespace but the runtime's own.
pub(crate) fn plan(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
    let field = "linux.netDevices";
    let mut devices = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        let inside = device.name().as_deref().filter(|inside| !inside.is_empty());
        let inside = inside.unwrap_or(name);
        let is_template = inside.matches('%').count() == 1 && inside.contains("%d");
        if !is_name(name) || !is_name(inside) || (inside.contains('%') && !is_template) {
            let problem = format!("{name:?} to {inside:?}: not the name of a network device");
            return Err(Error::invalid(field, problem));
        }
        devices.push(NetDevice { name: name.clone(), inside: inside.to_owned() });
    }
    if !devices.is_empty() && !namespaces.has(CloneFlags::CLONE_NEWNET) {
        let problem = "needs a network namespace for the container, new or by its path";
        return Err(Error::invalid(field, problem));
    }
    devices.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(devices)
}

/// As the kernel judges names (`dev_valid_name` of net/core/dev.c).
fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte != b'/' && byte != b':' && !byte.is_ascii_whitespace();
    let is_short = !name.is_empty() && name.len() < NAME_SIZE;
    is_short && name != "." && name != ".." && name.bytes().all(|byte| byte > 0 && is_allowed(byte))
}

/// Moves all of them from our network namespace to that of the container, whose first process is `pid`. None is moved
/// unless all are there and their names are free.
///
/// # Errors
/// The first one that is missing or cannot be moved, or whose name is taken.
pub(crate) fn move_all(devices: &[NetDevice], namespace: BorrowedFd, pid: i32) -> Result<()> {
    let mut links = Links::new();
    let kept: Vec<Kept> =
        devices.iter().map(|device| links.look_at(&device.name)).collect::<Result<_>>()?;
    in_namespace(namespace, || {
        let mut inside = Links::new();
        devices.iter().try_for_each(|device| inside.check_free(&device.inside))
    })?;
    for (number, (device, kept)) in devices.iter().zip(&kept).enumerate() {
        let attempt = || format!("move network device {} into the container", device.name);
        let moved = links.hand_over(kept.index, namespace, &device.first_name(pid, number));
        moved.map_err(|source| Error::host(attempt(), source))?;
    }
    in_namespace(namespace, || {
        let mut inside = Links::new();
        for (number, (device, kept)) in devices.iter().zip(&kept).enumerate() {
            let attempt = || format!("set up network device {} in the container", device.inside);
            let set_up = inside.set_up(device, &device.first_name(pid, number), kept);
            set_up.map_err(|source| Error::host(attempt(), source))?;
        }
        Ok(())
    })
}

impl NetDevice {
    fn is_template(&self) -> bool {
        self.inside.contains('%')
    }

    /// What it is called at first: by the name that the kernel finds nobody would know it.
    fn first_name(&self, pid: i32, number: usize) -> String {
        match self.is_template() {
            true => format!("m{pid}.{number}"),
            false => self.inside.clone(),
        }
    }
}

/// A socket to the links and addresses of the namespace that the thread is in when it is first used.
struct Links(NetlinkSocket);

impl Links {
    fn new() -> Self {
        Links(NetlinkSocket::new())
    }

    fn request<R: NetlinkRequest>(&mut self, request: &R) -> io::Result<()> {
        self.0.request(request)?.recv_ack().map_err(io::Error::from)
    }

    fn find(&mut self, name: &str) -> io::Result<u32> {
        let mut request = rt_link::Request::new().op_getlink_do(&Ifinfomsg::default());
        request.encode().push_ifname_bytes(name.as_bytes());
        let mut found = || -> Result<u32, ReplyError> {
            let mut reply = self.0.request(&request)?;
            let (header, _) = reply.recv_one()?;
            Ok(header.ifi_index.cast_unsigned())
        };
        found().map_err(io::Error::from)
    }

    fn look_at(&mut self, name: &str) -> Result<Kept> {
        let attempt = |what: &str| format!("{what} network device {name}");
        let index = self.find(name).map_err(|source| Error::host(attempt("find"), source))?;
        let addresses = self.addresses(index);
        let addresses =
            addresses.map_err(|source| Error::host(attempt("list the addresses of"), source))?;
        Ok(Kept { index, addresses })
    }

    /// Those that are to be kept: permanent, and of global scope.
    fn addresses(&mut self, index: u32) -> io::Result<Vec<Address>> {
        let mut list = || -> Result<Vec<Address>, ReplyError> {
            let request = rt_addr::Request::new().op_getaddr_dump(&Ifaddrmsg::default());
            let mut reply = self.0.request(&request)?;
            let mut found = Vec::new();
            while let Some(address) = reply.recv() {
                let (header, attributes) = address?;
                let flags = attributes.get_flags().unwrap_or(header.ifa_flags.into());
                let lasts = flags & libc::IFA_F_PERMANENT != 0;
                let is_global = header.ifa_scope == libc::RT_SCOPE_UNIVERSE;
                let Ok(peer) = attributes.get_address() else { continue };
                if header.ifa_index == index && lasts && is_global {
                    found.push(Address {
                        header,
                        local: attributes.get_local().unwrap_or(peer),
                        peer,
                        broadcast: attributes.get_broadcast().ok(),
                    });
                }
            }
            Ok(found)
        };
        list().map_err(io::Error::from)
    }

    fn check_free(&mut self, name: &str) -> Result<()> {
        match self.find(name) {
            Ok(_) => {
                let problem = format!("the container has a device {name} already");
                Err(Error::invalid("linux.netDevices", problem))
            }
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            Err(_) if name.contains('%') => Ok(()),
            Err(source) => Err(Error::host(format!("look for a network device {name}"), source)),
        }
    }

    /// Moves and renames in one request: no moment has it there by another's name.
    fn hand_over(&mut self, index: u32, namespace: BorrowedFd, name: &str) -> io::Result<()> {
        let header = Ifinfomsg { ifi_index: index.cast_signed(), ..Default::default() };
        let mut request = rt_link::Request::new().op_setlink_do(&header);
        let fd = namespace.as_raw_fd().cast_unsigned();
        request.encode().push_ifname_bytes(name.as_bytes()).push_net_ns_fd(fd);
        self.request(&request)
    }

    /// Gives it its name and its addresses back, and brings it up.
    fn set_up(&mut self, device: &NetDevice, name: &str, kept: &Kept) -> io::Result<()> {
        // Another one may have had its index here.
        let index = self.find(name)?;
        let flag = libc::IFF_UP.cast_unsigned();
        let link = Ifinfomsg { ifi_index: index.cast_signed(), ..Default::default() };
        if device.is_template() {
            let mut request = rt_link::Request::new().op_setlink_do(&link);
            request.encode().push_ifname_bytes(device.inside.as_bytes());
            self.request(&request)?;
        }
        for address in &kept.addresses {
            self.add_address(index, address)?;
        }
        let up = Ifinfomsg { ifi_flags: flag, ifi_change: flag, ..link };
        self.request(&rt_link::Request::new().op_setlink_do(&up))
    }

    fn add_address(&mut self, index: u32, address: &Address) -> io::Result<()> {
        let header = Ifaddrmsg {
            ifa_family: address.header.ifa_family,
            ifa_prefixlen: address.header.ifa_prefixlen,
            ifa_index: index,
            ..Default::default()
        };
        let mut request = rt_addr::Request::new().set_create().set_excl().op_newaddr_do(&header);
        let mut attributes = request.encode().push_local(address.local).push_address(address.peer);
        if let Some(broadcast) = address.broadcast {
            attributes = attributes.push_broadcast(broadcast);
        }
        if address.local.is_ipv6() {
            // It was in use a moment ago: there is nobody to be asked for it (RFC 4862, 5.4).
            attributes = attributes.push_flags(libc::IFA_F_NODAD);
        }
        drop(attributes);
        self.request(&request)
    }
}

/// Runs `act` on a thread of its own in the namespace, which ends there: no other code of ours is in it by mistake.
fn in_namespace(namespace: BorrowedFd, act: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    let attempt = |what: &str| format!("{what} the container's network namespace");
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            setns(namespace, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::host(attempt("enter"), errno))?;
            act()
        });
        let thread = thread.map_err(|source| Error::host(attempt("start a thread for"), source))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

    use super::*;

    fn planned(devices: &str, network: bool) -> Result<Vec<NetDevice>, String> {
        let linux: Linux =
            serde_json::from_str(&format!(r#"{{"netDevices": {devices}}}"#)).unwrap();
        let mut one = LinuxNamespace::default();
        one.set_typ(LinuxNamespaceType::Network);
        let namespaces = if network { vec![one] } else { Vec::new() };
        let namespaces = Namespaces::from_oci(&namespaces).unwrap();
        plan(&linux, &namespaces).map_err(|error| error.to_string())
    }

    #[test]
    fn devices_keep_their_names_or_have_others() {
        let devices = r#"{"eth1": {"name": "lan%d"}, "eth0": {}, "eth2": {"name": ""}}"#;
        let planned = planned(devices, true).unwrap();
        let names: Vec<_> =
            planned.iter().map(|one| (one.name.as_str(), one.inside.as_str())).collect();
        assert_eq!(names, [("eth0", "eth0"), ("eth1", "lan%d"), ("eth2", "eth2")]);
        assert_eq!(planned[1].first_name(4_194_304, 1), "m4194304.1");
    }

    #[test]
    fn what_no_device_is_called_is_refused() {
        for name in ["", ".", "..", "a/b", "a b", "a:b", "sixteen-letters.", "a%s", "%d%d", "a%"] {
            let devices = format!(r#"{{"eth0": {{"name": "{name}"}}}}"#);
            // An empty one is none.
            assert_eq!(planned(&devices, true).is_err(), !name.is_empty(), "{name}");
            let devices = format!(r#"{{"{name}": {{}}}}"#);
            assert!(planned(&devices, true).is_err(), "{name}");
        }
        assert!(planned("{}", false).unwrap().is_empty());
        let error = planned(r#"{"eth0": {}}"#, false).unwrap_err();
        assert!(error.contains("linux.netDevices") && error.contains("namespace"), "{error}");
    }
}
