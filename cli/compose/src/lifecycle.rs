//! `isolab compose start`, `stop`, `restart` and `kill`

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_compose::instances::{of_project, restarted_with, service};
use isolab_compose::{start as start_all, stop as stop_all};
use isolab_instances::{Catalogue, parse_signal};

use crate::describe;
use crate::news::News;
use crate::scope::Scope;

/// Start instances that were stopped, each after those that it waits for.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose start web")]
pub struct Start {
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs `start`.
pub fn start(scope: &Scope, args: &Start) -> Result<ExitCode> {
    let (catalogue, instances) = scope.instances(&args.services)?;
    start_all(&catalogue, instances, describe, &mut News { signals: None })?;
    Ok(ExitCode::SUCCESS)
}

/// Stop instances, each before those that it waits for; they stay.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose stop -t 30 db")]
pub struct Stop {
    /// How many seconds a workload may take; by default what is said of each.
    #[arg(long, short, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs `stop`.
pub fn stop(scope: &Scope, args: &Stop) -> Result<ExitCode> {
    let (catalogue, instances) = scope.instances(&args.services)?;
    stop_all(&catalogue, instances, args.timeout, &mut News { signals: None })?;
    Ok(ExitCode::SUCCESS)
}

/// Stop instances and start them, with those that depend on them by `restart: true`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose restart db")]
pub struct Restart {
    /// How many seconds a workload may take to end; by default what is said of each.
    #[arg(long, short, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Leave alone those that depend on them.
    #[arg(long)]
    no_deps: bool,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs `restart`.
pub fn restart(scope: &Scope, args: &Restart) -> Result<ExitCode> {
    let (catalogue, mut instances) = scope.instances(&args.services)?;
    let (name, _) = scope.find()?;
    let named: BTreeSet<String> = instances.iter().map(|it| service(it).to_owned()).collect();
    let all = of_project(&catalogue, &name)?;
    if !args.no_deps {
        let meant = restarted_with(&all, &named);
        instances = all.into_iter().filter(|it| meant.contains(service(it))).collect();
    }
    stop_all(&catalogue, instances.clone(), args.timeout, &mut News { signals: None })?;
    let instances = now(&catalogue, &instances)?;
    start_all(&catalogue, instances, describe, &mut News { signals: None })?;
    Ok(ExitCode::SUCCESS)
}

/// They as they are now.
fn now(
    catalogue: &Catalogue,
    instances: &[isolab_instances::Instance],
) -> Result<Vec<isolab_instances::Instance>> {
    instances.iter().map(|it| Ok(catalogue.find(&it.entry.id)?)).collect()
}

/// Send a signal to the workloads of services.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  isolab compose kill -s HUP web")]
pub struct Kill {
    /// The signal.
    #[arg(long, short, value_name = "SIGNAL", default_value = "KILL", value_parser = parse_signal)]
    signal: i32,
    /// The services; by default all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
}

/// Runs `kill`.
pub fn kill(scope: &Scope, args: &Kill) -> Result<ExitCode> {
    let (catalogue, instances) = scope.instances(&args.services)?;
    for instance in instances.iter().filter(|it| it.state.status.is_running()) {
        catalogue.signal(instance, args.signal)?;
    }
    Ok(ExitCode::SUCCESS)
}
