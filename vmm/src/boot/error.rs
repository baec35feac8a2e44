//! What keeps a kernel from being started.

use std::io;
use std::path::PathBuf;

use vm_memory::GuestMemoryError;

use super::acpi::AcpiError;
use super::image::KernelError;
use super::multiboot::MAX_MODULES;

/// A kernel that cannot be started: itself, or what it is to be told.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Its image cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The ACPI tables do not fit.
    #[error(transparent)]
    Acpi(#[from] AcpiError),
    /// Beyond what this kernel takes.
    #[error("cmdline: {length} bytes is too long; this kernel takes {max}")]
    CmdlineTooLong {
        /// Bytes of the command line, without the NUL.
        length: usize,
        /// Bytes allowed, without the NUL.
        max: u64,
    },
    /// A part cannot be opened or read.
    #[error("cannot read initrd {path}")]
    Initrd {
        /// The part of the initrd, as it was named.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// More than the table has room for.
    #[error("initrd: {count} multiboot modules; there is room for {MAX_MODULES}")]
    TooManyModules {
        /// Parts of the initrd.
        count: usize,
    },
    /// Kernel and initrd together are larger than RAM.
    #[error(
        "memory: an initrd of {} MiB does not fit between the kernel's end at {} MiB and the end \
         of usable memory at {} MiB; raise memory",
        length.div_ceil(1 << 20),
        kernel_end.div_ceil(1 << 20),
        limit >> 20
    )]
    InitrdTooLarge {
        /// Bytes of all parts.
        length: u64,
        /// End of the kernel.
        kernel_end: u64,
        /// Where the initrd has to end.
        limit: u64,
    },
    /// The fixed places of [`super::layout`] are RAM in every valid configuration.
    #[error("cannot write boot structures to guest memory")]
    Guest(#[from] GuestMemoryError),
}
