//! Kernel settings of the network namespace that we are in.

use std::fs;
use std::io;

use crate::error::NetworkError;

/// Of the host, which forwards between its interfaces.
pub(crate) const IP_FORWARD: &str = "net/ipv4/ip_forward";
/// Likewise; while it is on, the host hears no router advertisements (unless `accept_ra` is 2).
pub(crate) const IPV6_FORWARD: &str = "net/ipv6/conf/all/forwarding";

/// Of our own interface `link`: packets from and to 127.0.0.0/8 may pass it.
pub(crate) fn route_localnet(link: &str) -> String {
    format!("net/ipv4/conf/{link}/route_localnet")
}

/// Of our own interface `link`.
pub(crate) fn ipv6(link: &str, setting: &str) -> String {
    format!("net/ipv6/conf/{link}/{setting}")
}

/// Sets it. A kernel without IPv6 has none of IPv6's.
pub(crate) fn set(name: &str, value: &str) -> Result<(), NetworkError> {
    match fs::write(format!("/proc/sys/{name}"), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("net/ipv6") => {
            Ok(())
        }
        result => result.map_err(NetworkError::kernel("set the sysctl", name)),
    }
}

/// Whether it is other than 0; a missing one is not.
pub(crate) fn is_on(name: &str) -> bool {
    fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|value| value.trim() != "0")
}
