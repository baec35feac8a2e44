//! The emulated device set: a PC that an operating system knows from the 1990s.

pub mod ide;

#[cfg(test)]
mod testing;
