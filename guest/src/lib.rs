//! What runs inside a guest: init, the initramfs it comes in, the guest kernels; and the host's
//! end of the control channel to it.

pub mod archive;
pub mod control;
pub mod initramfs;
pub mod kernel_cache;
pub mod kernels;
pub mod modules;
pub mod package;
pub mod programs;
mod threads;

pub use isolab_protocol::{
    CapabilitySets, FILES_DIR, FileRequest, GuestUsage, Interface, InterfaceAddress,
    KernelSettings, Line, MARKER_PORT, Marker, Mount, MountSource, NameFile, Process, ProcessId,
    ProcessRecord, Rights, Rlimit, RootDisks, Service, Task, User, WORKLOAD, WindowSize, Workload,
};
