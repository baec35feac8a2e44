//! What the formats of kernel images share: parts to load, and what can be wrong with a file.

use std::io;
use std::path::PathBuf;

/// A part of the kernel: file content. What follows it in memory is zero already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where in the file.
    pub offset: u64,
    /// Bytes in the file.
    pub in_file: u64,
    /// Where in guest-physical memory.
    pub address: u64,
}

/// A kernel image that cannot be started. Every variant names the file.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Missing, or not readable.
    #[error("cannot read kernel {path}")]
    Read {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// None of the formats we know.
    #[error("{path} is not a kernel: neither ELF nor an x86 bzImage or multiboot image")]
    NotAKernel {
        /// The kernel's file, as it was named.
        path: PathBuf,
    },
    /// A format that we know, and cannot start.
    #[error("{path} is {kind}, which cannot be started like this: {hint}")]
    OtherKind {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
        /// How it is started instead.
        hint: &'static str,
    },
    /// An i386 executable that says nothing of how to be started.
    #[error("{path} is a 32-bit ELF with neither a multiboot header nor a PVH or Linux note")]
    NoProtocol {
        /// The kernel's file, as it was named.
        path: PathBuf,
    },
    /// Code for real mode, which calls a BIOS.
    #[error(
        "kernel {path} starts in real mode and needs a BIOS, as iPXE's .lkrn and boot floppies do: \
         put it on a disk or CD, and start that by PC firmware"
    )]
    NeedsFirmware {
        /// The kernel's file, as it was named.
        path: PathBuf,
    },
    /// A multiboot kernel that cannot do without what we lack.
    #[error("multiboot kernel {path} requires what is not offered here (flags {flags:#x})")]
    MultibootFlags {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// The unknown ones among those that it requires.
        flags: u32,
    },
    /// For another architecture.
    #[error(
        "kernel {path} is for another machine (ELF machine {machine}, class {class}); x86-64 is needed"
    )]
    OtherMachine {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// `e_machine`.
        machine: u16,
        /// `EI_CLASS`: 1 is 32-bit, 2 is 64-bit.
        class: u8,
    },
    /// Shorter than its headers say.
    #[error("kernel {path} is truncated: it has {length} bytes where its headers need {needed}")]
    Truncated {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// Bytes of the file.
        length: u64,
        /// Bytes there should be.
        needed: u64,
    },
    /// Contradicts the format.
    #[error("kernel {path} is malformed: {what}")]
    Malformed {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// Which field or part contradicts the format.
        what: &'static str,
    },
    /// Before Linux 2.4.
    #[error("bzImage {path} speaks boot protocol {}.{:02}; 2.02 or newer is needed", version >> 8, version & 0xff)]
    OldProtocol {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// As in the setup header.
        version: u16,
    },
    /// The payload could not be decompressed.
    #[error("cannot decompress bzImage {path}")]
    Decompress {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// The decoder's answer.
        #[source]
        source: io::Error,
    },
    /// The guest has less RAM than the kernel occupies.
    #[error(
        "memory: kernel {path} occupies guest memory up to {} MiB, but there are {} MiB; raise memory",
        end.div_ceil(1 << 20),
        memory >> 20
    )]
    TooLarge {
        /// The kernel's file, as it was named.
        path: PathBuf,
        /// End of the kernel in guest memory.
        end: u64,
        /// End of the RAM below 4 GiB.
        memory: u64,
    },
}
