//! The options that few command lines have.

use std::path::PathBuf;

use isolab_command::format::parse_size;
use isolab_command::obtain::Obtain;
use isolab_instances::{LogOptions, RestartPolicy, parse_signal};
use isolab_isolation::parse_hostname;

use super::filesystem::FilesystemOptions;
use super::patience::PatienceOptions;
use super::security::SecurityOptions;
use crate::health::Health;

/// Its default is what a command line says that has none of them.
#[derive(Debug, clap::Args)]
pub struct Seldom {
    /// Set the variables in a file: NAME[=VALUE] a line, # before a comment.
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Host name; by default the instance's name. Not at level process, which has none of its own.
    #[arg(long, value_name = "NAME", value_parser = parse_hostname)]
    pub hostname: Option<String>,
    /// How many processes and threads there may be; process and container only. -1 or 0 is no limit.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..=u32::MAX.into()))]
    pub pids_limit: Option<i64>,
    #[command(flatten)]
    pub patience: PatienceOptions,
    /// When the command is started again: no, on-failure, on-failure:TIMES or always. Pauses between are 100 ms
    /// at first, twice as long each time, at most a minute.
    #[arg(long, value_name = "POLICY", default_value = "no", conflicts_with = "rm")]
    pub restart: RestartPolicy,
    #[command(flatten)]
    pub health: Health,
    /// Say something of the instance.
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub label: Vec<String>,
    /// The signal by which `isolab stop` asks the command to end; by default the image's, or TERM.
    #[arg(long, value_name = "SIGNAL", value_parser = parse_signal)]
    pub stop_signal: Option<i32>,
    /// How many seconds the command may take then before it is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = STOP_TIMEOUT)]
    pub stop_timeout: u64,
    /// How the output is kept: max-size=SIZE (16M) of a file, max-file=N (4) of them.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_log_option)]
    log_opt: Vec<LogOption>,
    /// Write the instance's id to this file, which must not exist.
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    #[command(flatten)]
    pub filesystem: FilesystemOptions,
    #[command(flatten)]
    pub security: SecurityOptions,
    #[command(flatten)]
    pub obtain: Obtain,
}

const STOP_TIMEOUT: u64 = 10;

impl Default for Seldom {
    fn default() -> Self {
        Self {
            env_file: Vec::new(),
            hostname: None,
            pids_limit: None,
            patience: PatienceOptions::default(),
            restart: RestartPolicy::default(),
            health: Health::default(),
            label: Vec::new(),
            stop_signal: None,
            stop_timeout: STOP_TIMEOUT,
            log_opt: Vec::new(),
            cidfile: None,
            filesystem: FilesystemOptions::default(),
            security: SecurityOptions::default(),
            obtain: Obtain::default(),
        }
    }
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

impl Seldom {
    /// How the output is kept.
    pub fn log_options(&self) -> LogOptions {
        let mut options = LogOptions::default();
        for option in &self.log_opt {
            match *option {
                LogOption::MaxSize(size) => options.max_size = size,
                LogOption::MaxFile(count) => options.max_file = count,
            }
        }
        options
    }
}
