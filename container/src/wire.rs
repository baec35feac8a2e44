//! What the channel's messages begin with when they are no step's number: shared with the trampoline, which is an
//! executable of its own.

/// The trampoline could not execute the program.
pub(crate) const EXEC_FAILED: u32 = u32::MAX - 1;
