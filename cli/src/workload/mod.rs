//! What `isolab run` and `isolab create` are told of an instance.

mod filesystem;
mod network;
mod patience;
mod security;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use isolab_command::environment::with_our_values;
use isolab_command::format::parse_size;
use isolab_command::logging::Logging;
use isolab_command::obtain::Obtain;
use isolab_images::{Image, Store};
use isolab_instances::{Config, LogOptions, RestartPolicy, parse_signal};
use isolab_isolation::{InstanceFolder, InstanceName, Level, Limits, Request, oci, parse_hostname};
use tracing::info_span;

use self::filesystem::FilesystemOptions;
use self::network::NetworkOptions;
use self::patience::PatienceOptions;
use self::security::SecurityOptions;
use crate::health::Health;

/// The options.
#[derive(Debug, clap::Args)]
pub struct Workload {
    /// process, container, paravirt or fullvirt.
    #[arg(long, value_name = "LEVEL", default_value = "container")]
    pub isolation: Level,
    /// Pass our standard input on.
    #[arg(long, short)]
    pub interactive: bool,
    /// Give the command a terminal of its own; in the foreground it is shown on ours, and with -i what is
    /// typed on ours goes there.
    #[arg(long, short)]
    pub tty: bool,
    /// Set an environment variable; without a value, pass on our own.
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Set the variables in a file: NAME[=VALUE] a line, # before a comment.
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory.
    #[arg(long, short, value_name = "DIR")]
    workdir: Option<String>,
    /// User and group, by name or number.
    #[arg(long, short, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// What the command is given to, instead of the image's entrypoint; "" is none. A JSON array is
    /// several words.
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Host name; by default the instance's name. Not at level process, which has none of its own.
    #[arg(long, value_name = "NAME", value_parser = parse_hostname)]
    hostname: Option<String>,
    /// The instance's name, which no other one has; by default a random one.
    #[arg(long, value_name = "NAME")]
    pub name: Option<InstanceName>,
    /// Memory limit, in bytes or with K, M, G or T: a cgroup's limit, or the guest's RAM
    /// (512M without it). 0 is no limit.
    #[arg(long, short, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// CPU limit: a cgroup's quota, or, rounded up, the guest's vCPUs (1 without it). 0 is no limit.
    #[arg(long, value_name = "N")]
    cpus: Option<f64>,
    /// How many processes and threads there may be; process and container only. -1 or 0 is no limit.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..=u32::MAX.into()))]
    pids_limit: Option<i64>,
    #[command(flatten)]
    network: NetworkOptions,
    /// Guest kernel of the VM levels: slim, stock, cloud, or a vmlinux or bzImage.
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
    #[command(flatten)]
    patience: PatienceOptions,
    /// Remove the instance when it ends. In the foreground without --restart and --health-cmd that is
    /// always so.
    #[arg(long)]
    pub rm: bool,
    /// When the command is started again: no, on-failure, on-failure:TIMES or always. Pauses between are 100 ms
    /// at first, twice as long each time, at most a minute.
    #[arg(long, value_name = "POLICY", default_value = "no", conflicts_with = "rm")]
    restart: RestartPolicy,
    #[command(flatten)]
    health: Health,
    /// Say something of the instance.
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// The signal by which `isolab stop` asks the command to end; by default the image's, or TERM.
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    stop_signal: Option<i32>,
    /// How many seconds the command may take then before it is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    stop_timeout: u64,
    /// How the output is kept: max-size=SIZE (16M) of a file, max-file=N (4) of them.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_log_option)]
    log_opt: Vec<LogOption>,
    /// Write the instance's id to this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    #[command(flatten)]
    filesystem: FilesystemOptions,
    #[command(flatten)]
    security: SecurityOptions,
    #[command(flatten)]
    obtain: Obtain,
    /// The image: a name, or a digest.
    pub image: String,
    /// The command and its arguments; by default the image's own.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// One of `--log-opt`.
#[derive(Clone, Copy, Debug)]
enum LogOption {
    MaxSize(u64),
    MaxFile(u32),
}

/// Less would be all seams, in bytes.
const LEAST_LOG: u64 = 4096;

fn parse_log_option(text: &str) -> Result<LogOption, String> {
    match text.split_once('=') {
        Some(("max-size", size)) => {
            let size = parse_size(size)?;
            let is_enough = size >= LEAST_LOG;
            is_enough
                .then_some(LogOption::MaxSize(size))
                .ok_or(format!("at least {LEAST_LOG} bytes"))
        }
        Some(("max-file", count)) => match count.parse() {
            Ok(count @ 1..=1000) => Ok(LogOption::MaxFile(count)),
            _ => Err("expected 1 to 1000 files".to_owned()),
        },
        _ => Err("expected max-size=SIZE or max-file=N".to_owned()),
    }
}

impl Workload {
    /// Finds the image, or has it fetched. None where that failed, which was told.
    pub fn image(&self, logging: &Logging) -> Result<Option<Image>> {
        if let Some(path) = self.cidfile.as_ref().filter(|path| path.exists()) {
            bail!("--cidfile: {} exists already", path.display());
        }
        info_span!("image", name = self.image)
            .in_scope(|| self.obtain.image(&Store::open_default()?, &self.image, logging))
    }

