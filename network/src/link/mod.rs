//! Links of the network namespace that we are in, by rtnetlink (rtnetlink(7)).

mod address;
pub(crate) mod namespace;
pub(crate) mod tap;
mod veth;

use std::io;

use netlink_bindings::rt_link::{Ifinfomsg, Request};
use netlink_bindings::traits::NetlinkRequest;
use netlink_socket2::{NetlinkSocket, ReplyError};

pub(crate) use veth::Veth;

use crate::error::NetworkError;

/// A socket to the kernel's links, addresses and routes. It belongs to the namespace in which it was used
/// first.
pub(crate) struct Links {
    socket: NetlinkSocket,
}

/// What we want to know of a link.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    /// What the kernel calls its kind; none of a physical one.
    pub(crate) kind: Option<String>,
    /// Whether it is to be used.
    pub(crate) is_up: bool,
    /// Its Ethernet address, if it has one.
    pub(crate) mac: Option<[u8; 6]>,
}

impl Links {
    pub(crate) fn new() -> Self {
        Self { socket: NetlinkSocket::new() }
    }

    /// Sends a request and waits for its acknowledgement.
    fn request<R: NetlinkRequest>(&mut self, request: &R) -> io::Result<()> {
        self.socket.request(request)?.recv_ack().map_err(io::Error::from)
    }

    /// None if there is no link of that name.
    pub(crate) fn find(&mut self, name: &str) -> Result<Option<Link>, NetworkError> {
        let mut request = Request::new().op_getlink_do(&Ifinfomsg::default());
        request.encode().push_ifname_bytes(name.as_bytes());
        let mut found = || -> Result<Link, ReplyError> {
            let mut reply = self.socket.request(&request)?;
            let (header, attributes) = reply.recv_one()?;
            let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
            let kind = attributes.get_linkinfo().and_then(|info| info.get_kind()).ok().map(text);
            let is_up = header.ifi_flags & libc::IFF_UP.cast_unsigned() != 0;
            let mac = attributes.get_address().ok().and_then(|mac| mac.try_into().ok());
            Ok(Link { index: header.ifi_index.cast_unsigned(), is_up, kind, mac })
        };
        match found().map_err(io::Error::from) {
            Ok(link) => Ok(Some(link)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(NetworkError::kernel("look at the link", name)(error)),
        }
    }

    /// Makes a bridge, which is down. Its address does not follow its ports', which come and go.
    pub(crate) fn add_bridge(&mut self, name: &str, mac: [u8; 6]) -> Result<u32, NetworkError> {
        let header = Ifinfomsg::default();
        let mut request = Request::new().set_create().set_excl().op_newlink_do(&header);
        request
            .encode()
            .push_ifname_bytes(name.as_bytes())
            .push_address(&mac)
            .nested_linkinfo()
            .push_kind(c"bridge")
            .end_nested();
        self.request(&request).map_err(NetworkError::kernel("make the bridge", name))?;
        match self.find(name)? {
            Some(link) => Ok(link.index),
            None => {
                Err(NetworkError::kernel("make the bridge", name)(io::ErrorKind::NotFound.into()))
            }
        }
    }

    /// Makes the link `name` a port of the bridge, and brings it up.
    pub(crate) fn join(&mut self, name: &str, bridge: u32) -> Result<(), NetworkError> {
        let mut request = Request::new().op_setlink_do(&up(0));
        request.encode().push_ifname_bytes(name.as_bytes()).push_master(bridge);
        self.request(&request).map_err(NetworkError::kernel("connect to its bridge the link", name))
    }

    /// Lets a frame out of the bridge's port that it came in by. Where bridged packets go through the
    /// firewall (br_netfilter), one to a published port of its own sender is bridged, not routed.
    pub(crate) fn reflect(&mut self, name: &str) -> Result<(), NetworkError> {
        let mut request = Request::new().op_newlink_do(&Ifinfomsg::default());
        request
            .encode()
            .push_ifname_bytes(name.as_bytes())
            .nested_linkinfo()
            .push_slave_kind(c"bridge")
            .nested_slave_data_bridge()
            .push_mode(1);
        self.request(&request).map_err(NetworkError::kernel("set hairpin mode of", name))
    }

    /// Brings a link up.
    pub(crate) fn bring_up(&mut self, index: u32, name: &str) -> Result<(), NetworkError> {
        let request = Request::new().op_setlink_do(&up(index));
        self.request(&request).map_err(NetworkError::kernel("bring up the link", name))
    }

    /// Removes a link, if there is one of that name.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), NetworkError> {
        let mut request = Request::new().op_dellink_do(&Ifinfomsg::default());
        request.encode().push_ifname_bytes(name.as_bytes());
        match self.request(&request) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result.map_err(NetworkError::kernel("remove the link", name)),
        }
    }

    /// The names of all links.
    pub(crate) fn names(&mut self) -> Result<Vec<String>, NetworkError> {
        let list = |socket: &mut NetlinkSocket| -> Result<Vec<String>, ReplyError> {
            let request = Request::new().op_getlink_dump(&Ifinfomsg::default());
            let mut reply = socket.request(&request)?;
            let mut names = Vec::new();
            while let Some(link) = reply.recv() {
                let (_, attributes) = link?;
                names.extend(
                    attributes.get_ifname().ok().map(|it| it.to_string_lossy().into_owned()),
                );
            }
            Ok(names)
        };
        list(&mut self.socket)
            .map_err(|error| NetworkError::kernel("list", "the host's links")(error.into()))
    }
}

/// Of a link that is to be up; by its index, or by its name where that is 0.
fn up(index: u32) -> Ifinfomsg {
    let flag = libc::IFF_UP.cast_unsigned();
    let index = index.cast_signed();
    Ifinfomsg { ifi_index: index, ifi_flags: flag, ifi_change: flag, ..Default::default() }
}
