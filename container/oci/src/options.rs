//! The command line: runc's, which is what callers of OCI runtimes speak.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An OCI runtime: runs containers from bundles, for podman and other engines.
#[derive(Debug, Parser)]
#[command(name = "isolab-oci", version)]
pub struct Options {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Where the containers' state is; by default isolab-oci in /run, or in $XDG_RUNTIME_DIR without root.
    #[arg(long, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Write errors to this file as well.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How errors are written there.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// For callers that pass it; there is no more to tell.
    #[arg(long)]
    pub debug: bool,
    /// Refused: cgroups are made directly, not by systemd.
    #[arg(long)]
    pub systemd_cgroup: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a container, whose process waits to be started.
    Create(Create),
    /// Start the process of a container that was created.
    Start(Id),
    /// Print a container's state as JSON.
    State(Id),
    /// Send a signal to a container.
    Kill(Kill),
    /// Remove a container that has stopped.
    Delete(Delete),
    /// Create, start, wait for the end, delete.
    Run(Run),
    /// Run a further process in a container.
    Exec(Exec),
    /// List the processes in a container.
    Ps(Ps),
    /// Make a container stand still.
    Pause(Id),
    /// Let a container go on.
    Resume(Id),
    /// List containers.
    List(List),
    /// Print what this runtime can do, as JSON.
    Features,
    /// Write a configuration to begin with, config.json, into the bundle.
    Spec {
        /// The bundle.
        #[arg(long, short, value_name = "DIR", default_value = ".")]
        bundle: PathBuf,
    },
}

#[derive(Debug, Args)]
pub struct Id {
    /// The container.
    pub id: String,
}

#[derive(Debug, Args)]
pub struct Create {
    /// The container's id: letters, digits, `_`, `+`, `-`, `.`.
    pub id: String,
    /// The folder with config.json and the root file system.
    #[arg(long, short, value_name = "DIR", default_value = ".")]
    pub bundle: PathBuf,
    /// Write the process's id to this file.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Send the terminal's master to this socket.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Refused but for 0: what else is open is not passed on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Refused: the root is always changed by pivot_root.
    #[arg(long)]
    pub no_pivot: bool,
    /// For callers that pass it; a container always has a new session keyring.
    #[arg(long)]
    pub no_new_keyring: bool,
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    pub create: Create,
    /// Do not wait for the end.
    #[arg(long, short)]
    pub detach: bool,
    /// Do not delete the container at its end.
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Args)]
pub struct Kill {
    /// The container.
    pub id: String,
    /// A signal's name or number.
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
    /// To all processes in it.
    #[arg(long, short)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct Delete {
    /// The container.
    pub id: String,
    /// Kill it first if it runs; no error if there is none.
    #[arg(long, short)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Exec {
    /// The container.
    pub id: String,
    /// A JSON file with the process, as in config.json.
    #[arg(long, short, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Give it a terminal.
    #[arg(long, short)]
    pub tty: bool,
    /// Set an environment variable.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Its working directory.
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<PathBuf>,
    /// Its user and group, by number.
    #[arg(long, short, value_name = "UID[:GID]")]
    pub user: Option<String>,
    /// Do not wait for its end.
    #[arg(long, short)]
    pub detach: bool,
    /// Write its id to this file.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Send the terminal's master to this socket.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Refused but for 0: what else is open is not passed on.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// The command and its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub struct Ps {
    /// The container.
    pub id: String,
    /// A table, or a list of ids as JSON.
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct List {
    /// A table, or JSON.
    #[arg(long, short, value_enum, default_value = "table")]
    pub format: Format,
    /// Ids alone.
    #[arg(long, short)]
    pub quiet: bool,
}
