//! Opening /dev/kvm, and interrupt lines made from it.

use std::io;
use std::sync::Arc;

use kvm_ioctls::{Kvm, VmFd};

use crate::irq::{InterruptLine, IrqLine};

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
    /// /dev/kvm cannot be opened for another reason.
    #[error("cannot open /dev/kvm")]
    Open(#[source] io::Error),
    /// Older than Linux 2.6.22.
    #[error("/dev/kvm speaks API version {0}, not 12")]
    ApiVersion(i32),
    /// An ioctl of KVM failed.
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
