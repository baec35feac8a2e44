//! ioeventfds: the driver's notification becomes an eventfd write in the host kernel, without a
//! return to user space (Documentation/virt/kvm/api.rst, KVM_IOEVENTFD).

use std::io;
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vmm_sys_util::eventfd::EventFd;

/// Where a driver's write wakes a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotifyAddress {
    /// Guest-physical.
    pub address: u64,
    /// Only 32-bit writes of this value; without it, writes of any width and value.
    pub value: Option<u32>,
}

/// Registers eventfds. Where it refuses, notifications still arrive as accesses to the
/// transport's registers, only slower, so transports ignore errors.
pub trait NotifyRegistrar: Send + Sync {
    /// From now on, a write at `address` writes 1 to `event`.
    ///
    /// # Errors
    /// The host's limit (KVM: 1000 devices on a bus), or the place is taken.
    fn register(&self, event: &EventFd, address: NotifyAddress) -> io::Result<()>;

    /// Undoes [`NotifyRegistrar::register`] with the same arguments.
    ///
    /// # Errors
    /// It was not registered.
    fn unregister(&self, event: &EventFd, address: NotifyAddress) -> io::Result<()>;
}

/// Notifications by KVM's ioeventfds: they do not leave the kernel.
pub struct KvmNotifyRegistrar(pub Arc<VmFd>);

impl NotifyRegistrar for KvmNotifyRegistrar {
    fn register(&self, event: &EventFd, address: NotifyAddress) -> io::Result<()> {
        let at = IoEventAddress::Mmio(address.address);
        // Without a value to compare, KVM need not even decode the instruction.
        match address.value {
            Some(value) => self.0.register_ioevent(event, &at, value),
            None => self.0.register_ioevent(event, &at, NoDatamatch),
        }
        .map_err(Into::into)
    }

    fn unregister(&self, event: &EventFd, address: NotifyAddress) -> io::Result<()> {
        let at = IoEventAddress::Mmio(address.address);
        match address.value {
            Some(value) => self.0.unregister_ioevent(event, &at, value),
            None => self.0.unregister_ioevent(event, &at, NoDatamatch),
        }
        .map_err(Into::into)
    }
}
