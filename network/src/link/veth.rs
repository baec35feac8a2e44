//! Pairs of Ethernet interfaces (veth(4)): what goes into one comes out of the other.

use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_bindings::rt_link::{Ifinfomsg, PushLinkAttrs, Request};
use netlink_bindings::traits::Pusher;
use netlink_bindings::utils::{finalize_nested_header, push_nested_header};

use super::{Links, up};
use crate::error::NetworkError;
use crate::mac::MacAddress;

/// linux/if_link.h: what `IFLA_LINKINFO` has for kinds that are no specification's.
const IFLA_INFO_DATA: u16 = 2;
/// linux/veth.h.
const VETH_INFO_PEER: u16 = 1;

/// A pair with one end here and one in another network namespace.
pub(crate) struct Veth<'a> {
    /// Our end's name.
    pub(crate) name: &'a str,
    /// The index of the bridge that our end is a port of.
    pub(crate) bridge: u32,
    /// The namespace of the other end.
    pub(crate) namespace: BorrowedFd<'a>,
    /// Its name there.
    pub(crate) peer: &'a str,
    /// Its address.
    pub(crate) mac: MacAddress,
}

impl Links {
    /// Makes a pair, in one request: no moment has a link that is not yet where it belongs.
    pub(crate) fn add_veth(&mut self, veth: &Veth) -> Result<(), NetworkError> {
        let mut request = Request::new().set_create().set_excl().op_newlink_do(&up(0));
        let mut info = request
            .encode()
            .push_ifname_bytes(veth.name.as_bytes())
            .push_master(veth.bridge)
            .nested_linkinfo()
            .push_kind(c"veth");
        let bytes = info.as_vec_mut();
        let data = push_nested_header(bytes, IFLA_INFO_DATA);
        let peer = push_nested_header(bytes, VETH_INFO_PEER);
        bytes.extend(Ifinfomsg::default().as_slice());
        PushLinkAttrs::new(&mut *bytes)
            .push_ifname_bytes(veth.peer.as_bytes())
            .push_address(&veth.mac.0)
            .push_net_ns_fd(veth.namespace.as_raw_fd().cast_unsigned());
        finalize_nested_header(bytes, peer);
        finalize_nested_header(bytes, data);
        info.end_nested();
        self.request(&request).map_err(NetworkError::kernel("make the pair of links", veth.name))
    }
}
