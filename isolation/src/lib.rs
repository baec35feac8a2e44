//! The four levels of isolation behind one trait.
//!
//! [`level`] gives the [`Isolation`] of a [`Level`]; a [`Request`] and an image make the
//! [`InstanceSpec`] that it takes; the [`Instance`] is started and waited for.

mod build;
mod ending;
mod error;
pub mod host;
mod instance;
mod level;
mod machine;
mod native;
mod network;
mod request;
mod scratch_disk;
pub mod timeline;
mod users;

use std::fs::File;
use std::io::Read;

pub use build::ContainerSteps;
pub use error::IsolationError;
pub use instance::{Ended, Instance, InstanceSpec, Isolation, Signaller};
pub use isolab_container::Limits;
pub use isolab_guest::kernels::GuestKernel;
pub use level::{Level, UnknownLevel};
pub use machine::guest_kernel;
pub use network::{Network, NetworkError};
pub use request::Request;

/// The implementation of a level.
pub fn level(level: Level) -> Box<dyn Isolation> {
    match level {
        Level::Process => Box::new(native::ProcessLevel),
        Level::Container => Box::new(native::ContainerLevel),
        Level::Paravirt | Level::Fullvirt => Box::new(machine::MachineLevel::new(level)),
    }
}

/// A name for an instance that nobody named: twelve random hexadecimal digits.
///
/// # Errors
/// The host has no /dev/urandom.
pub fn instance_id() -> Result<String, IsolationError> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(IsolationError::host("read /dev/urandom"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
