//! The control queue: how many queue pairs the driver uses (virtio 1.2, 5.1.6.5.5).

use std::io;
use std::sync::Arc;

use virtio_bindings::virtio_net::{
    VIRTIO_NET_CTRL_MQ, VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET, VIRTIO_NET_ERR, VIRTIO_NET_OK,
};
use vmm_sys_util::epoll::EventSet;

use super::pair::PairControl;
use crate::virtio::chain::{self, Chain};
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::worker::{EventHandler, EventSources, Flow};

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

    fn run(&mut self) -> Result<(), BrokenQueue> {
        loop {
            self.queue.disable_notifications()?;
            while let Some(chain) = self.queue.pop()? {
                let written = self.answer(&chain);
                self.queue.push(chain.head, written)?;
            }
            self.queue.announce()?;
            if !self.queue.enable_notifications()? {
                return Ok(());
            }
        }
    }

    /// Class, command and its data; then one byte for the answer.
    fn answer(&self, chain: &Chain) -> u32 {
        let mut command = [0; 4];
        let memory = self.queue.memory();
        let length = chain::read(memory, &chain.readable, &mut command);
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
        chain::write(memory, &chain.writable, &[acknowledgement]).unwrap_or(0) as u32
    }
}

impl EventHandler for ControlQueue {
    fn register(&mut self, sources: &EventSources) -> io::Result<()> {
        sources.watch_event(self.queue.notify_fd(), 0)
    }

    fn start(&mut self, _: &EventSources) -> Flow {
        if self.run().is_err() { Flow::Stop } else { Flow::Continue }
    }

    fn handle(&mut self, _: u32, _: EventSet, _: &EventSources) -> Flow {
        self.queue.counters().notification();
        if self.run().is_err() { Flow::Stop } else { Flow::Continue }
    }
}
