//! Addresses and routes.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_bindings::{rt_addr, rt_route};
use netlink_socket2::ReplyError;

use super::Links;
use crate::error::NetworkError;
use crate::subnet::destination;

impl Links {
    /// Gives a link an address, which it may use at once: that nobody else has it, we know without
    /// asking around (RFC 4862, 5.4).
    pub(crate) fn add_address(&mut self, index: u32, address: IpNet) -> Result<(), NetworkError> {
        let header = rt_addr::Ifaddrmsg {
            ifa_family: family(address.addr()),
            ifa_prefixlen: address.prefix_len(),
            ifa_index: index,
            ..Default::default()
        };
        let mut request = rt_addr::Request::new().set_create().set_replace().op_newaddr_do(&header);
        let attributes = request.encode().push_local(address.addr()).push_address(address.addr());
        match address {
            IpNet::V4(address) => attributes.push_broadcast(address.broadcast()),
            IpNet::V6(_) => attributes.push_flags(libc::IFA_F_NODAD),
        };
        self.request(&request)
            .map_err(NetworkError::kernel("give a link the address", address.to_string()))
    }

    /// Everything without a better route goes to `gateway`.
    pub(crate) fn add_default_route(&mut self, gateway: IpAddr) -> Result<(), NetworkError> {
        let header = rt_route::Rtmsg {
            rtm_family: family(gateway),
            rtm_table: libc::RT_TABLE_MAIN,
            rtm_protocol: libc::RTPROT_BOOT,
            rtm_scope: libc::RT_SCOPE_UNIVERSE,
            rtm_type: libc::RTN_UNICAST,
            ..Default::default()
        };
        // Another network's may be there, which then stays the first.
        let mut request =
            rt_route::Request::new().set_create().set_append().op_newroute_do(&header);
        request.encode().push_gateway(gateway);
        self.request(&request)
            .map_err(NetworkError::kernel("make the default route to", gateway.to_string()))
    }

    /// Where the host's routes lead, and over which link, but for default routes.
    pub(crate) fn destinations(&mut self) -> Result<Vec<(IpNet, u32)>, NetworkError> {
        let mut list = || -> Result<Vec<(IpNet, u32)>, ReplyError> {
            let request = rt_route::Request::new().op_getroute_dump(&rt_route::Rtmsg::default());
            let mut reply = self.socket.request(&request)?;
            let mut found = Vec::new();
            while let Some(route) = reply.recv() {
                let (header, attributes) = route?;
                // Of those that somebody made, and of the addresses that the host has.
                let leads = matches!(header.rtm_type, libc::RTN_UNICAST | libc::RTN_LOCAL);
                if let (true, Ok(address)) = (leads, attributes.get_dst()) {
                    let net = destination(address, header.rtm_dst_len);
                    found.extend(net.map(|net| (net, attributes.get_oif().unwrap_or(0))));
                }
            }
            Ok(found)
        };
        list().map_err(|error| {
            NetworkError::kernel("list", "the host's routes")(io::Error::from(error))
        })
    }
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}
