//! The commands that reach a machine through its `--api-socket`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Subcommand};
use isolab_command::format::parse_size;
use isolab_vmm::control::client;
use isolab_vmm::control::protocol::{DEFAULT_GRACE, MAX_GRACE, Request};
use serde_json::Value;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// What a machine is and does, as JSON.
    #[command(after_help = "Example:\n  isolab vm info /run/vm0.sock")]
    Info(Target),
    /// Make all vCPUs of a machine stand still.
    #[command(after_help = "Example:\n  isolab vm pause /run/vm0.sock")]
    Pause(Target),
    /// Let a paused machine go on.
    #[command(after_help = "Example:\n  isolab vm resume /run/vm0.sock")]
    Resume(Target),
    Stop(Stop),
    /// End a machine at once, as if its plug were pulled.
    #[command(after_help = "Example:\n  isolab vm kill /run/vm0.sock")]
    Kill(Target),
    /// How often and why the guest left for user space, and what each queue did, as JSON.
    #[command(after_help = "Example:\n  isolab vm stats /run/vm0.sock | jq .exits")]
    Stats(Target),
    Balloon(Balloon),
}

#[derive(Debug, Args)]
pub struct Target {
    /// What the machine was given as --api-socket.
    socket: PathBuf,
}

/// Press a machine's power button and wait; after the grace period, end it.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab vm stop --grace 60 /run/vm0.sock")]
pub struct Stop {
    #[command(flatten)]
    target: Target,
    /// How long the guest may take to shut down.
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_GRACE.as_secs(),
          value_parser = grace_range())]
    grace: u64,
}

/// How much memory the guest has given up, and what it uses the rest for, as JSON.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab vm balloon --target 256M /run/vm0.sock")]
pub struct Balloon {
    #[command(flatten)]
    target: Target,
    /// Ask the guest to give up this much of its RAM in all.
    #[arg(long = "target", value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
}

/// Grace periods in seconds.
pub fn grace_range() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(0..=MAX_GRACE.as_secs())
}

/// Makes the request and prints the answer.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Info(target) => ask(&target.socket, Request::Info {}),
        Command::Pause(target) => ask(&target.socket, Request::Pause {}),
        Command::Resume(target) => ask(&target.socket, Request::Resume {}),
        Command::Stop(Stop { target, grace }) => {
            ask(&target.socket, Request::Stop { grace_ms: Some(grace * 1000) })
        }
        Command::Kill(target) => ask(&target.socket, Request::Kill {}),
        Command::Stats(target) => ask(&target.socket, Request::Stats {}),
        Command::Balloon(Balloon { target, size }) => {
            ask(&target.socket, Request::Balloon { target: size })
        }
    }
}

fn ask(socket: &Path, request: Request) -> Result<ExitCode> {
    let answer: Value = client::call(socket, request)?;
    println!("{answer}");
    Ok(ExitCode::SUCCESS)
}
