//! Why a machine could not be made or did not end well.

use std::io;

use crate::board::BoardError;
use crate::boot::error::BootError;
use crate::chipset::ChipsetError;
use crate::config::ConfigError;
use crate::kvm::KvmError;
use crate::memory::MemoryError;
use crate::probe;
use crate::vcpu::VcpuError;
use crate::vcpu::threads::Refused;

/// Why a machine could not be made or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// KVM is missing or refused something.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No RAM to be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The kernel cannot be used, or what it is to be told.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// The chipset cannot be put together.
    #[error(transparent)]
    Chipset(#[from] ChipsetError),
    /// The host refused a thread.
    #[error("cannot start the thread `{name}`")]
    Thread {
        /// What it is called in the host's list.
        name: String,
        /// The host's answer.
        #[source]
        source: io::Error,
    },
    /// A device cannot be had.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// The guest cannot go on.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The guest cannot go on, and the host's KVM could not have run it.
    #[error("/dev/kvm cannot run a guest kernel ({fault})")]
    UnfaithfulKvm {
        /// Which vCPU, why, and its registers.
        #[source]
        source: VcpuError,
        /// What the probe guest found.
        fault: String,
    },
}

impl Error {
    /// A triple fault resets a PC, and some kernels reboot by one on purpose; any other fault is an
    /// error. A guest that dies on a KVM that cannot run any should not be searched for the fault.
    pub(crate) fn unless_reset(source: VcpuError) -> Result<VcpuError, Self> {
        let report = probe::open_kvm().and_then(|kvm| probe::probe(&kvm));
        match report.ok().and_then(|report| report.fault()) {
            Some(fault) => Err(Error::UnfaithfulKvm { source, fault }),
            None if source.is_reset() => Ok(source),
            None => Err(Error::Vcpu(source)),
        }
    }
}

impl From<Refused> for Error {
    fn from(Refused { name, source }: Refused) -> Self {
        Self::Thread { name, source }
    }
}
