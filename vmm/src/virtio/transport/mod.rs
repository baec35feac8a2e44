//! How a driver finds, configures and starts a virtio device: the state machine that all
//! transports share ([`handshake`]), virtio over PCI ([`pci`]) and over MMIO ([`mmio`]).

pub mod acpi;
pub mod handshake;
pub mod mmio;
pub mod notify;
pub mod pci;
mod pci_capabilities;
mod pci_interrupt;
#[cfg(test)]
pub(crate) mod testing;

pub use handshake::{Handshake, Signals};
pub use mmio::VirtioMmio;
pub use notify::{KvmNotifyRegistrar, NotifyRegistrar};
pub use pci::VirtioPci;

use std::io;

use crate::pci::config_space::ConfigSpaceError;

/// A device that cannot be given a transport.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// Queue sizes must be powers of two up to 32768, and there is room for 255 queues.
    #[error(
        "{device}: its {queues} queues of at most {size} entries cannot be: virtio allows powers of two up to 32768, and the transport 255 queues"
    )]
    Queues {
        /// The device's name in statistics.
        device: &'static str,
        /// How many queues it has.
        queues: usize,
        /// The first wrong size, or the largest.
        size: u16,
    },
    /// The configuration space is too small.
    #[error(transparent)]
    ConfigSpace(#[from] ConfigSpaceError),
    /// The host is out of something.
    #[error("{device}: cannot make {what}")]
    Host {
        /// The device's name in statistics.
        device: &'static str,
        /// What could not be made.
        what: &'static str,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
}
