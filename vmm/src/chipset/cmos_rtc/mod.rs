//! Real-time clock and CMOS RAM at ports 0x70 and 0x71, after the Motorola MC146818A data sheet.
//! The time is the host's, in UTC, plus what the guest set.

mod calendar;
mod events;
mod registers;

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::registers::Registers;
use crate::bus::BusDevice;
use crate::irq::IrqLine;
use crate::poison::unpoisoned;

/// Index register; data follows.
pub const PORT: u16 = 0x70;
/// ISA interrupt of the clock, as in every PC since the AT.
pub const IRQ: u32 = 8;

/// No longer than this without a look at the host's clock, which may be set meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The clock as the bus sees it, and its thread, which is there once the guest has enabled an
/// interrupt and ends when this is dropped.
pub struct CmosRtc {
    index: u8,
    shared: Arc<Shared>,
}

struct Shared {
    clock: Mutex<Guarded>,
    changed: Condvar,
}

struct Guarded {
    registers: Registers,
    has_thread: bool,
    stop: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Guarded> {
        unpoisoned(self.clock.lock())
    }

    /// Raises the interrupt when it is time.
    fn keep_time(&self) {
        let mut guarded = self.lock();
        while !guarded.stop {
            guarded.registers.tick();
            let wait = guarded.registers.deadline().map(|due| {
                let left = due.saturating_sub(guarded.registers.now());
                Duration::from_nanos(u64::try_from(left).unwrap_or(0)).min(LONGEST_WAIT)
            });
            guarded = match wait {
                None => unpoisoned(self.changed.wait(guarded)),
                Some(wait) => {
                    let waited = self.changed.wait_timeout(guarded, wait);
                    unpoisoned(waited).0
                }
            };
        }
    }
}

impl CmosRtc {
    /// A clock that raises `line`.
    pub fn new(line: IrqLine) -> Self {
        let registers = Registers::new(line, Box::new(host_clock));
        let clock = Mutex::new(Guarded { registers, has_thread: false, stop: false });
        Self { index: 0, shared: Arc::new(Shared { clock, changed: Condvar::new() }) }
    }

    fn access<T>(&self, access: impl FnOnce(&mut Registers) -> T) -> T {
        let mut guarded = self.shared.lock();
        let before = guarded.registers.deadline();
        let result = access(&mut guarded.registers);
        let due = guarded.registers.deadline();
        if due.is_some() && !guarded.has_thread {
            let shared = Arc::clone(&self.shared);
            let thread = crate::threads::builder("rtc").spawn(move || shared.keep_time());
            // A host without a thread to spare is asked again at the next access.
            guarded.has_thread = thread.is_ok();
        } else if due != before {
            self.shared.changed.notify_one();
        }
        result
    }
}

impl Drop for CmosRtc {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
    }
}

/// Nanoseconds since 1970.
fn host_clock() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

impl BusDevice for CmosRtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        // The index register is write-only and reads as all ones.
        if let (1, Some(first)) = (offset, data.first_mut()) {
            let index = self.index;
            *first = self.access(|registers| registers.read(index));
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let value = match (offset, data) {
            // Bit 7 masks NMIs, which no device here raises.
            (0, &[index]) => return self.index = index & 0x7f,
            (0, &[index, value]) => {
                self.index = index & 0x7f;
                value
            }
            (1, &[value]) => value,
            _ => return,
        };
        let index = self.index;
        self.access(|registers| registers.write(index, value));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::irq::InterruptLine;

    struct Rises(Mutex<mpsc::Sender<()>>);

    impl InterruptLine for Rises {
        fn set(&self, asserted: bool) {
            if asserted {
                let _ = self.0.lock().unwrap().send(());
            }
        }
    }

    #[test]
    fn an_enabled_interrupt_comes_by_itself() {
        let (sender, rises) = mpsc::channel();
        let mut rtc = CmosRtc::new(Arc::new(Rises(Mutex::new(sender))));
        for _ in 0..3 {
            rtc.write(0, &[0x0c]);
            rtc.read(1, &mut [0]);
            // Periodic, at 1024 Hz.
            rtc.write(0, &[0x0b, 0x42]);
            rises.recv().unwrap();
        }
    }
}
