//! virtio-net: virtio 1.2, 5.1. A thread per queue pair moves frames between guest memory and
//! the tap without copying them, unless the host kernel does (vhost).

mod control;
mod features;
mod pace;
mod pair;
mod receive;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod transmit;
mod vhost;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use virtio_bindings::virtio_net::{VIRTIO_NET_F_CTRL_VQ, VIRTIO_NET_F_MQ, VIRTIO_NET_S_LINK_UP};

use self::control::ControlQueue;
use self::features::{has, tun_flags};
use self::pair::{PairControl, UserPair};
use self::receive::Receiver;
use self::transmit::Transmitter;
pub use self::vhost::VhostNet;
use self::vhost::{VhostPair, VhostPairParts};
use super::queue::DeviceQueue;
use super::stats::QueueCounters;
use super::worker::Worker;
use super::{ActivateError, Activation, ActiveQueue, VirtioDevice};
use crate::backend::frame_stream::FrameStream;
use crate::backend::net::{
    MAX_QUEUE_PAIRS, MacAddress, NetBackend, NetOptions, NetOptionsError, TapSource,
};
use crate::backend::poll_limit::PollLimit;
use crate::backend::tap::{Tap, TapError};
use crate::rate_limit::{RateLimit, RateLimiter};

/// In statistics and messages.
const NAME: &str = "virtio-net";
/// Entries of receive and transmit queues, as other VMMs have it.
const QUEUE_SIZE: u16 = 256;
/// Entries of the control queue.
const CONTROL_QUEUE_SIZE: u16 = 64;
/// The smallest MTU of an IPv4 link (RFC 791), which virtio demands as well (5.1.4).
const MIN_MTU: u16 = 68;
/// That of an Ethernet (RFC 894).
const ETHERNET_MTU: u16 = 1500;

