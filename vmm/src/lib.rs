//! The virtual machine monitor: one KVM machine, two device sets.
//!
//! Start at [`bus`] for how an access of the guest reaches a device, at [`irq`] for the way back,
//! and at [`backend`] for what virtio and emulated devices share.

pub mod backend;
pub mod bus;
pub mod emulated;
pub mod irq;
pub mod memory;
pub mod virtio;
