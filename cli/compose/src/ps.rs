//! `isolab compose ps`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_command::program::become_program;
use isolab_compose::instances::service;

use crate::scope::Scope;

/// List a project's instances: those that run, or all.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  isolab compose ps -a\n  isolab compose ps --format '{{.Names}} {{.Status}}' web"
)]
pub struct Ps {
    /// Those that do not run as well.
    #[arg(long, short)]
    all: bool,
    /// Ids only.
    #[arg(long, short)]
    quiet: bool,
    /// The services' names only.
    #[arg(long, conflicts_with = "quiet")]
    services: bool,
    /// Those of a status only: created, running, paused, restarting, exited.
    #[arg(long, value_name = "STATUS")]
    status: Vec<String>,
    /// json, table, or a template such as {{.Names}}.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: String,
    /// Do not cut ids and commands short.
    #[arg(long)]
    no_trunc: bool,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    of: Vec<String>,
}

/// Runs the command, but for --services as `isolab ps` of these instances.
pub fn run(scope: &Scope, args: &Ps) -> Result<ExitCode> {
    let (_, mut instances) = scope.instances(&args.of)?;
    let all = args.all || !args.status.is_empty();
    instances.retain(|it| {
        let status = it.state.status;
        let is_asked = args.status.is_empty() || args.status.iter().any(|it| it == status.name());
        (all || status.is_active()) && is_asked
    });
    if args.services {
        let mut services: Vec<&str> = instances.iter().map(service).collect();
        services.dedup();
        services.iter().for_each(|name| println!("{name}"));
        return Ok(ExitCode::SUCCESS);
    }
    let mut words = vec!["ps".to_owned(), "--all".to_owned(), format!("--format={}", args.format)];
    words.extend(args.quiet.then(|| "--quiet".to_owned()));
    words.extend(args.no_trunc.then(|| "--no-trunc".to_owned()));
    words.extend(instances.iter().map(|it| format!("--filter=id={}", it.entry.id)));
    if instances.is_empty() {
        // No instance's id.
        words.push("--filter=id=none".to_owned());
    }
    become_program("isolab", &words)
}
