//! `isolab volume rm`, `isolab volume prune`

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Args;
use isolab_command::failure;
use isolab_command::format::EXIT_OWN_FAILURE;
use isolab_instances::Catalogue;
use isolab_isolation::housekeeping;
use isolab_isolation::volumes::{VolumeError, VolumeName, Volumes};

/// Remove volumes that no instance has, running or not, with their files, and print their names.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab volume rm data")]
pub struct Remove {
    /// Remove the instances that have them first, killed if they run; one that is not there is no failure.
    #[arg(long, short)]
    force: bool,
    /// All volumes.
    #[arg(long, short, conflicts_with = "names")]
    all: bool,
    /// Their names.
    #[arg(required_unless_present = "all")]
    names: Vec<VolumeName>,
}

/// Remove all volumes that no instance has, running or not, with their files, and print their names.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab volume prune")]
pub struct Prune {
    /// Taken and ignored: nobody is asked.
    #[arg(long, short)]
    force: bool,
}

pub fn run(volumes: &Volumes, catalogue: &Catalogue, args: &Remove) -> Result<ExitCode> {
    let names = match args.all {
        true => volumes.list()?.into_iter().map(|volume| volume.name).collect(),
        false => args.names.clone(),
    };
    let mut code = ExitCode::SUCCESS;
    for name in &names {
        match remove(volumes, catalogue, name, args.force) {
            Ok(()) => println!("{name}"),
            Err(error) => {
                failure::tell(error.as_ref());
                code = ExitCode::from(EXIT_OWN_FAILURE);
            }
        }
    }
    Ok(code)
}

fn remove(volumes: &Volumes, catalogue: &Catalogue, name: &VolumeName, force: bool) -> Result<()> {
    let users = catalogue.volume_users()?.remove(name).unwrap_or_default();
    if force {
        for user in &users {
            let removed = catalogue.find(user).and_then(|user| catalogue.remove(&user, true));
            removed.with_context(|| format!("cannot remove instance `{user}`"))?;
        }
    } else if !users.is_empty() {
        volumes.get(name)?;
        bail!("volume `{name}` is being used by the following instances: {}", users.join(", "));
    }
    match volumes.remove(name) {
        Err(VolumeError::Unknown(_)) if force => Ok(()),
        removed => Ok(removed.map(drop)?),
    }
}

pub fn prune(catalogue: &Catalogue, _: &Prune) -> Result<ExitCode> {
    let users = catalogue.volume_users()?;
    let (removed, _) = housekeeping::prune_volumes(|volume| users.contains_key(volume))?;
    removed.iter().for_each(|name| println!("{name}"));
    Ok(ExitCode::SUCCESS)
}
