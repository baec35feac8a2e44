//! From files to a guest that can take its first step.

pub mod acpi;
mod bzimage;
pub mod cpu_state;
pub mod decompress;
mod elf_image;
pub mod error;
pub mod hardware;
pub mod image;
pub mod initrd;
pub mod kernel;
pub mod kernel_cache;
pub mod layout;
mod linux;
pub mod load;
mod memory_map;
pub mod mptable;
mod multiboot;
pub mod prepare;
mod pvh;
pub mod reset_vector;
mod sparse;