    /// Whether the instance lives in a process of its own, also when somebody watches.
    pub fn is_supervised(&self) -> bool {
        self.restart != RestartPolicy::No || self.health.health_cmd.is_some()
    }

    /// What is asked for, in full: what we have of environment and files is in it. And what follows from it, which
    /// is looked up in the image.
    pub fn config(&self, folder: &InstanceFolder, image: &Image) -> Result<(Config, oci::Spec)> {
        let request = self.request(folder)?;
        let (mut config, spec) = Config::of_image(&self.image, image, request, self.isolation)?;
        config.stop_signal = self.stop_signal.unwrap_or(config.stop_signal);
        config.kernel.clone_from(&self.kernel);
        config.patience = self.patience.patience(self.isolation)?;
        config.networking = self.network.networking();
        config.networking.check(self.isolation)?;
        (config.interactive, config.terminal) = (self.interactive, self.tty);
        (config.auto_remove, config.restart) = (self.rm, self.restart);
        config.health = self.health.check()?;
        config.stop_timeout = self.stop_timeout;
        config.labels.extend(self.label.iter().map(|label| {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            (name.to_owned(), value.to_owned())
        }));
        config.log = self.log_options();
        Ok((config, spec))
    }

    fn log_options(&self) -> LogOptions {
        let mut options = LogOptions::default();
        for option in &self.log_opt {
            match *option {
                LogOption::MaxSize(size) => options.max_size = size,
                LogOption::MaxFile(count) => options.max_file = count,
            }
        }
        options
    }

    /// What the workload is to be.
    pub fn request(&self, folder: &InstanceFolder) -> Result<Request> {
        let hostname = self.hostname.clone().filter(|name| !name.is_empty());
        let mut env = Vec::new();
        if self.tty {
            // As podman has it; one that is asked for comes later and wins.
            env.push("TERM=xterm".to_owned());
        }
        for file in &self.env_file {
            env.extend(read_variables(file)?);
        }
        env.extend(self.env.iter().cloned());
        Ok(Request {
            entrypoint: self.entrypoint.as_deref().map(parse_entrypoint).transpose()?,
            command: self.command.clone(),
            env: with_our_values(env),
            workdir: self.workdir.clone(),
            user: self.user.clone(),
            hostname: hostname.unwrap_or_else(|| folder.name().to_hostname()),
            limits: Limits {
                memory_bytes: self.memory.filter(|bytes| *bytes != 0),
                cpus: self.cpus.filter(|cpus| *cpus != 0.0),
                pids: self
                    .pids_limit
                    .and_then(|limit| u32::try_from(limit).ok())
                    .filter(|n| *n != 0),
            },
            filesystem: self.filesystem.read()?,
            security: self.security.security()?,
        })
    }

    /// Writes the id where it is wanted.
    pub fn write_id(&self, id: &str) -> Result<()> {
        let Some(path) = &self.cidfile else { return Ok(()) };
        fs::write(path, id).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn parse_entrypoint(text: &str) -> Result<Vec<String>> {
    match text {
        "" => Ok(Vec::new()),
        list if list.starts_with('[') => serde_json::from_slice(list.as_bytes())
            .context("--entrypoint: not a JSON array of strings"),
        word => Ok(vec![word.to_owned()]),
    }
}

fn read_variables(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().map(str::trim_start);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}
