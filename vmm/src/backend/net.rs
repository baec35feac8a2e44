//! Network interfaces: frames with a virtio-net header in front, as tap devices speak them.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::RawFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Length of `struct virtio_net_hdr_v1` (virtio 1.2, 5.1.6), which precedes every frame.
pub const VNET_HEADER_LENGTH: usize = 12;

/// The longest frame with its header that passes through here: 64 KiB of segments to come, an
/// Ethernet header with a VLAN tag, and the virtio-net header.
pub const MAX_FRAME: usize = VNET_HEADER_LENGTH + 18 + 65536;

/// One queue of a network back end. Non-blocking.
///
/// Every frame starts with a `virtio_net_hdr_v1`, so checksum and segmentation offloads pass
/// through to the host's stack from virtio-net and e1000 alike.
pub trait NetBackend: Send {
    /// Sends one frame, header first.
    ///
    /// # Errors
    /// `WouldBlock` when the host's queue is full; other errors mean that this frame is lost.
    fn send(&mut self, frame: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Receives one frame, header first; the length includes the header. What does not fit into
    /// `buffers` is lost.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    fn receive(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize>;

    /// Which offloads the guest can take in received frames, as `TUN_F_*` (linux/if_tun.h).
    ///
    /// # Errors
    /// The host refused the combination.
    fn set_offloads(&mut self, tun_flags: u32) -> io::Result<()>;

    /// Takes part in the interface's traffic, or leaves it to the other queues. Queues start
    /// taking part.
    ///
    /// # Errors
    /// The host's, for example for an interface with a single queue.
    fn set_attached(&mut self, attached: bool) -> io::Result<()> {
        let _ = attached;
        Ok(())
    }

    /// Readable when [`NetBackend::receive`] has a frame, writable when [`NetBackend::send`] can
    /// take one. For a tap, the descriptor that vhost-net takes over.
    fn event(&self) -> RawFd;
}

/// Where the frames of a `--net` go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TapSource {
    /// A tap that exists, or is made under this name.
    Named(String),
    /// A new one, named by the kernel: isolab0, isolab1 …
    New,
    /// Open descriptors of a tap, one per queue pair, with IFF_NO_PI and IFF_VNET_HDR set.
    Descriptors(Vec<RawFd>),
}

/// One `--net`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NetOptions {
    /// See [`TapSource`].
    pub tap: TapSource,
    /// The guest's address; a random one if not given.
    pub mac: Option<MacAddress>,
    /// The MTU the guest is told, 68 to 65535; the tap's own if not given.
    pub mtu: Option<u16>,
    /// Queue pairs, 1 to [`MAX_QUEUE_PAIRS`].
    pub queue_pairs: u16,
    /// The host kernel moves the frames (vhost-net).
    pub vhost: bool,
}

/// The kernel's limit on queues of a tap is 256; the transport's on queues of a device is 255.
pub const MAX_QUEUE_PAIRS: u16 = 64;

impl Default for NetOptions {
    fn default() -> Self {
        Self { tap: TapSource::New, mac: None, mtu: None, queue_pairs: 1, vhost: false }
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// A random address, locally administered and unicast (IEEE 802, 8.2).
    pub fn random() -> Self {
        // Seeded by the operating system; addresses need to differ, not to be secret.
        let [a, b, c, d, e, f, ..] = RandomState::new().build_hasher().finish().to_le_bytes();
        Self([a & 0xFC | 0x02, b, c, d, e, f])
    }
}

/// Text that is no Ethernet address a host can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address of a network interface; write it as 02:00:00:00:00:01, the first byte even"
)]
pub struct BadMacAddress(String);

impl FromStr for MacAddress {
    type Err = BadMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadMacAddress(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            // `from_str_radix` would take a sign.
            let digits = part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| digits).ok_or_else(bad)?;
        }
        let unicast = bytes[0] & 1 == 0 && bytes != [0; 6];
        if parts.next().is_none() && unicast { Ok(Self(bytes)) } else { Err(bad()) }
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl TryFrom<String> for MacAddress {
    type Error = BadMacAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(address: MacAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_written() {
        let address: MacAddress = "02:00:5e:00:53:Af".parse().unwrap();
        assert_eq!(address.0, [2, 0, 0x5E, 0, 0x53, 0xAF]);
        assert_eq!(address.to_string(), "02:00:5e:00:53:af");
    }

    #[test]
    fn what_is_no_interface_address_is_refused() {
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            "+2:00:00:00:00:01",
            "03:00:00:00:00:01",
            "00:00:00:00:00:00",
            "02-00-00-00-00-01",
        ] {
            let refused = text.parse::<MacAddress>();
            assert!(refused.is_err(), "{text}");
        }
    }

    #[test]
    fn random_addresses_differ_and_are_local() {
        let (a, b) = (MacAddress::random(), MacAddress::random());
        assert_ne!(a, b);
        assert_eq!(a.0[0] & 3, 2);
    }
}
