//! The command line: runc's, which is what callers of OCI runtimes speak.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The latest version of the runtime specification that this runtime knows all of.
pub const OCI_VERSION: &str = "1.3.0";

/// As engines read runc's: Docker takes what is before and behind the word "version".
const VERSION: &str = concat!("version ", env!("CARGO_PKG_VERSION"), "\nspec: 1.3.0");

/// An OCI runtime: runs containers from bundles, for podman and other engines.
#[derive(Debug, Parser)]
#[command(name = "isolab-oci", version = VERSION)]
pub struct Options {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

impl Options {
    /// The command line. Where it is wrong, or asks for help, that is told, and this process ends.
    pub fn read() -> Self {
        let words: Vec<OsString> = std::env::args_os().collect();
        Alone::read(&words).unwrap_or_else(|| Self::parse_from(words))
    }
}

/// [`Options`] with one command: an engine waits for each of these, and to make the options of all of them takes longer
/// than most do.
#[derive(Debug, Parser)]
#[command(name = "isolab-oci", version = VERSION)]
struct Only<C: Subcommand> {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: C,
}

/// Reads the command line of one command alone.
struct Alone;

/// The commands that engines wait for, each as the only one.
macro_rules! alone {
    ($($word:literal $command:ident($options:ident),)+) => {
        impl Alone {
            /// None where it is wrong, asks for help, or is another command's.
            fn read(words: &[OsString]) -> Option<Options> {
                // A value of an option may look like a command: the next one is tried then.
                words.iter().filter_map(|word| word.to_str()).find_map(|word| match word {
                    $($word => {
                        #[derive(Debug, Subcommand)]
                        enum One {
                            $command($options),
                        }
                        let Only { global, command } = Only::<One>::try_parse_from(words).ok()?;
                        let One::$command(options) = command;
                        Some(Options { global, command: Command::$command(options) })
                    })+
                    _ => None,
                })
            }
        }
    };
}

alone! {
    "create" Create(Create),
    "start" Start(Id),
    "state" State(Id),
    "kill" Kill(Kill),
    "delete" Delete(Delete),
    "run" Run(Run),
    "exec" Exec(Exec),
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
    /// For callers that pass it; who calls is found out.
    #[arg(long, value_name = "WHETHER", num_args = 0..=1, require_equals = true)]
    pub rootless: Option<String>,
    /// Cgroups are made by systemd, and linux.cgroupsPath is slice:prefix:name.
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
    /// Change a container's limits.
    Update(Update),
    /// Print what a container uses, and when it runs out of memory, as JSON lines.
    Events(Events),
    /// List containers.
    List(List),
    /// Not there: fails.
    Checkpoint(Absent),
    /// Not there: fails.
    Restore(Absent),
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
    /// Pass on as many open descriptors from 3 on.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..1024))]
    pub preserve_fds: u32,
    /// Enter the root by a moved mount and chroot(2), which an initramfs needs. Less of a wall than without.
    #[arg(long)]
    pub no_pivot: bool,
    /// Leave it in the caller's session keyring, with the caller's keys.
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
    /// Its additional groups, by number.
    #[arg(long, short = 'g', value_name = "GID")]
    pub additional_gids: Vec<u32>,
    /// Give it a capability more than the container's process has, as in CAP_SYS_PTRACE.
    #[arg(long, short, value_name = "CAP")]
    pub cap: Vec<String>,
    /// Set no_new_privs.
    #[arg(long)]
    pub no_new_privs: bool,
    /// Its AppArmor profile.
    #[arg(long, value_name = "PROFILE")]
    pub apparmor: Option<String>,
    /// Its SELinux label.
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// Do not wait for its end.
    #[arg(long, short)]
    pub detach: bool,
    /// Write its id to this file.
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Send the terminal's master to this socket.
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Pass on as many open descriptors from 3 on.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..1024))]
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

#[derive(Debug, Args)]
pub struct Update {
    /// The container.
    pub id: String,
    /// A JSON file with what changes of linux.resources of config.json; `-` reads standard input.
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    #[command(flatten)]
    pub limits: Limits,
}

