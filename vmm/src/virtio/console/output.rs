//! What the guest prints: buffers on their way to the host, as fast as that takes them.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::{BUDGET, PIECE};
use crate::backend::output::Output;
use crate::segments;
use crate::virtio::chain::Chain;
use crate::virtio::queue::{BrokenQueue, DeviceQueue};
use crate::virtio::service::{Service, Step};

/// The longest output buffer; longer ones are refused. Linux sends at most 32 KiB.
const MAX_OUTPUT: u64 = 1 << 20;

/// The transmit queue (5.3.6): what the guest prints goes to the host.
pub struct Printer {
    queue: DeviceQueue,
    output: Output,
    room: Arc<EventFd>,
    /// A buffer that the host's side had no room for.
    printing: Option<Printing>,
}

/// A buffer on its way out.
struct Printing {
    chain: Chain,
    /// Bytes of the chain.
    length: u64,
    /// Bytes of these that the host has taken.
    done: u64,
}

/// What became of a [`Printing`].
enum Printed {
    All,
    /// It goes on when there is room.
    Part,
    /// It lies outside RAM, or was longer than any console's.
    Refused,
}

impl Printer {
    /// Prints what comes through `queue` to `output`, which signals `room` after it was full.
    pub fn new(queue: DeviceQueue, output: Output, room: Arc<EventFd>) -> Self {
        Self { queue, output, room, printing: None }
    }

    /// Signalled when there is room again.
    pub fn room_fd(&self) -> RawFd {
        self.room.as_raw_fd()
    }

    /// The host's side, for the next activation.
    pub fn into_parts(self) -> (Output, Arc<EventFd>) {
        (self.output, self.room)
    }

    fn next(&mut self) -> Result<Option<Printing>, BrokenQueue> {
        if let Some(printing) = self.printing.take() {
            return Ok(Some(printing));
        }
        let chain = self.queue.pop_finite()?;
        Ok(chain.map(|chain| Printing { length: chain.readable_length(), chain, done: 0 }))
    }

    fn print(&self, printing: &mut Printing) -> Printed {
        let Printing { chain, length, done } = printing;
        if *length > MAX_OUTPUT {
            return Printed::Refused;
        }
        let mut piece = [0; PIECE];
        while done < length {
            let room = self.output.room();
            if room == 0 {
                return Printed::Part;
            }
            let piece = &mut piece[..room.min(PIECE)];
            let memory = self.queue.memory();
            let Some(read) = segments::read(memory, &chain.readable, *done, piece) else {
                return Printed::Refused;
            };
            self.output.push(&piece[..read]);
            *done += read as u64;
        }
        Printed::All
    }
}

impl Service for Printer {
    const BUDGET: usize = BUDGET;

    fn queue(&mut self) -> &mut DeviceQueue {
        &mut self.queue
    }

    fn step(&mut self) -> Result<Step, BrokenQueue> {
        let Some(mut printing) = self.next()? else {
            return Ok(Step::Empty);
        };
        match self.print(&mut printing) {
            Printed::All => self.queue.counters().request(printing.length),
            Printed::Refused => self.queue.counters().error(),
            Printed::Part => {
                self.printing = Some(printing);
                return Ok(Step::Waiting);
            }
        }
        self.queue.push(printing.chain, 0)?;
        Ok(Step::Done)
    }
}
