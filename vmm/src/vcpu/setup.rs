//! The state of a vCPU before its first instruction.

use std::mem::offset_of;

use kvm_bindings::{Msrs, kvm_lapic_state, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use crate::boot::cpu_state;
use crate::boot::kernel::Kernel;
use crate::kvm::KvmError;

/// Intel SDM 4, 2.1: IA32_MTRR_DEF_TYPE.
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
/// MTRRs on, and memory write-back unless they say otherwise. KVM's reset value is what hardware
/// has before firmware runs: everything uncached.
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// What every vCPU has after its reset and what firmware would have set. Application processors
/// then wait for INIT and SIPI inside KVM.
///
/// # Errors
/// KVM refused a call.
pub fn after_reset(fd: &VcpuFd) -> Result<(), KvmError> {
    let entry =
        kvm_msr_entry { index: MSR_MTRR_DEF_TYPE, data: MTRR_ON_WRITE_BACK, ..Default::default() };
    let refused = || KvmError::Call {
        call: "KVM_SET_MSRS (MTRR default type)",
        source: std::io::Error::from_raw_os_error(libc::EINVAL),
    };
    let msrs = Msrs::from_entries(&[entry]).map_err(|_| refused())?;
    if fd.set_msrs(&msrs).map_err(KvmError::call("KVM_SET_MSRS"))? != 1 {
        return Err(refused());
    }
    let mut lapic = fd.get_lapic().map_err(KvmError::call("KVM_GET_LAPIC"))?;
    connect_local_interrupts(&mut lapic);
    fd.set_lapic(&lapic).map_err(KvmError::call("KVM_SET_LAPIC"))
}

/// LINT0 takes the PIC's interrupts, LINT1 is the NMI (Intel MP 1.4, 3.6.2.2).
fn connect_local_interrupts(lapic: &mut kvm_lapic_state) {
    const LVT_LINT0: usize = 0x350;
    const LVT_LINT1: usize = 0x360;
    const MODE_NMI: u32 = 4 << 8;
    const MODE_EXTINT: u32 = 7 << 8;
    const { assert!(offset_of!(kvm_lapic_state, regs) == 0) };
    for (register, mode) in [(LVT_LINT0, MODE_EXTINT), (LVT_LINT1, MODE_NMI)] {
        for (to, from) in lapic.regs[register..].iter_mut().zip(mode.to_le_bytes()) {
            *to = from as _;
        }
    }
}

/// Sets the boot processor to the kernel's entry point.
///
/// # Errors
/// KVM refused a call.
pub fn kernel_entry(fd: &VcpuFd, kernel: &Kernel) -> Result<(), KvmError> {
    let reset = fd.get_sregs().map_err(KvmError::call("KVM_GET_SREGS"))?;
    let system = cpu_state::system_registers(kernel.protocol, reset);
    fd.set_sregs(&system).map_err(KvmError::call("KVM_SET_SREGS"))?;
    let general = cpu_state::general_registers(kernel);
    fd.set_regs(&general).map_err(KvmError::call("KVM_SET_REGS"))
}
