//! What the operator asks for: plain structs, validated once, with errors that name the field.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::backend::disk::DiskOptions;
use crate::backend::net::NetOptions;
use crate::virtio::balloon::BalloonOptions;
use crate::virtio::vsock::VsockOptions;

/// Linux brings up nothing useful in less; the kernel image and the initramfs come on top.
pub const MIN_MEMORY: u64 = 16 << 20;

/// xAPIC ids are 8 bits wide and 0xff is the broadcast address.
pub const MAX_CPUS: u32 = 254;

/// Which machine the guest sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceSet {
    /// Paravirtual: KVM's CPUID leaves and kvmclock are offered.
    #[default]
    Virtio,
    /// A physical PC: no hint of a hypervisor.
    Emulated,
}

/// How virtio devices are found and spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VirtioTransport {
    /// PCI, with an interrupt for each queue (virtio 1.2, 4.1).
    #[default]
    Pci,
    /// A page of registers and a shared interrupt (4.2), described by ACPI: less for the guest to
    /// search at its start.
    Mmio,
}

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

/// A piece of the initial RAM file system. Linux accepts several cpio archives one after the
/// other (Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Clone, Debug)]
pub enum InitrdPart {
    /// A file, compressed or not.
    File(PathBuf),
    /// Bytes made by the caller.
    Bytes(Vec<u8>),
}

/// The host side of a serial port.
pub struct SerialPort {
    /// What the guest sends.
    pub output: Box<dyn Write + Send>,
    /// Whether output is gathered: written and flushed at line ends, and within milliseconds
    /// otherwise. A terminal wants that; a protocol wants every byte at once.
    pub gather: bool,
    /// What the guest receives: anything that can be polled and read. At its end the guest
    /// simply receives nothing more.
    pub input: Option<OwnedFd>,
}

impl SerialPort {
    /// A port that sends to `output` and receives nothing.
    pub fn output_only(output: impl Write + Send + 'static) -> Self {
        Self { output: Box::new(output), gather: true, input: None }
    }
}

/// One machine.
pub struct MachineConfig {
    /// An ELF vmlinux, or a bzImage.
    pub kernel: PathBuf,
    /// PC firmware to start instead of a kernel, which then comes from a disk. Emulated devices
    /// only.
    pub firmware: Option<PathBuf>,
    /// Disks, in the guest's order.
    pub disks: Vec<DiskOptions>,
    /// ISO images in CD-ROM drives. Emulated devices only.
    pub cdroms: Vec<DiskOptions>,
    /// Networks.
    pub nets: Vec<NetOptions>,
    /// Streams between programs of host and guest. Virtio devices only, as are the next three.
    pub vsock: Option<VsockOptions>,
    /// A console without a serial port: hvc0.
    pub console: Option<SerialPort>,
    /// Memory that the guest gives back.
    pub balloon: Option<BalloonOptions>,
    /// Random numbers from the host.
    pub rng: bool,
    /// Concatenated, each part starting on a 4-byte boundary.
    pub initrd: Vec<InitrdPart>,
    /// The kernel command line.
    pub cmdline: String,
    /// Guest RAM in bytes, a multiple of 4096.
    pub memory: u64,
    /// Virtual CPUs.
    pub cpus: u32,
    /// See [`DeviceSet`].
    pub devices: DeviceSet,
    /// See [`VirtioTransport`].
    pub transport: VirtioTransport,
    /// See [`FirmwareTables`].
    pub tables: FirmwareTables,
    /// COM1 to COM4; a port without a host side does not exist.
    pub serial: [Option<SerialPort>; 4],
    /// Where decompressed kernels are kept; by default
    /// `${XDG_CACHE_HOME:-~/.cache}/isolab/vmlinux`.
    pub kernel_cache: Option<PathBuf>,
}

