//! `isolab compose top` and `stats`

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use clap::Args;
use isolab_command::program::become_program;
use isolab_guest::package;

use crate::scope::Scope;

/// List the processes of services.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose top web")]
pub struct Top {
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs `top`, as `isolab top` of each instance.
pub fn top(scope: &Scope, args: &Top) -> Result<ExitCode> {
    let (_, instances) = scope.instances(&args.services)?;
    let isolab = package::executable("isolab")?;
    for instance in instances.iter().filter(|it| it.state.status.is_running()) {
        println!("{}", instance.name());
        let status = Command::new(&isolab).args(["top", instance.name()]).status();
        let status = status.with_context(|| format!("cannot execute {}", isolab.display()))?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
        println!();
    }
    Ok(ExitCode::SUCCESS)
}

/// Tell what services use: again and again, or once.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose stats --no-stream --format json")]
pub struct Stats {
    /// Once only.
    #[arg(long)]
    no_stream: bool,
    /// json, table, or a template such as {{.Name}} {{.CPU}}.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs `stats`, as `isolab stats` of these instances.
pub fn stats(scope: &Scope, args: &Stats) -> Result<ExitCode> {
    let (_, instances) = scope.instances(&args.services)?;
    let running = instances.iter().filter(|it| it.state.status.is_running());
    let names: Vec<&str> = running.map(|it| it.name()).collect();
    if names.is_empty() {
        eprintln!("isolab: nothing of the project runs");
        return Ok(ExitCode::SUCCESS);
    }
    let format = format!("--format={}", args.format);
    let once: &[&str] = if args.no_stream { &["--no-stream"] } else { &[] };
    become_program("isolab", &[&["stats", format.as_str()], once, &names].concat())
}
