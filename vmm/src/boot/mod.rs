//! From files to a guest that can take its first step.

pub mod acpi;
pub mod decompress;
pub mod kernel;
pub mod kernel_cache;
pub mod layout;
pub mod linux;
pub mod mptable;
pub mod reset_vector;