/// A network device that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The tap cannot be opened or configured.
    #[error(transparent)]
    Tap(#[from] TapError),
    /// Below what any network has.
    #[error("net: an MTU of {mtu} is too small; use at least {MIN_MTU}")]
    Mtu {
        /// What was asked for, in bytes.
        mtu: u16,
    },
    /// Options that exclude each other.
    #[error(transparent)]
    Options(#[from] NetOptionsError),
    /// The host is out of file descriptors.
    #[error("net: cannot make a timer for the rate limit")]
    Timer(#[source] io::Error),
    /// No back end, or too many.
    #[error("net: {pairs} queue pairs; use 1 to {MAX_QUEUE_PAIRS}")]
    QueuePairs {
        /// What was asked for.
        pairs: usize,
    },
    /// The module is missing or the operator may not use it.
    #[error(
        "cannot use {} for vhost=on: load the module (`modprobe vhost_net`), be root or in the device's group, or leave vhost off",
        vhost::DEVICE
    )]
    Vhost(#[source] io::Error),
}

/// What a network device is made of.
pub struct NetParts {
    /// One per queue pair.
    pub backends: Vec<Box<dyn NetBackend>>,
    /// The Ethernet address of the guest's interface.
    pub mac: MacAddress,
    /// What the guest is told.
    pub mtu: u16,
    /// One per queue pair, or none for frames to pass through this process.
    pub vhost: Vec<VhostNet>,
    /// For each direction, over all pairs. Not with vhost.
    pub rate: RateLimit,
    /// For how long at most a pair's thread looks for frames before it sleeps, as [`NetOptions::poll`].
    pub poll: Option<PollLimit>,
    /// The guest's.
    pub vcpus: u32,
}

/// A pair that is not in use.
struct Idle {
    backend: Box<dyn NetBackend>,
    vhost: Option<VhostNet>,
}

/// A pair that works.
enum Running {
    User(Worker<UserPair>),
    Vhost(Worker<VhostPair>),
}

/// A network device over the queues of a tap.
pub struct VirtioNet {
    mac: MacAddress,
    mtu: u16,
    pairs: u16,
    features: u64,
    idle: BTreeMap<u16, Idle>,
    running: BTreeMap<u16, Running>,
    control: Option<Worker<ControlQueue>>,
    counters: Vec<Arc<QueueCounters>>,
    receive_limiter: Option<RateLimiter>,
    transmit_limiter: Option<RateLimiter>,
    poll: Option<PollLimit>,
    vcpus: u32,
}

impl VirtioNet {
    /// Opens the tap, and vhost-net where it is to be used, for a guest with so many vCPUs. With `queue_pairs` pairs where
    /// the options say nothing else and the tap has as many.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn open(options: &NetOptions, queue_pairs: u16, vcpus: u32) -> Result<Self, NetError> {
        if let TapSource::Stream(fd) = options.tap {
            return Self::over_stream(fd, options, vcpus);
        }
        let tap = match options.queue_pairs {
            Some(pairs) => Tap::open(&options.tap, pairs)?,
            None => Tap::open_up_to(&options.tap, queue_pairs)?,
        };
        let mtu = options.mtu.unwrap_or(tap.mtu());
        let queues = tap.into_queues();
        let open_vhost = || queues.iter().map(|_| VhostNet::open()).collect::<io::Result<_>>();
        let vhost = match options.vhost {
            Some(true) => open_vhost().map_err(NetError::Vhost)?,
            // Whatever keeps us from it, frames can always pass through this process.
            None if options.rate == RateLimit::default() => open_vhost().unwrap_or_default(),
            _ => Vec::new(),
        };
        Self::new(NetParts {
            mac: options.mac.unwrap_or_else(MacAddress::random),
            mtu,
            vhost,
            rate: options.rate,
            poll: options.poll,
            vcpus,
            backends: queues
                .into_iter()
                .map(|queue| Box::new(queue) as Box<dyn NetBackend>)
                .collect(),
        })
    }

    fn over_stream(fd: RawFd, options: &NetOptions, vcpus: u32) -> Result<Self, NetError> {
        let pairs = options.queue_pairs.unwrap_or(1);
        if pairs != 1 {
            return Err(NetError::QueuePairs { pairs: pairs.into() });
        }
        let stream = FrameStream::adopt(fd).map_err(|source| TapError::BadStream { fd, source })?;
        Self::new(NetParts {
            mac: options.mac.unwrap_or_else(MacAddress::random),
            mtu: options.mtu.unwrap_or(ETHERNET_MTU),
            vhost: Vec::new(),
            rate: options.rate,
            poll: options.poll,
            vcpus,
            backends: vec![Box::new(stream)],
        })
    }

    /// A device over back ends that exist.
    ///
    /// # Errors
    /// [`NetError`].
    pub fn new(parts: NetParts) -> Result<Self, NetError> {
        let NetParts { mut backends, mac, mtu, vhost, rate, poll, vcpus } = parts;
        if !vhost.is_empty() && rate != RateLimit::default() {
            return Err(NetError::Options(NetOptionsError::VhostRate));
        }
        let limiter = || RateLimiter::new(rate).map_err(NetError::Timer);
        if mtu < MIN_MTU {
            return Err(NetError::Mtu { mtu });
        }
        let pairs = u16::try_from(backends.len())
            .ok()
            .filter(|pairs| (1..=MAX_QUEUE_PAIRS).contains(pairs))
            .ok_or(NetError::QueuePairs { pairs: backends.len() })?;
        let offloads = backends
            .iter_mut()
            .map(|backend| features::probe_offloads(&mut **backend))
            .fold(!0, |all, one| all & one);
        let mut features = features::offered(offloads, pairs);
        for vhost in &vhost {
            // What concerns rings and headers is the host kernel's to offer; the rest the tap's.
            let kernel = vhost.features().map_err(NetError::Vhost)?;
            features &= kernel | !VHOST_DECIDES;
        }
        let mut vhost = vhost.into_iter();
        let idle = backends.into_iter().map(|backend| Idle { backend, vhost: vhost.next() });
        let control = usize::from(has(features, VIRTIO_NET_F_CTRL_VQ));
        let queues = 2 * usize::from(pairs) + control;
        Ok(Self {
            mac,
            mtu,
            pairs,
            features,
            idle: (0..).zip(idle).collect(),
            running: BTreeMap::new(),
            control: None,
            counters: (0..queues).map(|_| Arc::default()).collect(),
            receive_limiter: limiter()?,
            transmit_limiter: limiter()?,
            poll,
            vcpus,
        })
    }

    /// What counts each queue's work, by queue number. With vhost, the kernel counts for itself.
    pub fn counters(&self) -> Vec<Arc<QueueCounters>> {
        self.counters.clone()
    }

    fn device_queue(&self, queue: ActiveQueue, activation: &Activation) -> DeviceQueue {
        let counters = self.counters.get(usize::from(queue.index)).cloned().unwrap_or_default();
        DeviceQueue::new(queue, activation, counters)
    }

    /// Starts pair `index` if the driver enabled both of its queues.
    fn start_pair(
        &mut self,
        index: u16,
        receive: ActiveQueue,
        transmit: ActiveQueue,
        activation: &Activation,
    ) -> io::Result<Arc<PairControl>> {
        // Only the first pair takes part until the driver asks for more (5.1.6.5.5).
        let control = PairControl::new(index == 0)?;
        let Idle { mut backend, vhost } = self
            .idle
            .remove(&index)
            .ok_or_else(|| io::Error::other("its thread panicked before"))?;
        if let Err(error) = backend.set_offloads(tun_flags(activation.features)) {
            self.idle.insert(index, Idle { backend, vhost });
            return Err(error);
        }
        let name = format!("virtio-net:{index}");
        let running = match vhost {
            None => {
                let receive = self.device_queue(receive, activation);
                let transmit = self.device_queue(transmit, activation);
                let share = |limiter: &Option<RateLimiter>| {
                    limiter.as_ref().map(RateLimiter::share).transpose()
                };
                let (incoming, outgoing) =
                    (share(&self.receive_limiter)?, share(&self.transmit_limiter)?);
                let receiver = Receiver::new(receive, activation.features, self.mtu, incoming);
                let transmitter = Transmitter::new(transmit, outgoing);
                let poll = self.poll.unwrap_or_default().into();
                let control = Arc::clone(&control);
                let pair = UserPair::new(backend, receiver, transmitter, control, poll, self.vcpus);
                Running::User(Worker::spawn(&name, pair)?)
            }
            Some(vhost) => {
                let parts = VhostPairParts {
                    backend,
                    vhost,
                    receive,
                    transmit,
                    memory: activation.memory.clone(),
                    features: activation.features,
                    interrupt: Arc::clone(&activation.interrupt),
                    control: Arc::clone(&control),
                    poll: self.poll.map(Duration::from),
                };
                let pair = VhostPair::start(parts).map_err(|(error, backend, vhost)| {
                    self.idle.insert(index, Idle { backend, vhost: Some(vhost) });
                    error
                })?;
                Running::Vhost(Worker::spawn(&name, pair)?)
            }
        };
        self.running.insert(index, running);
        Ok(control)
    }

    fn start(&mut self, mut activation: Activation) -> Result<(), ActivateError> {
        let queues = std::mem::take(&mut activation.queues);
        let features = activation.features;
        let multiqueue = has(features, VIRTIO_NET_F_MQ);
        let pairs = if multiqueue { self.pairs } else { 1 };
        let host = |action| move |source| ActivateError::Host { device: NAME, action, source };

        let mut queues: BTreeMap<u16, ActiveQueue> =
            queues.into_iter().map(|queue| (queue.index, queue)).collect();
        let mut controls = Vec::new();
        for index in 0..pairs {
            let numbers = (2 * index, 2 * index + 1);
            let (receive, transmit) = (queues.remove(&numbers.0), queues.remove(&numbers.1));
            match (receive, transmit) {
                (Some(receive), Some(transmit)) => {
                    let control = self
                        .start_pair(index, receive, transmit, &activation)
                        .map_err(host("start a queue pair"))?;
                    controls.push(control);
                }
                // A driver may set up fewer pairs than there are, but none without the first.
                (receive, _) if index == 0 => {
                    let queue = u16::from(receive.is_some());
                    return Err(ActivateError::MissingQueue { device: NAME, queue });
                }
                _ => break,
            }
        }
        for idle in self.idle.values_mut() {
            // Frames must not be steered to queues that nobody serves.
            idle.backend.set_attached(false).map_err(host("detach an unused queue"))?;
        }
        if has(features, VIRTIO_NET_F_CTRL_VQ)
            && let Some(queue) = queues.remove(&(2 * pairs))
        {
            let queue = self.device_queue(queue, &activation);
            let control = ControlQueue::new(queue, controls, multiqueue);
            let worker = Worker::spawn("virtio-net:ctl", control);
            self.control = Some(worker.map_err(host("start the control queue"))?);
        }
        Ok(())
    }
}

