//! Port 0x402, where SeaBIOS writes what it is doing when a device answers there.

use crate::backend::output::Output;
use crate::bus::BusDevice;

/// I/O port that SeaBIOS writes its messages to.
pub const PORT: u64 = 0x402;
/// What a reading of the port returns, by which firmware knows that somebody listens.
const PRESENT: u8 = 0xe9;

/// Passes lines on; what the host does not take in time is lost.
pub struct DebugPort(pub Output);

impl BusDevice for DebugPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        if let Some(first) = data.first_mut() {
            *first = PRESENT;
        }
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        self.0.push(data);
    }
}
