//! Everything that a kernel reads at its start, in the form of its boot protocol.

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::error::BootError;
use super::initrd::{self, InitrdPart};
use super::kernel::{Kernel, Protocol};
use super::layout::{CMDLINE, CMDLINE_MAX};
use super::memory_map::memory_map;
use super::{cpu_state, linux, multiboot, pvh};
use crate::memory::{GuestRam, HOLE_START};

/// What a kernel is told.
#[derive(Clone, Copy, Debug)]
pub struct Information<'a> {
    /// The guest kernel's command line, without a NUL.
    pub cmdline: &'a str,
    /// Its initial RAM file system, or modules.
    pub initrd: &'a [InitrdPart],
    /// Address of the RSDP, if there is one.
    pub acpi: Option<u64>,
    /// Ranges (start, length) that it must not take for RAM.
    pub reserved: &'a [(u64, u64)],
}

/// Writes everything that `kernel` reads at its start.
///
/// # Errors
/// [`BootError`].
pub fn prepare(
    ram: &GuestRam,
    kernel: &Kernel,
    information: &Information<'_>,
) -> Result<(), BootError> {
    let Information { cmdline, initrd, acpi, reserved } = *information;
    let map = memory_map(ram.iter().map(|region| region.len()).sum(), reserved);
    let load = |alignment, limit| initrd::load(ram, initrd, alignment, kernel.end, limit);
    match kernel.protocol {
        Protocol::Linux64 | Protocol::Linux32 => {
            let header = linux::header(kernel);
            write_cmdline(ram, cmdline, header.cmdline_size.into())?;
            // Linux skips zeroes between archives, which start on 4-byte boundaries.
            let loaded = load(4, u64::from(header.initrd_addr_max) + 1)?;
            linux::write_zero_page(ram, header, &map, joined(&loaded), acpi)?;
        }
        Protocol::Pvh => {
            write_cmdline(ram, cmdline, CMDLINE_MAX)?;
            let loaded = load(4, HOLE_START)?;
            pvh::write_start_info(ram, &map, joined(&loaded), acpi)?;
        }
        Protocol::Multiboot => {
            if initrd.len() > multiboot::MAX_MODULES {
                return Err(BootError::TooManyModules { count: initrd.len() });
            }
            write_cmdline(ram, &multiboot::cmdline(kernel.path(), cmdline), CMDLINE_MAX)?;
            let modules = load(4096, HOLE_START)?;
            multiboot::write_info(ram, &map, &modules)?;
        }
    }
    cpu_state::write_tables(ram, kernel.protocol)?;
    Ok(())
}

/// Writes a command line of at most `max` bytes, without the NUL behind it.
fn write_cmdline(ram: &GuestRam, cmdline: &str, max: u64) -> Result<(), BootError> {
    let max = max.min(CMDLINE_MAX - 1);
    if cmdline.len() as u64 > max {
        return Err(BootError::CmdlineTooLong { length: cmdline.len(), max });
    }
    ram.write_slice(cmdline.as_bytes(), GuestAddress(CMDLINE))?;
    ram.write_obj(0u8, GuestAddress(CMDLINE + cmdline.len() as u64))?;
    Ok(())
}

/// Parts that lie one behind the other, as one.
fn joined(parts: &[(u64, u64)]) -> Option<(u64, u64)> {
    let (&(start, _), &(last, length)) = (parts.first()?, parts.last()?);
    Some((start, last + length - start))
}

#[cfg(test)]
mod tests;
