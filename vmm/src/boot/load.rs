//! Filling guest RAM: kernel, firmware tables, initrd, command line.

use std::borrow::Cow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::BootError;
use super::hardware::Hardware;
use super::initrd::InitrdPart;
use super::kernel::{Kernel, Protocol};
use super::kernel_cache::KernelCache;
use super::prepare::{Information, prepare};
use super::{acpi, mptable, reset_vector};
use crate::memory::GuestRam;

/// How the kernel learns of processors, interrupts and power control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareTables {
    /// ACPI tables: what stock kernels expect.
    #[default]
    Acpi,
    /// Intel MultiProcessor tables, for kernels built without ACPI. The guest cannot power off.
    Mp,
}

/// A kernel to start, and what it is given.
pub struct KernelConfig {
    /// An ELF vmlinux, a bzImage, or another ELF or multiboot kernel.
    pub image: PathBuf,
    /// Concatenated, each part starting on a 4-byte boundary.
    pub initrd: Vec<InitrdPart>,
    /// The kernel command line.
    pub cmdline: String,
    /// See [`FirmwareTables`].
    pub tables: FirmwareTables,
    /// Where decompressed kernels are kept; by default
    /// `${XDG_CACHE_HOME:-~/.cache}/isolab/vmlinux`.
    pub cache: Option<PathBuf>,
}

impl KernelConfig {
    /// `image` with ACPI tables and nothing else.
    pub fn new(image: impl Into<PathBuf>) -> Self {
        Self {
            image: image.into(),
            initrd: Vec::new(),
            cmdline: String::new(),
            tables: FirmwareTables::default(),
            cache: None,
        }
    }
}

/// Fills `ram`, up to a kernel that can take its first step on `cpus` processors, `hardware`, and
/// those of COM1 to COM4 that `serial` tells of.
///
/// # Errors
/// [`BootError`].
pub fn load(
    config: &KernelConfig,
    hardware: &Hardware,
    cpus: u32,
    serial: [bool; 4],
    ram: &GuestRam,
) -> Result<Kernel, BootError> {
    let cache = KernelCache::new(config.cache.clone());
    let kernel = Kernel::open(&config.image, cache.as_ref())?;
    kernel.load(ram)?;
    let acpi = match config.tables {
        FirmwareTables::Mp => None,
        FirmwareTables::Acpi => {
            let description = acpi::Description { cpus, serial, board: &hardware.acpi };
            Some(acpi::write(ram, &description)?)
        }
    };
    // Beside ACPI tables, too: a kernel that prefers those still looks for this one first, and
    // spends 7 ms on the emulated KVM host to find that it is missing.
    mptable::write(ram, cpus)?;
    reset_vector::write(ram)?;
    let is_linux = matches!(kernel.protocol, Protocol::Linux64 | Protocol::Linux32);
    let words = &hardware.linux_words;
    let cmdline = match words.is_empty() {
        false if is_linux => Cow::Owned(format!("{words} {}", config.cmdline)),
        _ => Cow::Borrowed(&*config.cmdline),
    };
    let (initrd, reserved) = (&*config.initrd, hardware.reserved);
    prepare(ram, &kernel, &Information { cmdline: &cmdline, initrd, acpi, reserved })?;
    Ok(kernel)
}
