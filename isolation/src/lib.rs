//! The four levels of isolation behind one trait.
//!
//! [`level()`] gives the [`Isolation`] of a [`Level`]; a [`Request`] and an image make the
//! [`InstanceSpec`] that it takes; the [`Instance`] is started and waited for.

mod build;
mod controller;
mod error;
mod filesystem;
pub mod host;
pub mod housekeeping;
mod instance;
mod instances;
mod level;
mod machine;
mod name_files;
mod native;
mod network;
mod request;
mod scratch_disk;
mod security;
mod size;
mod stdio;
mod tap_network;
pub mod timeline;
mod upper;
mod users;
mod workload_status;

use std::fs::File;
use std::io::Read;

pub use build::ContainerSteps;
pub use controller::{Controller, ExecProcess, ProcessEntry, Stats, Stdio};
pub use error::IsolationError;
pub use filesystem::{Filesystem, HostEntry, MemoryOptions, MountSource, VolumeMount};
pub use instance::{Instance, InstanceSpec, Isolation};
pub use instances::{
    Entry, InstanceFolder, InstanceName, Instances, Leftover, NameError, ProcessId, Sweep,
    parse_hostname,
};
pub use isolab_container::{Limits, WindowSize, as_root_of_joined_user_namespace};
pub use isolab_guest::FileRequest;
pub use isolab_guest::control::Patience;
pub use isolab_guest::kernels::GuestKernel;
pub use isolab_guest::{Interface, InterfaceAddress, package};
pub use isolab_volumes as volumes;
pub use level::{Level, UnknownLevel};
pub use machine::{KERNEL_VARIABLE, guest_kernel, kernel_of_both_levels, kernel_of_environment};
pub use network::{Link, Network};
pub use oci_spec::runtime as oci;
pub use request::{FurtherProcess, Request};
pub use security::{
    CapabilityChoice, Device, ProfileError, Seccomp, Security, UNCONFINED, Ulimit, UserAndNetwork,
    UserIds, UserNamespace, read_profile,
};
pub use size::parse_size;
pub use tap_network::{OpenStream, OpenTap, TapNetwork, TapNetworkError};
pub use workload_status::WorkloadStatus;

/// The implementation of a level.
pub fn level(level: Level) -> Box<dyn Isolation> {
    match level {
        Level::Process => Box::new(native::ProcessLevel),
        Level::Container => Box::new(native::ContainerLevel),
        Level::Paravirt | Level::Fullvirt => Box::new(machine::MachineLevel::new(level)),
    }
}

/// Twelve random hexadecimal digits.
fn instance_id() -> Result<String, IsolationError> {
    random_digits::<6>()
}

/// Two hexadecimal digits for each of `BYTES` random bytes.
fn random_digits<const BYTES: usize>() -> Result<String, IsolationError> {
    let mut bytes = [0; BYTES];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(IsolationError::host("read /dev/urandom"))?;
    Ok(isolab_images::ingest::hex(&bytes))
}
