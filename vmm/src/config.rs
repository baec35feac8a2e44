//! What the operator asks for: plain structs, validated once, with errors that name the field.

use std::path::PathBuf;

use nix::sys::sysinfo::sysinfo;

use crate::backend::serial_port::SerialPort;
use crate::board::BoardConfig;
use crate::board::paravirtual::Transport;
use crate::boot::load::{FirmwareTables, KernelConfig};

/// Linux brings up nothing useful in less; the kernel image and the initramfs come on top.
pub const MIN_MEMORY: u64 = 16 << 20;

/// xAPIC ids are 8 bits wide and 0xff is the broadcast address.
pub const MAX_CPUS: u32 = 254;

/// What a machine has, before anything of it is opened or made.
pub struct MachineConfig {
    /// What is started, unless the board has firmware that finds a kernel itself.
    pub kernel: KernelConfig,
    /// Guest RAM in bytes, a multiple of 4096.
    pub memory: u64,
    /// Virtual CPUs, 1 to [`MAX_CPUS`].
    pub cpus: u32,
    /// COM1 to COM4; a port without a host side does not exist.
    pub serial: [Option<SerialPort>; 4],
    /// The board, with all devices on it.
    pub board: BoardConfig,
}

impl MachineConfig {
    /// A machine with `kernel` and nothing else: 128 MiB, one CPU, no serial port.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: KernelConfig::new(kernel),
            memory: 128 << 20,
            cpus: 1,
            serial: [None, None, None, None],
            board: BoardConfig::default(),
        }
    }

    /// Checks everything that can be judged without the kernel image and without KVM.
    ///
    /// # Errors
    /// The first field that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.cpus == 0 || self.cpus > MAX_CPUS {
            return Err(ConfigError::Cpus { cpus: self.cpus, max: MAX_CPUS });
        }
        if self.memory < MIN_MEMORY {
            return Err(ConfigError::MemoryTooSmall { memory: self.memory, least: MIN_MEMORY });
        }
        if !self.memory.is_multiple_of(4096) {
            return Err(ConfigError::MemoryUnaligned { memory: self.memory });
        }
        let host = host_memory();
        if self.memory > host {
            return Err(ConfigError::MemoryBeyondHost { memory: self.memory, host });
        }
        if let BoardConfig::Paravirtual(board) = &self.board
            && board.transport == Transport::Mmio
            && self.kernel.tables == FirmwareTables::Mp
        {
            return Err(ConfigError::MmioNeedsAcpi);
        }
        if self.kernel.cmdline.contains('\0') {
            return Err(ConfigError::CmdlineNul);
        }
        Ok(())
    }
}

/// RAM and swap of the host: more than that can never be resident.
fn host_memory() -> u64 {
    match sysinfo() {
        Ok(info) => info.ram_total().saturating_add(info.swap_total()),
        // Never: the call has no reason to fail. The mapping itself is checked later.
        Err(_) => u64::MAX,
    }
}

/// A setting that cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Zero, or more than the APIC can name.
    #[error("cpus: {cpus} is out of range; use 1 to {max}")]
    Cpus {
        /// vCPUs that were asked for.
        cpus: u32,
        /// The most that there may be.
        max: u32,
    },
    /// Less than [`MIN_MEMORY`]: no kernel would come up.
    #[error("memory: {memory} bytes is too small; use at least {} MiB", least >> 20)]
    MemoryTooSmall {
        /// Asked for, in bytes.
        memory: u64,
        /// [`MIN_MEMORY`], in bytes.
        least: u64,
    },
    /// RAM is mapped into the guest by the page.
    #[error("memory: {memory} bytes is not a multiple of the page size, 4096")]
    MemoryUnaligned {
        /// Asked for, in bytes.
        memory: u64,
    },
    /// The guest would be killed, or the host with it.
    #[error(
        "memory: {} MiB is more than this host's RAM and swap together ({} MiB)",
        memory >> 20,
        host >> 20
    )]
    MemoryBeyondHost {
        /// Asked for, in bytes.
        memory: u64,
        /// RAM and swap, in bytes.
        host: u64,
    },
    /// The guest's physical addresses do not reach that far.
    #[error(
        "memory: {} MiB does not fit into the {bits}-bit physical addresses of this CPU",
        memory >> 20
    )]
    MemoryBeyondAddresses {
        /// Asked for, in bytes.
        memory: u64,
        /// CPUID 0x80000008, EAX bits 7:0.
        bits: u32,
    },
    /// More vCPUs than KVM makes for one machine.
    #[error("cpus: {cpus} is more than the {max} that KVM allows on this host")]
    CpusBeyondKvm {
        /// vCPUs that were asked for.
        cpus: u32,
        /// What KVM_CAP_MAX_VCPUS says.
        max: usize,
    },
    /// Nothing else tells a kernel where the devices are.
    #[error("virtio over MMIO needs ACPI tables: an MP table does not tell of such devices")]
    MmioNeedsAcpi,
    /// The command line is NUL-terminated in guest memory.
    #[error("cmdline: contains a NUL byte")]
    CmdlineNul,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::paravirtual;

    #[test]
    fn a_plain_configuration_is_valid() {
        assert_eq!(MachineConfig::new("/vmlinux").validate(), Ok(()));
    }

    #[test]
    fn bad_fields_are_named() {
        let broken = |change: fn(&mut MachineConfig)| {
            let mut config = MachineConfig::new("/vmlinux");
            change(&mut config);
            config.validate().unwrap_err().to_string()
        };
        assert!(broken(|c| c.cpus = 0).starts_with("cpus: "));
        assert!(broken(|c| c.cpus = 255).starts_with("cpus: "));
        assert!(broken(|c| c.memory = 0).starts_with("memory: 0 bytes is too small"));
        assert!(broken(|c| c.memory = (64 << 20) + 1).contains("multiple of the page size"));
        assert!(broken(|c| c.memory = 1 << 60).contains("more than this host's RAM"));
        let mmio_without_acpi = |c: &mut MachineConfig| {
            let transport = Transport::Mmio;
            let board = paravirtual::Options { transport, ..Default::default() };
            (c.board, c.kernel.tables) = (BoardConfig::Paravirtual(board), FirmwareTables::Mp);
        };
        assert!(broken(mmio_without_acpi).starts_with("virtio over MMIO needs ACPI tables"));
        assert!(broken(|c| c.kernel.cmdline = "a\0b".into()).starts_with("cmdline: "));
    }
}
