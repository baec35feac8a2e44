//! virtio-console (virtio 1.2, 5.3) with one port: a terminal without a UART's exit per byte.

mod input;
mod output;
#[cfg(test)]
mod tests;
mod worker;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use virtio_bindings::virtio_ids::VIRTIO_ID_CONSOLE;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use self::worker::ConsoleQueues;
use super::queue::{DeviceQueue, take_queue};
use super::stats::QueueCounters;
use super::worker::Worker;
use super::{ActivateError, Activation, BASE_FEATURES, VirtioDevice, read_config_bytes};
use crate::backend::output::Output;
use crate::irq::VirtioInterrupt;
use crate::poison::unpoisoned;

const NAME: &str = "virtio-console";
const QUEUE_SIZE: u16 = 64;
/// `VIRTIO_CONSOLE_F_SIZE` (5.3.3).
const F_SIZE: u32 = 0;
/// Bytes moved at a time.
const PIECE: usize = 4096;
/// Buffers handled before the thread looks at its other events.
const BUDGET: usize = 256;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// The console device (5.3), with one port.
pub struct Console {
    ends: Option<Ends>,
    shared: Arc<Shared>,
    counters: [Arc<QueueCounters>; 2],
    worker: Option<Worker<ConsoleQueues>>,
}

/// The host's side; goes to the worker and comes back at a reset.
struct Ends {
    output: Output,
    /// Signalled when `output` has room again.
    room: Arc<EventFd>,
    input: Option<File>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<Terminal>,
}

#[derive(Default)]
struct Terminal {
    columns: u16,
    rows: u16,
    interrupt: Option<Arc<dyn VirtioInterrupt>>,
}

/// Tells the guest the terminal's size.
#[derive(Clone)]
pub struct ConsoleHandle(Arc<Shared>);

impl ConsoleHandle {
    /// The terminal has this size now (`SIGWINCH`).
    pub fn resize(&self, columns: u16, rows: u16) {
        let interrupt = {
            let mut state = self.0.lock();
            (state.columns, state.rows) = (columns, rows);
            state.interrupt.clone()
        };
        if let Some(interrupt) = interrupt {
            interrupt.configuration_changed();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Terminal> {
        unpoisoned(self.state.lock())
    }
}

impl Console {
    /// A console that sends what the guest prints to `output`, no faster than that takes it, and
    /// gives it what can be read from `input`, until that ends.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    pub fn new(output: Output, input: Option<OwnedFd>) -> io::Result<Self> {
        let room = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        let told = Arc::clone(&room);
        // Fails only when the counter is full, and then it is readable.
        output.on_room(move || drop(told.write(1)));
        Ok(Self {
            ends: Some(Ends { output, room, input: input.map(File::from) }),
            shared: Arc::default(),
            counters: Default::default(),
            worker: None,
        })
    }

    /// For telling the guest of a changed terminal.
    pub fn handle(&self) -> ConsoleHandle {
        ConsoleHandle(Arc::clone(&self.shared))
    }

    /// What each queue did, by number: receive, transmit.
    pub fn counters(&self) -> Vec<Arc<QueueCounters>> {
        self.counters.to_vec()
    }
}

impl VirtioDevice for Console {
    fn name(&self) -> &'static str {
        NAME
    }

    fn device_type(&self) -> u32 {
        VIRTIO_ID_CONSOLE
    }

    fn queue_sizes(&self) -> Vec<u16> {
        vec![QUEUE_SIZE; 2]
    }

    fn device_features(&self) -> u64 {
        BASE_FEATURES | 1 << F_SIZE
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let (columns, rows) = {
            let state = self.shared.lock();
            (state.columns, state.rows)
        };
        let mut bytes = [0; 12];
        bytes[..2].copy_from_slice(&columns.to_le_bytes());
        bytes[2..4].copy_from_slice(&rows.to_le_bytes());
        // max_nr_ports, of which there is one without MULTIPORT.
        bytes[4] = 1;
        read_config_bytes(&bytes, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let interrupt = Arc::clone(&activation.interrupt);
        let mut queues = DeviceQueue::from_activation(activation, &self.counters);
        let receive = take_queue(&mut queues, RECEIVE, NAME)?;
        let transmit = take_queue(&mut queues, TRANSMIT, NAME)?;
        let ends = self.ends.take().ok_or_else(|| ActivateError::Host {
            device: NAME,
            action: "find its terminal, which a thread that panicked has lost",
            source: io::ErrorKind::NotConnected.into(),
        })?;
        let handler = ConsoleQueues::new(receive, transmit, ends);
        let worker = Worker::spawn("virtio-console", handler);
        self.worker = Some(worker.map_err(|source| ActivateError::Host {
            device: NAME,
            action: "start its thread",
            source,
        })?);
        self.shared.lock().interrupt = Some(interrupt);
        Ok(())
    }

    fn reset(&mut self) {
        self.shared.lock().interrupt = None;
        if let Some(queues) = self.worker.take().and_then(Worker::stop) {
            self.ends = Some(queues.into_ends());
        }
    }
}
