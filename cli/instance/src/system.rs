//! `isolab system`

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use isolab_command::failure;
use isolab_command::format::{EXIT_OWN_FAILURE, Format, bytes};
use isolab_instances::{Catalogue, sweep_networks};
use isolab_isolation::Leftover;
use isolab_isolation::housekeeping::{self, DiskUsage, Pruned, Pruning, Usage};

/// Look after what isolab keeps on this host.
#[derive(Args)]
pub struct System {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Df(Df),
    Prune(Prune),
}

/// Tell what is on the disk, and how much of it pruning would give back.
///
/// Active is what a running instance uses. What is reclaimable, `isolab system prune --all` removes,
/// volumes with `--volumes` only.
#[derive(Args)]
#[command(
    after_help = "Example:\n  isolab system df --format json | jq 'map_values(.reclaimable) | add'"
)]
struct Df {
    /// How to print it.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Remove what instances have left whose `isolab` was killed (processes, cgroups, folders, places on networks), and on
/// request what nothing uses.
///
/// What a running `isolab` looks after is not touched. `isolab run` removes such leftovers when it
/// starts.
#[derive(Args)]
#[command(
    after_help = "Examples:\n  isolab system prune --format json | jq -r '.instances[].name'\n  isolab system prune --all"
)]
struct Prune {
    /// Also remove images that no instance uses, named or not, with their layers and disks.
    #[arg(long)]
    images: bool,
    /// Also remove what build steps made.
    #[arg(long)]
    build_cache: bool,
    /// Also remove guest kernels that no machine is being started from.
    #[arg(long)]
    kernels: bool,
    /// Also remove volumes that no instance has, running or not, with their data. Not of --all.
    #[arg(long)]
    volumes: bool,
    /// Remove all of these but volumes.
    #[arg(long, short)]
    all: bool,
    /// How to print what was removed.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Tells what is on the disk, or removes what nothing uses.
pub fn run(system: System) -> Result<ExitCode> {
    match system.command {
        Command::Df(df) => run_df(&df),
        Command::Prune(prune) => run_prune(&prune),
    }
}

fn run_df(df: &Df) -> Result<ExitCode> {
    let users = Catalogue::open_default()?.volume_users()?;
    let usage = housekeeping::disk_usage(|volume| users.contains_key(volume))?;
    match df.format {
        Format::Table => print_usage(&usage),
        Format::Json => println!("{}", serde_json::to_string_pretty(&usage)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn print_usage(DiskUsage { store, kernels, instances, volumes }: &DiskUsage) {
    println!("{:<12} {:>6} {:>7} {:>10} {:>12}", "TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE");
    for (kind, usage) in [
        ("images", &store.images),
        ("layers", &store.layers),
        ("disks", &store.disks),
        ("build cache", &store.build_cache),
        ("unfinished", &store.unfinished),
        ("kernels", kernels),
        ("instances", instances),
        ("volumes", volumes),
    ] {
        let Usage { total, active, size, reclaimable } = *usage;
        let (size, reclaimable) = (bytes(size), bytes(reclaimable));
        println!("{kind:<12} {total:>6} {active:>7} {size:>10} {reclaimable:>12}");
    }
}

fn run_prune(prune: &Prune) -> Result<ExitCode> {
    let users = Catalogue::open_default()?.volume_users()?;
    let pruning = Pruning {
        images: prune.all || prune.images,
        build_cache: prune.all || prune.build_cache,
        kernels: prune.all || prune.kernels,
        volumes: prune.volumes,
    };
    let pruned = housekeeping::prune(pruning, |volume| users.contains_key(volume))?;
    match prune.format {
        Format::Table => print_pruned(&pruned),
        Format::Json => println!("{}", serde_json::to_string_pretty(&pruned)?),
    }
    for failure in &pruned.failures {
        failure::tell(failure);
    }
    sweep_networks().context("cannot remove what killed instances left on networks")?;
    Ok(match pruned.failures.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(EXIT_OWN_FAILURE),
    })
}

fn print_pruned(pruned: &Pruned) {
    pruned.instances.iter().for_each(print_leftover);
    pruned.images.untagged.iter().for_each(|name| println!("untagged {name}"));
    pruned.images.deleted.iter().for_each(|digest| println!("deleted {digest}"));
    pruned.kernels.iter().for_each(|name| println!("removed the kernel {name}"));
    pruned.volumes.iter().for_each(|name| println!("removed the volume {name}"));
    if pruned.freed > 0 {
        println!("freed {}", bytes(pruned.freed));
    }
}

fn print_leftover(leftover: &Leftover) {
    let Leftover { name, level, monitor, killed, cgroups, freed } = leftover;
    let killed = killed.map_or(String::new(), |pid| format!(", process {pid} killed"));
    let (cgroups, freed) = (cgroups.len(), bytes(*freed));
    println!("{name} ({level}, of process {monitor}): {cgroups} cgroups, {freed}{killed}");
}
