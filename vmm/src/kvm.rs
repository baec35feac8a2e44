//! Opening /dev/kvm, and what is made from it: a VM, interrupt lines.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::boot::layout;
use crate::irq::{InterruptLine, IrqLine};
use crate::memory::GuestRam;

/// KVM's stable API (Documentation/virt/kvm/api.rst, 4.1).
const API_VERSION: i32 = 12;

/// KVM cannot be used, or refused something.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// No KVM module, or a container without the device.
    #[error(
        "/dev/kvm does not exist: load the module kvm_intel or kvm_amd, switch virtualisation on \
         in the firmware, or pass the device into this container"
    )]
    Missing,
    /// The operator is not in the right group.
    #[error("no permission to open /dev/kvm: join its group (`usermod -aG kvm $USER`) or be root")]
    Permission,
    /// Something else.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// Older than Linux 2.6.22.
    #[error("/dev/kvm speaks API version {0}, not 12")]
    ApiVersion(i32),
    /// A call failed.
    #[error("KVM refused {call}")]
    Call {
        /// The ioctl, with its object.
        call: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}

impl KvmError {
    /// For `map_err`: names the call that failed.
    pub fn call(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |error| Self::Call { call, source: error.into() }
    }
}

/// Opens /dev/kvm.
///
/// # Errors
/// [`KvmError`], with a hint where there is one.
pub fn open() -> Result<Kvm, KvmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Missing,
        libc::EACCES | libc::EPERM => KvmError::Permission,
        _ => KvmError::Open(error.into()),
    })?;
    match kvm.get_api_version() {
        API_VERSION => Ok(kvm),
        other => Err(KvmError::ApiVersion(other)),
    }
}

/// Makes a VM with its RAM, interrupt controllers and timer. RAM at guest-physical addresses in
/// `left_out` is left to the caller.
///
/// # Errors
/// KVM refused a call.
pub fn create_vm(
    kvm: &Kvm,
    ram: &GuestRam,
    left_out: Option<Range<u64>>,
) -> Result<VmFd, KvmError> {
    let vm = kvm.create_vm().map_err(KvmError::call("KVM_CREATE_VM"))?;
    let pieces = ram.iter().flat_map(|region| {
        let (start, end) = (region.start_addr().0, region.start_addr().0 + region.len());
        let within = |hole: &Range<u64>| start <= hole.start && hole.end <= end;
        let hole = left_out.clone().filter(within).unwrap_or(end..end);
        [start..hole.start, hole.end..end].into_iter().filter(|piece| !piece.is_empty())
    });
    for (slot, piece) in pieces.enumerate() {
        let host = ram.get_host_address(GuestAddress(piece.start));
        let userspace_addr = host.map_err(|_| KvmError::Call {
            call: "KVM_SET_USER_MEMORY_REGION",
            source: io::Error::from_raw_os_error(libc::EFAULT),
        })? as u64;
        let region = kvm_userspace_memory_region {
            slot: slot as u32,
            guest_phys_addr: piece.start,
            memory_size: piece.end - piece.start,
            userspace_addr,
            flags: 0,
        };
        // SAFETY: the range is guest RAM, mapped until the process ends and accessed by us as
        // volatile memory only.
        unsafe { vm.set_user_memory_region(region) }
            .map_err(KvmError::call("KVM_SET_USER_MEMORY_REGION"))?;
    }
    vm.set_identity_map_address(layout::IDENTITY_MAP)
        .map_err(KvmError::call("KVM_SET_IDENTITY_MAP_ADDR"))?;
    vm.set_tss_address(layout::TSS as usize).map_err(KvmError::call("KVM_SET_TSS_ADDR"))?;
    vm.create_irq_chip().map_err(KvmError::call("KVM_CREATE_IRQCHIP"))?;
    // The dummy speaker makes KVM answer port 0x61, which Linux calibrates the TSC with.
    let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
    vm.create_pit2(pit).map_err(KvmError::call("KVM_CREATE_PIT2"))?;
    Ok(vm)
}

/// An input of the in-kernel interrupt controllers: below 16 the PIC's and the IOAPIC's pin of
/// that number, from 16 the IOAPIC's.
struct Gsi {
    vm: Arc<VmFd>,
    number: u32,
}

impl InterruptLine for Gsi {
    // KVM_IRQ_LINE takes effect before it returns, while an irqfd on such a line goes through a
    // kernel worker: one context switch more per interrupt.
    fn set(&self, asserted: bool) {
        // Fails only without an in-kernel interrupt controller, which every machine has.
        let _ = self.vm.set_irq_line(self.number, asserted);
    }
}

/// The interrupt line with global system interrupt number `number` (0 to 23).
pub fn interrupt_line(vm: &Arc<VmFd>, number: u32) -> IrqLine {
    Arc::new(Gsi { vm: Arc::clone(vm), number })
}
