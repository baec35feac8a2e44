//! The control queue: how many queue pairs the driver uses (virtio 1.2, 5.1.6.5.5).

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};
use vmm_sys_util::epoll::EventSet;

use super::pair::PairControl;
use crate::segments;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step, serve, unless_broken};
use crate::virtio::worker::{EventHandler, EventSources};

/// The thread of the control queue.
pub struct ControlQueue {
    queue: DeviceQueue,
    /// One per queue pair that the driver enabled, in order.
    pairs: Vec<Arc<PairControl>>,
    /// Whether MQ was negotiated.
    multiqueue: bool,
}

impl ControlQueue {
    pub fn new(queue: DeviceQueue, pairs: Vec<Arc<PairControl>>, multiqueue: bool) -> Self {
        Self { queue, pairs, multiqueue }
    }

    /// Class, command and its data; then one byte for the answer.
    fn answer(&self, chain: &Chain) -> u32 {
        let mut command = [0; 4];
        let memory = self.queue.memory();
        let length = segments::read(memory, &chain.readable, 0, &mut command);
        let class = u32::from(command[0]);
        let order = u32::from(command[1]);
        let pairs = usize::from(u16::from_le_bytes([command[2], command[3]]));
        let valid = chain.fault.is_none()
            && length == Some(command.len())
            && (class, order) == (VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET)
            && self.multiqueue
            && (1..=self.pairs.len()).contains(&pairs);
        if valid {
            for (index, pair) in self.pairs.iter().enumerate() {
                pair.set_attached(index < pairs);
            }
        } else {
            self.queue.counters().error();
        }
        self.queue.counters().request(0);
        let acknowledgement = if valid { VIRTIO_NET_OK } else { VIRTIO_NET_ERR } as u8;
        segments::write(memory, &chain.writable, 0, &[acknowledgement]).unwrap_or(0) as u32
    }
}

impl Service for ControlQueue {
    const BUDGET: usize = 64;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.queue
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        let Some(chain) = self.queue.pop()? else {
            return Ok(Step::Empty);
        };
        let written = self.answer(&chain);
        self.queue.push(chain, written)?;
        Ok(Step::Done)
    }
}

impl EventHandler for ControlQueue {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.queue.notify_fd(), 0)
    }

    fn start(&mut self, sources: &EventSources) -> ControlFlow<()> {
        unless_broken(serve(self, sources))
    }

    fn handle(&mut self, _: u32, _: EventSet, sources: &EventSources) -> ControlFlow<()> {
        self.queue.notified();
        self.start(sources)
    }
}