impl MachineConfig {
    /// A machine with `kernel` and nothing else: 128 MiB, one CPU, no serial port.
    pub fn new(kernel: impl Into<PathBuf>) -> Self {
        Self {
            kernel: kernel.into(),
            firmware: None,
            disks: Vec::new(),
            cdroms: Vec::new(),
            nets: Vec::new(),
            vsock: None,
            console: None,
            balloon: None,
            rng: false,
            initrd: Vec::new(),
            cmdline: String::new(),
            memory: 128 << 20,
            cpus: 1,
            devices: DeviceSet::default(),
            transport: VirtioTransport::default(),
            tables: FirmwareTables::default(),
            serial: [None, None, None, None],
            kernel_cache: None,
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
        let only_emulated =
            [("firmware", self.firmware.is_some()), ("cdrom", !self.cdroms.is_empty())];
        if self.devices == DeviceSet::Virtio
            && let Some((field, _)) = only_emulated.into_iter().find(|(_, asked)| *asked)
        {
            return Err(ConfigError::OnlyEmulated { field });
        }
        let only_virtio = [
            ("vsock", self.vsock.is_some()),
            ("console", self.console.is_some()),
            ("balloon", self.balloon.is_some()),
            ("rng", self.rng),
            ("virtio-transport", self.transport != VirtioTransport::default()),
        ];
        if self.devices == DeviceSet::Emulated
            && let Some((field, _)) = only_virtio.into_iter().find(|(_, asked)| *asked)
        {
            return Err(ConfigError::OnlyVirtio { field });
        }
        if self.transport == VirtioTransport::Mmio && self.tables == FirmwareTables::Mp {
            return Err(ConfigError::MmioNeedsAcpi);
        }
        if self.cmdline.contains('\0') {
            return Err(ConfigError::CmdlineNul);
        }
        Ok(())
    }
}

/// RAM and swap of the host: more than that can never be resident.
fn host_memory() -> u64 {
    // SAFETY: `sysinfo` is plain data, for which all zeroes is a valid value.
    let mut info: libc::sysinfo = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live, writable `sysinfo`.
    if unsafe { libc::sysinfo(&mut info) } != 0 {
        return u64::MAX; // Cannot fail with a valid pointer; the mapping itself is checked later.
    }
    info.totalram.saturating_add(info.totalswap).saturating_mul(u64::from(info.mem_unit))
}

/// A setting that cannot work.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// A physical PC's part in a paravirtual machine.
    #[error("{field}: only the emulated device set has that; use --devices emulated")]
    OnlyEmulated {
        /// Asked for.
        field: &'static str,
    },
    /// A paravirtual device in a physical PC.
    #[error("{field}: only the virtio device set has that; use --devices virtio")]
    OnlyVirtio {
        /// Asked for.
        field: &'static str,
    },
    /// Zero, or more than the APIC can name.
    #[error("cpus: {cpus} is out of range; use 1 to {max}")]
    Cpus {
        /// Asked for.
        cpus: u32,
        /// Allowed.
        max: u32,
    },
    /// See [`MIN_MEMORY`].
    #[error("memory: {memory} bytes is too small; use at least {} MiB", least >> 20)]
    MemoryTooSmall {
        /// Asked for, in bytes.
        memory: u64,
        /// Needed, in bytes.
        least: u64,
    },
    /// KVM maps pages.
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
    /// KVM's own limit.
    #[error("cpus: {cpus} is more than the {max} that KVM allows on this host")]
    CpusBeyondKvm {
        /// Asked for.
        cpus: u32,
        /// KVM_CAP_MAX_VCPUS.
        max: usize,
    },
    /// Nothing else tells a kernel where the devices are.
    #[error("virtio-transport: mmio needs ACPI tables; leave out --mp-tables")]
    MmioNeedsAcpi,
    /// The command line is NUL-terminated in guest memory.
    #[error("cmdline: contains a NUL byte")]
    CmdlineNul,
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (c.transport, c.tables) = (VirtioTransport::Mmio, FirmwareTables::Mp);
        };
        assert!(broken(mmio_without_acpi).contains("--mp-tables"));
        let mmio_in_a_pc = |c: &mut MachineConfig| {
            (c.transport, c.devices) = (VirtioTransport::Mmio, DeviceSet::Emulated);
        };
        assert!(broken(mmio_in_a_pc).starts_with("virtio-transport: "));
        assert!(broken(|c| c.cmdline = "a\0b".into()).starts_with("cmdline: "));
    }
}
