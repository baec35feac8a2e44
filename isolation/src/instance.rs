//! What every level does for an instance.

use std::os::fd::{BorrowedFd, OwnedFd};

use isolab_guest::control::Patience;
use isolab_images::Image;
use oci_spec::runtime::Spec;

use crate::controller::{Controller, Stdio};
use crate::error::IsolationError;
use crate::filesystem::Filesystem;
use crate::instances::InstanceFolder;
use crate::network::Network;
use crate::timeline::Milestones;
use crate::workload_status::WorkloadStatus;

/// What to run, independent of the level.
pub struct InstanceSpec {
    /// Its name and its place on this host; removed with the instance.
    pub folder: InstanceFolder,
    /// Command, environment, user, working directory, host name and limits, in the words of the
    /// OCI runtime specification. `root` is not used: `image` is the root file system.
    pub spec: Spec,
    /// The root file system.
    pub image: Image,
    /// What is mounted over it.
    pub filesystem: Filesystem,
    /// Put a process of ours before the command, which reaps orphans. A guest has one in any case.
    pub init: bool,
    /// Where its standard streams go. `process.terminal` of the specification is not used.
    pub stdio: Stdio,
    /// The guest kernel for the VM levels: a name in the cache or a path. Each level has its own
    /// default.
    pub kernel: Option<String>,
    /// How long the guest of a VM level may be silent before it is given up.
    pub patience: Patience,
    /// How the instance is connected.
    pub network: Network,
}

/// A level of isolation.
pub trait Isolation {
    /// Makes all resources of an instance; nothing runs yet.
    ///
    /// # Errors
    /// What the level could not make. Nothing is left behind.
    fn create(&self, spec: InstanceSpec) -> Result<Box<dyn Instance>, IsolationError>;
}

/// One workload at one level. Dropping it ends the workload and leaves nothing behind, neither on the
/// host nor in this process (but for the addresses of a guest's RAM, whose pages are given back). It
/// takes as long as the kernel takes: tens of milliseconds for a virtual machine.
pub trait Instance {
    /// Starts the workload.
    ///
    /// # Errors
    /// It cannot be started; [`IsolationError::exit_code`] has the code that says why.
    fn start(&mut self) -> Result<(), IsolationError>;

    /// Waits until the workload runs, which at the VM levels only the guest knows.
    ///
    /// # Errors
    /// It could not be started, as [`Instance::start`] and [`Instance::wait`] tell it.
    fn wait_started(&mut self) -> Result<(), IsolationError> {
        Ok(())
    }

    /// Waits for the workload's end.
    ///
    /// # Errors
    /// The level lost track of it, for example because the guest kernel crashed; at VM levels
    /// also that the workload could not be started, which only the guest knows.
    fn wait(&mut self) -> Result<WorkloadStatus, IsolationError>;

    /// Whether a kernel killed processes of it because the memory that it may use was used up: the host's, or
    /// that of its guest. Known when the workload has ended, and until it is removed.
    fn has_run_out_of_memory(&self) -> bool;

    /// What reaches the workload while it is waited for.
    ///
    /// # Errors
    /// The host is out of file descriptors.
    fn controller(&self) -> Result<Box<dyn Controller>, IsolationError>;

    /// Our end of the workload's terminal, once, if there is one ([`Stdio::Terminal`]): what
    /// [`ExecProcess::terminal`](crate::ExecProcess::terminal) is for a further process.
    fn terminal(&mut self) -> Option<OwnedFd>;

    /// The network namespace that was made with it, where a user namespace of the instance's own owns it: only now can
    /// somebody connect it. None at the VM levels.
    fn network_namespace(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// The milestones so far.
    fn milestones(&self) -> Milestones;

    /// Ends the workload and removes all that the instance has on the host. Dropping does the same, but
    /// cannot say what went wrong.
    ///
    /// # Errors
    /// What could not be removed.
    fn remove(self: Box<Self>) -> Result<(), IsolationError>;

    /// [`Instance::remove`] for a process that ends right behind it: what goes with the process, such
    /// as a virtual machine and its threads, is left to the kernel.
    ///
    /// # Errors
    /// As there.
    fn remove_at_exit(self: Box<Self>) -> Result<(), IsolationError> {
        self.remove()
    }
}