/// Features that need the kernel's agreement when it works the rings.
const VHOST_DECIDES: u64 = 1 << virtio_bindings::virtio_net::VIRTIO_NET_F_MRG_RXBUF
    | 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_INDIRECT_DESC
    | 1 << virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;

impl VirtioDevice for VirtioNet {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        1
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let mut sizes = vec![QUEUE_SIZE; 2 * usize::from(self.pairs)];
        if has(self.features, VIRTIO_NET_F_CTRL_VQ) {
            sizes.push(CONTROL_QUEUE_SIZE);
        }
        sizes
    }

    fn device_features(&self) -> u64 {
        self.features
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        // struct virtio_net_config (5.1.4), as far as the offered features reach.
        let mut config = [0; 12];
        config[..6].copy_from_slice(&self.mac.0);
        config[6..8].copy_from_slice(&(VIRTIO_NET_S_LINK_UP as u16).to_le_bytes());
        config[8..10].copy_from_slice(&self.pairs.to_le_bytes());
        config[10..].copy_from_slice(&self.mtu.to_le_bytes());
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (to, from) in data.iter_mut().zip(config.iter().skip(start)) {
            *to = *from;
        }
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {
        // All fields are read-only.
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let result = self.start(activation);
        if result.is_err() {
            self.reset();
        }
        result
    }

    fn reset(&mut self) {
        self.control = None;
        for (index, running) in std::mem::take(&mut self.running) {
            let idle = match running {
                Running::User(worker) => {
                    worker.stop().map(|pair| Idle { backend: pair.backend, vhost: None })
                }
                Running::Vhost(worker) => worker.stop().map(|pair| {
                    pair.stop();
                    Idle { backend: pair.backend, vhost: Some(pair.vhost) }
                }),
            };
            // A pair whose thread panicked is lost; the next activation says so.
            if let Some(idle) = idle {
                self.idle.insert(index, idle);
            }
        }
        for idle in self.idle.values_mut() {
            // Both may fail on a tap that is gone, or was never detached: then there is nothing
            // to set back.
            let _ = idle.backend.set_attached(true);
            let _ = idle.backend.set_offloads(0);
        }
    }
}

impl Drop for VirtioNet {
    fn drop(&mut self) {
        // vhost must let go of guest memory before anyone unmaps it.
        self.reset();
    }
}
