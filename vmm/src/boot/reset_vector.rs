//! What lies where a PC's BIOS begins, for machines without one: software that reboots "through the
//! BIOS" jumps there in real mode (Linux with `reboot=b`, DOS, boot loaders).

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout::RESET_VECTOR;
use crate::chipset::reset;
use crate::memory::GuestRam;

const PORT: [u8; 2] = reset::PORT.to_le_bytes();
const CODE: [u8; 9] = [
    0xb0,
    reset::HARD_RESET, // mov al, HARD_RESET
    0xba,
    PORT[0],
    PORT[1], // mov dx, PORT
    0xee,    // out dx, al
    0xf4,    // hlt
    0xeb,
    0xfd, // jmp to the hlt: nothing comes behind
];

/// Writes the code that resets the machine.
///
/// # Errors
/// The first MiB is RAM in every valid configuration.
pub fn write(ram: &GuestRam) -> Result<(), GuestMemoryError> {
    ram.write_slice(&CODE, GuestAddress(RESET_VECTOR))
}
