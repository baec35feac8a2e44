//! The emulated device set: a PC that an operating system knows from the 1990s.

pub mod acpi;
pub mod assemble;
pub mod e1000;
pub mod firmware;
pub mod ide;
pub mod piix;

#[cfg(test)]
pub(crate) mod testing;
