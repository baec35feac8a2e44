//! Virtual CPUs: what they are told of themselves ([`cpuid`]), how they start ([`setup`]), run
//! ([`run`], [`threads`]) and are made to stop ([`kick`]).

pub mod cpuid;
pub mod kick;
pub mod run;
pub mod setup;
pub mod threads;

use std::fmt;

use kvm_bindings::{kvm_regs, kvm_sregs};
use kvm_ioctls::VcpuFd;

/// The registers that tell where a guest went wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    general: kvm_regs,
    system: kvm_sregs,
}

impl Registers {
    fn of(fd: &VcpuFd) -> Option<Self> {
        Some(Self { general: fd.get_regs().ok()?, system: fd.get_sregs().ok()? })
    }
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { general, system } = self;
        write!(
            f,
            "RIP={:#x} RSP={:#x} RFLAGS={:#x} CS={:#x} CR0={:#x} CR2={:#x} CR3={:#x} CR4={:#x} EFER={:#x}",
            general.rip,
            general.rsp,
            general.rflags,
            system.cs.selector,
            system.cr0,
            system.cr2,
            system.cr3,
            system.cr4,
            system.efer
        )
    }
}

/// What stopped a vCPU for good.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub enum Fault {
    /// KVM_EXIT_SHUTDOWN.
    #[error("triple fault")]
    TripleFault,
    /// KVM_EXIT_FAIL_ENTRY.
    #[error("the hardware refused to enter the guest (reason {reason:#x} on host CPU {cpu})")]
    FailEntry {
        /// The hardware's own reason.
        reason: u64,
        /// Number of the host's CPU that refused.
        cpu: u32,
    },
    /// KVM_EXIT_INTERNAL_ERROR.
    #[error("KVM internal error, suberror {suberror}{}", suberror_meaning(*suberror))]
    Internal {
        /// KVM_INTERNAL_ERROR_*.
        suberror: u32,
    },
    /// KVM_EXIT_MEMORY_FAULT.
    #[error("KVM cannot resolve guest memory at {address:#x}")]
    Memory {
        /// Guest-physical address.
        address: u64,
    },
    /// KVM_EXIT_SYSTEM_EVENT that is neither shutdown nor reset.
    #[error("the guest crashed (system event {0})")]
    SystemEvent(u32),
    /// An exit that nothing here asked for.
    #[error("unexpected KVM exit: {0}")]
    Unexpected(&'static str),
    /// KVM_RUN failed, and not because of a signal.
    #[error("KVM_RUN failed: {0}")]
    Run(kvm_ioctls::Error),
    /// A bug of ours; the message has been printed by the panic hook.
    #[error("its thread panicked")]
    Panicked,
}

fn suberror_meaning(suberror: u32) -> &'static str {
    match suberror {
        1 => " (an instruction that KVM cannot emulate)",
        2 => " (an event while another was being delivered)",
        3 => " (an exit while an event was being delivered)",
        4 => " (an exit reason unknown to KVM)",
        _ => "",
    }
}

/// A vCPU that cannot go on, with its registers where they could be read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("vCPU {cpu}: {fault}{}", registers.as_ref().map(|r| format!("; {r}")).unwrap_or_default())]
pub struct VcpuError {
    /// Which: its APIC id.
    pub cpu: u32,
    /// What stopped it.
    pub fault: Fault,
    /// Its registers when it stopped; none where KVM does not tell them.
    pub registers: Option<Box<Registers>>,
}

impl VcpuError {
    /// Whether a PC would have reset itself and gone on.
    pub fn is_reset(&self) -> bool {
        matches!(self.fault, Fault::TripleFault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_told_with_the_registers() {
        let mut registers = Registers::default();
        registers.general.rip = 0xffff_ffff_8100_0000;
        let error = VcpuError {
            cpu: 1,
            fault: Fault::Internal { suberror: 1 },
            registers: Some(Box::new(registers)),
        };
        let text = error.to_string();
        assert!(
            text.starts_with("vCPU 1: KVM internal error, suberror 1 (an instruction"),
            "{text}"
        );
        assert!(text.contains("; RIP=0xffffffff81000000 RSP="), "{text}");
        assert!(text.contains("CR2=") && text.contains("EFER="), "{text}");
    }
}