/// By name what linux.resources calls otherwise.
#[derive(Debug, Args)]
pub struct Limits {
    /// The most memory, in bytes or as in 64m; -1 for any.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Memory that is left to it when the host runs short.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// The most memory and swap together; -1 for any.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// For callers that pass it; kernels have no such limit any more.
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub kernel_memory: Option<i64>,
    /// The most memory for network buffers (cgroup v1).
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub kernel_memory_tcp: Option<i64>,
    /// The most processes and threads; -1 for any.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// CPU time in relation to others', usually 1024.
    #[arg(long, value_name = "N")]
    pub cpu_share: Option<u64>,
    /// Microseconds of CPU time in each period; -1 for any.
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Microseconds of a period.
    #[arg(long, value_name = "N")]
    pub cpu_period: Option<u64>,
    /// Microseconds that may be saved up for a burst.
    #[arg(long, value_name = "N")]
    pub cpu_burst: Option<u64>,
    /// 1: run when nobody else does.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..=1))]
    pub cpu_idle: Option<i64>,
    /// Microseconds of a period of real time (cgroup v1).
    #[arg(long, value_name = "N")]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds of real time in it (cgroup v1).
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// CPUs, as in 0-2,7.
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Share of block devices' time, 10 to 1000.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(10..=1000))]
    pub blkio_weight: Option<u16>,
}

#[derive(Debug, Args)]
pub struct Events {
    /// The container.
    pub id: String,
    /// Print what it uses once, and no more.
    #[arg(long)]
    pub stats: bool,
    /// Between two prints, as in 5s or 500ms.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_interval)]
    pub interval: Duration,
}

#[derive(Debug, Args)]
pub struct Absent {
    /// Whatever it would take.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    pub rest: Vec<String>,
}

/// Bytes, with the units of 1024 that runc reads: b, k, m, g, t.
fn parse_bytes(text: &str) -> Result<i64, String> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let shift = match &lower[digits.len()..] {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err("a number of bytes is wanted, as in 64m".to_owned()),
    };
    let number: i64 = digits.parse().map_err(|error| format!("{error}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "too much".to_owned())
}

/// Go's notation, as far as it is of use here.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return Err("a time and its unit are wanted, as in 5s or 500ms".to_owned()),
    };
    let number: u32 = digits.parse().map_err(|error| format!("{error}"))?;
    match unit.checked_mul(number) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => Err("a time above zero is wanted".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_sound() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn a_command_alone_is_read_as_among_all() {
        for line in [
            "create --bundle /b --pid-file /p --console-socket=/s web",
            "--root /r --log /l --log-format json --systemd-cgroup create -b /b web --no-pivot",
            "--root create run --keep -d x",
            "start x",
            "state x",
            "kill --all x KILL",
            "kill x 9",
            "delete --force x",
            "exec -t -e A=B --user 1:2 x sh -c run",
            "--rootless=true exec -p /p -d x",
        ] {
            let words: Vec<OsString> =
                ["isolab-oci"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
            let alone = Alone::read(&words).unwrap_or_else(|| panic!("not read: {line}"));
            let among_all = Options::try_parse_from(&words).unwrap();
            assert_eq!(format!("{alone:?}"), format!("{among_all:?}"), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_or_asks_for_help_is_for_the_one_that_knows_all_commands() {
        for line in ["run", "run --help", "--help", "run x --nope", "list", "ps run", "help run"] {
            let words: Vec<OsString> =
                ["isolab-oci"].into_iter().chain(line.split(' ')).map(OsString::from).collect();
            assert!(Alone::read(&words).is_none(), "{line}");
        }
    }

    #[test]
    fn bytes_and_times_have_units() {
        for (text, bytes) in
            [("-1", -1), ("5", 5), ("64m", 64 << 20), ("1G", 1 << 30), ("2kB", 2048)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "5x", "99999999999g"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
        assert_eq!(parse_interval("500ms"), Ok(Duration::from_millis(500)));
        for text in ["", "5", "0s", "s", "-1s"] {
            assert!(parse_interval(text).is_err(), "{text}");
        }
    }
}
