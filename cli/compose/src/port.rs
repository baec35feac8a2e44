//! `isolab compose port`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_command::program::become_program;

use crate::scope::Scope;

/// Tell where a service's port is to be had.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose port web 80")]
pub struct Port {
    /// tcp or udp.
    #[arg(long, value_name = "PROTOCOL", default_value = "tcp")]
    protocol: String,
    /// Which of the service's instances; by default the first that runs.
    #[arg(long, value_name = "N")]
    index: Option<u32>,
    /// The service.
    service: String,
    /// The instance's port.
    port: u16,
}

/// Runs the command.
pub fn run(scope: &Scope, args: &Port) -> Result<ExitCode> {
    let instance = scope.instance(&args.service, args.index)?;
    become_program(
        "isolab",
        &["port", instance.name(), &format!("{}/{}", args.port, args.protocol)],
    )
}
