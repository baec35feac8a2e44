//! The mailbox: a small disk on which frames go that are long for a serial line.
//!
//! A byte of a serial line is an exit of the machine; a disk's controller moves 128 KiB by DMA for some
//! thirty. So who has more than [`SHORT`] bytes to say writes it, whole frames, to its slot of the disk, and
//! says on the line how much that is. The reader copies it and says on the line that the slot is free again.
//! What is read is what was written before the line told of it, and in its order.

/// What the disk begins with.
pub const MAGIC: [u8; 16] = *b"isolab mailbox 1";
/// Bytes of each slot.
pub const SLOT: usize = 256 << 10;
/// Where the guest's slot begins.
pub const FROM_GUEST: u64 = 4096;
/// Where the host's slot begins.
pub const FROM_HOST: u64 = FROM_GUEST + SLOT as u64;
/// Bytes of the disk.
pub const SIZE: u64 = FROM_HOST + SLOT as u64;
/// What is not worth the disk's commands, in bytes.
pub const SHORT: usize = 64;
/// What the host sends on the line, in bytes, before it uses the mailbox for whatever comes next. A serial
/// line has no flow control that reaches into the guest, and its tty layer drops what nobody reads; this fits
/// into that layer's buffers.
pub const SERIAL_WINDOW: usize = 2048;
