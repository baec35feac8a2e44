//! What the network device offers, and what the driver's choice means for the tap
//! (virtio 1.2, 5.1.3).

use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4,
    VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_USO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_MAC,
    VIRTIO_NET_F_MQ, VIRTIO_NET_F_MRG_RXBUF, VIRTIO_NET_F_MTU, VIRTIO_NET_F_STATUS,
};
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::backend::net::NetBackend;

/// Features of received frames, and the tap's word for each.
const RECEIVE_OFFLOADS: [(u32, u32); 5] = [
    (VIRTIO_NET_F_GUEST_CSUM, libc::TUN_F_CSUM),
    (VIRTIO_NET_F_GUEST_TSO4, libc::TUN_F_TSO4),
    (VIRTIO_NET_F_GUEST_TSO6, libc::TUN_F_TSO6),
    (VIRTIO_NET_F_GUEST_USO4, libc::TUN_F_USO4),
    (VIRTIO_NET_F_GUEST_USO6, libc::TUN_F_USO6),
];

/// Segments that UDP offload needs from Linux 6.2 on; it goes for both families or neither.
const USO: u32 = libc::TUN_F_USO4 | libc::TUN_F_USO6;
const TSO: u32 = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;

/// Whether `features` has `feature`.
pub fn has(features: u64, feature: u32) -> bool {
    features & 1 << feature != 0
}

/// The offloads a back end can do, found by asking for them; leaves them off.
pub fn probe_offloads(backend: &mut dyn NetBackend) -> u32 {
    let can = [TSO | USO, TSO, 0].into_iter().find(|flags| backend.set_offloads(*flags).is_ok());
    // A back end that refuses even none has none; that is no fault yet.
    let _ = backend.set_offloads(0);
    can.unwrap_or(0)
}

/// The features to offer over a back end with `offloads`.
pub fn offered(offloads: u32, queue_pairs: u16) -> u64 {
    let mut features = vec![
        VIRTIO_F_VERSION_1,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_RING_F_INDIRECT_DESC,
        VIRTIO_NET_F_MAC,
        VIRTIO_NET_F_MTU,
        VIRTIO_NET_F_STATUS,
        VIRTIO_NET_F_MRG_RXBUF,
    ];
    // What the driver leaves to the host: the tap takes any frame that its header describes.
    if offloads & TSO == TSO {
        features.extend([VIRTIO_NET_F_CSUM, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6]);
    }
    if offloads & USO == USO {
        features.push(VIRTIO_NET_F_HOST_USO);
    }
    let receive = RECEIVE_OFFLOADS.iter().filter(|(_, flag)| offloads & flag != 0);
    features.extend(receive.map(|(feature, _)| *feature));
    if queue_pairs > 1 {
        features.extend([VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ]);
    }
    features.into_iter().fold(0, |all, feature| all | 1 << feature)
}

/// The tap's offloads for what was negotiated. Segmentation without checksums, which virtio
/// forbids (5.1.3.1), is taken as neither.
pub fn tun_flags(features: u64) -> u32 {
    if !has(features, VIRTIO_NET_F_GUEST_CSUM) {
        return 0;
    }
    let chosen = RECEIVE_OFFLOADS.iter().filter(|(feature, _)| has(features, *feature));
    let flags = chosen.fold(0, |all, (_, flag)| all | flag);
    // The tap takes both or neither.
    if flags & USO == USO { flags } else { flags & !USO }
}

/// Whether received frames can be longer than the MTU.
pub fn receives_segments(features: u64) -> bool {
    tun_flags(features) & !libc::TUN_F_CSUM != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virtio::net::testing::socket_backend;

    #[test]
    fn what_the_back_end_cannot_do_is_not_offered() {
        let (mut backend, log) = socket_backend();
        assert_eq!(probe_offloads(&mut backend), TSO | USO);
        assert_eq!(*log.offloads.lock().unwrap(), [TSO | USO, 0]);
        log.refuse_offloads(USO);
        assert_eq!(probe_offloads(&mut backend), TSO);
        log.refuse_offloads(!0);
        assert_eq!(probe_offloads(&mut backend), 0);

        let plain = offered(0, 1);
        for feature in [VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_CTRL_VQ] {
            assert!(!has(plain, feature));
        }
        assert!(has(plain, VIRTIO_NET_F_MRG_RXBUF) && has(plain, VIRTIO_F_VERSION_1));
        assert!(!has(offered(TSO, 1), VIRTIO_NET_F_HOST_USO));
        assert!(has(offered(TSO | USO, 2), VIRTIO_NET_F_MQ));
    }

    #[test]
    fn the_taps_offloads_follow_the_negotiation() {
        let bits = |list: &[u32]| list.iter().fold(0, |all, feature| all | 1u64 << feature);
        assert_eq!(tun_flags(0), 0);
        assert_eq!(tun_flags(bits(&[VIRTIO_NET_F_GUEST_TSO4])), 0);
        let plain = bits(&[VIRTIO_NET_F_GUEST_CSUM]);
        assert_eq!((tun_flags(plain), receives_segments(plain)), (libc::TUN_F_CSUM, false));
        let tso = bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO6]);
        assert_eq!(tun_flags(tso), libc::TUN_F_CSUM | libc::TUN_F_TSO6);
        assert!(receives_segments(tso));
        let half = bits(&[VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_USO4]);
        assert_eq!(tun_flags(half), libc::TUN_F_CSUM);
        assert_eq!(tun_flags(offered(TSO | USO, 1)), TSO | USO);
    }
}
