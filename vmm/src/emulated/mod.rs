//! The emulated device set: a PC that an operating system knows from the 1990s.

pub mod e1000;
pub mod ide;

#[cfg(test)]
mod testing;
