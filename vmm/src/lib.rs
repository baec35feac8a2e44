//! The virtual machine monitor: one KVM machine, two device sets.
//!
//! Start at [`machine`] for the story on one page, at [`board`] for the devices of each set, at
//! [`bus`] for how an access of the guest reaches a device, at [`irq`] for the way back, and at
//! [`backend`] for what virtio and emulated devices share.

#[cfg(test)]
mod allocations;
pub mod backend;
pub mod board;
pub mod boot;
pub mod bus;
pub mod chipset;
pub mod config;
pub mod control;
mod eintr;
pub mod emulated;
pub mod error;
mod footprint;
pub mod handle;
pub mod irq;
pub mod kvm;
mod log_limit;
pub mod machine;
pub mod memory;
pub mod pci;
mod poison;
pub mod probe;
pub mod rate_limit;
pub mod segments;
pub mod stats;
pub mod teardown;
pub mod threads;
pub mod timeline;
pub mod vcpu;
pub mod virtio;
pub mod vm;
