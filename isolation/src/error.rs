//! What can go wrong at the levels.

use std::io;
use std::path::PathBuf;

use isolab_guest::control::ControlError;
use isolab_guest::kernel_cache::CacheError;
use isolab_guest::kernels::KernelError;
use isolab_guest::modules::ModuleError;
use isolab_guest::package::PackageError;
use isolab_images::ImageError;
use isolab_vmm::handle::HandleError;
use isolab_volumes::VolumeError;

use crate::level::Level;

/// A failure of isolab itself, unless [`IsolationError::exit_code`] says that the command could
/// not be executed.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A file of the host that a guest is to see cannot be read.
    #[error("cannot read {}", path.display())]
    HostFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A volume cannot be used.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// There is no guest kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The cache of guest kernels cannot be read or written.
    #[error(transparent)]
    KernelCache(#[from] CacheError),
    /// The package lacks the guest's init.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The virtual machine cannot be made or came to a bad end.
    #[error("the virtual machine failed")]
    Machine {
        /// What the monitor could not do.
        source: Box<isolab_vmm::machine::Error>,
        /// The last lines of the guest's console.
        console: String,
    },
    /// The machine ended in good order, but before the workload did.
    #[error("the guest ended ({reason}) before the workload did")]
    GuestEnded {
        /// How it ended, for example `Reset`.
        reason: String,
        /// The last lines of the guest's console.
        console: String,
    },
    /// The guest's kernel gave up.
    #[error("the guest's kernel panicked: {why}")]
    Panicked {
        /// What the kernel said: one line.
        why: String,
        /// The last lines of the guest's console.
        console: String,
    },
    /// The guest has not said a word since its start.
    #[error("the guest has not come up within {seconds} seconds")]
    NeverUp {
        /// How long it may take.
        seconds: u64,
        /// The last lines of the guest's console.
        console: String,
    },
    /// The guest has come up, and says nothing any more.
    #[error("the guest hangs: it has not answered for {seconds} seconds")]
    Hung {
        /// How long it may take.
        seconds: u64,
        /// The last lines of the guest's console.
        console: String,
    },
    /// Init reported a failure.
    #[error("the guest's init failed: {why}")]
    Init {
        /// What init said: one line.
        why: String,
        /// The last lines of the guest's console.
        console: String,
    },
    /// The command is missing or cannot be executed; the code is 127 or 126.
    #[error("{why}")]
    NotStarted {
        /// The exit code to end with: 127 or 126.
        code: u8,
        /// The command and the reason, in one line.
        why: String,
    },
    /// The container runtime failed.
    #[error(transparent)]
    Container(#[from] isolab_container::Error),
    /// The user that the image or the operator asks for does not exist.
    #[error("user `{user}`: {why}")]
    User {
        /// The user as given: `USER[:GROUP]`.
        user: String,
        /// Why there is no such user.
        why: String,
    },
    /// A kernel module is missing.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A program of the host failed.
    #[error("{tool}: {why}; it is in Debian's package {package}")]
    Tool {
        /// The name of the program.
        tool: &'static str,
        /// The Debian package that has it.
        package: &'static str,
        /// How it ended and what it said, or why it could not be run.
        why: String,
    },
    /// A setting is out of range.
    #[error("{field}: {why}")]
    Setting {
        /// The setting, as the request calls it.
        field: &'static str,
        /// What is wrong with its value, and what would be right.
        why: String,
    },
    /// The level has no such thing, or does not have it yet.
    #[error("{level} cannot {what}")]
    Unsupported {
        /// The level that cannot do it.
        level: Level,
        /// What was asked for: a verb and its object.
        what: &'static str,
    },
    /// The guest could not be told something.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The virtual machine did not do what it was told.
    #[error(transparent)]
    Handle(#[from] HandleError),
    /// Two instances of one name.
    #[error("the name `{name}` is a running instance's (process {monitor} waits for its end)")]
    NameInUse {
        /// The name that both want.
        name: String,
        /// The process that the instance belongs to.
        monitor: u32,
    },
    /// A name that an instance has which does not run.
    #[error("the name `{name}` is an instance's that is kept")]
    NameTaken {
        /// The name that both want.
        name: String,
    },
    /// There is no such instance, or not any more.
    #[error("no such instance: `{name}`")]
    NoSuchInstance {
        /// What was asked for: a name, an id or the beginning of one.
        name: String,
    },
    /// The host refused something.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted: a verb, for example `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The host refused something that has no path.
    #[error("cannot {action}")]
    Host {
        /// What was attempted, on what.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl IsolationError {
    /// What a command line ends with: 127 for a command that does not exist, 126 for one that
    /// cannot be executed, and podman's 125 for everything that is isolab's own failure.
    pub fn exit_code(&self) -> u8 {
        match self {
            IsolationError::NotStarted { code, .. } => *code,
            IsolationError::Container(error) => u8::try_from(error.exit_code()).unwrap_or(125),
            _ => 125,
        }
    }

    /// The last lines of the guest's console, where a guest came to a bad end. They may be empty.
    pub fn console(&self) -> Option<&str> {
        match self {
            Self::Machine { console, .. }
            | Self::GuestEnded { console, .. }
            | Self::Panicked { console, .. }
            | Self::NeverUp { console, .. }
            | Self::Hung { console, .. }
            | Self::Init { console, .. } => Some(console.trim()),
            _ => None,
        }
    }

    pub(crate) fn host(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| IsolationError::Host { action, source }
    }
}
