//! `isolab compose down`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_compose::{DownOptions, down};

use crate::news::News;
use crate::scope::Scope;

/// Stop and remove a project's instances, and its networks.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  isolab compose down -v\n  isolab compose -p shop down")]
pub struct Down {
    /// Its volumes as well, with what is in them: those that the files name, and anonymous ones.
    #[arg(long, short)]
    volumes: bool,
    /// Also the instances of services that are no more in the files.
    #[arg(long)]
    remove_orphans: bool,
    /// How many seconds a workload may take to end; by default what is said of each.
    #[arg(long, short, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The services; by default all, and the networks.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs the command.
pub fn run(scope: &Scope, args: &Down) -> Result<ExitCode> {
    let (name, project) = scope.find()?;
    let known = project.map(|project| project.services.into_keys().collect());
    let options = DownOptions {
        services: args.services.clone(),
        volumes: args.volumes,
        timeout: args.timeout,
        known: known.filter(|_| !args.remove_orphans),
    };
    down(&name, &options, &mut News { signals: None })?;
    Ok(ExitCode::SUCCESS)
}
