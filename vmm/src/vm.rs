//! Making a VM: its RAM, and what KVM emulates of the chipset.

use std::io;
use std::ops::Range;

use kvm_bindings::{KVM_PIT_SPEAKER_DUMMY, kvm_pit_config, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VmFd};
use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use crate::boot::layout;
use crate::kvm::KvmError;
use crate::memory::GuestRam;

/// Makes a VM with its RAM, interrupt controllers and timer. RAM at guest-physical addresses in
/// `left_out` is left to the caller.
///
/// # Errors
/// KVM refused a call.
pub fn create(kvm: &Kvm, ram: &GuestRam, left_out: Option<Range<u64>>) -> Result<VmFd, KvmError> {
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
