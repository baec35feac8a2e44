//! What can go wrong at the levels.

use std::io;
use std::path::PathBuf;

use isolab_guest::kernels::KernelError;
use isolab_guest::modules::ModuleError;
use isolab_images::ImageError;

/// A failure of isolab itself, unless [`IsolationError::exit_code`] says that the command could
/// not be executed.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// There is no guest kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The virtual machine cannot be made or came to a bad end.
    #[error("{source}{}", console_note(console))]
    Machine {
        /// What happened.
        source: Box<isolab_vmm::machine::Error>,
        /// The last lines of the guest's console.
        console: String,
    },
    /// The machine ended in good order, but before the workload did.
    #[error("the guest ended ({reason}) before the workload did{}", console_note(console))]
    GuestEnded {
        /// How.
        reason: String,
        /// The last lines of the guest's console.
        console: String,
    },
    /// Init reported a failure.
    #[error("the guest's init failed: {why}{}", console_note(console))]
    Init {
        /// Its word.
        why: String,
        /// The last lines of the guest's console.
        console: String,
    },
    /// The command is missing or cannot be executed; the code is 127 or 126.
    #[error("{why}")]
    NotStarted {
        /// The exit code.
        code: u8,
        /// One line.
        why: String,
    },
    /// The container runtime failed.
    #[error(transparent)]
    Container(#[from] isolab_container::Error),
    /// The user that the image or the operator asks for does not exist.
    #[error("user `{user}`: {why}")]
    User {
        /// As given.
        user: String,
        /// What is wrong.
        why: String,
    },
    /// A kernel module is missing.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A program of the host failed.
    #[error("{tool}: {why}; it is in Debian's package {package}")]
    Tool {
        /// Its name.
        tool: &'static str,
        /// Where it comes from.
        package: &'static str,
        /// What it said.
        why: String,
    },
    /// A setting is out of range.
    #[error("{field}: {why}")]
    Setting {
        /// Which.
        field: &'static str,
        /// What is wrong, and the mend.
        why: String,
    },
    /// Two instances of one name.
    #[error("the name `{name}` is a running instance's (process {monitor} waits for its end)")]
    NameInUse {
        /// The name.
        name: String,
        /// The process that the instance belongs to.
        monitor: u32,
    },
    /// The host refused something.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The host refused something that has no path.
    #[error("cannot {action}: {source}")]
    Host {
        /// What was attempted.
        action: &'static str,
        /// The host's answer.
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

    pub(crate) fn host(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| IsolationError::Host { action, source }
    }
}

fn console_note(console: &str) -> String {
    match console.trim() {
        "" => "; its console is empty".to_owned(),
        lines => format!("; the end of its console:\n{lines}"),
    }
}
