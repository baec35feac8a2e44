//! `isolab volume inspect`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_command::failure;
use isolab_command::format::EXIT_OWN_FAILURE;
use isolab_instances::Catalogue;
use isolab_isolation::volumes::{VolumeName, Volumes};

use crate::facts::facts;

/// Print what volumes are, where their files are, and which instances have them, as JSON under podman's names.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab volume inspect data | jq -r '.[].Mountpoint'")]
pub struct Inspect {
    /// Their names.
    #[arg(required = true)]
    names: Vec<VolumeName>,
}

pub fn run(volumes: &Volumes, catalogue: &Catalogue, args: &Inspect) -> Result<ExitCode> {
    let (users, mut code) = (catalogue.volume_users()?, ExitCode::SUCCESS);
    let mut all = Vec::new();
    for name in &args.names {
        match volumes.get(name) {
            Ok(volume) => {
                all.push(facts(volumes, &volume, users.get(name).map_or(&[], Vec::as_slice)));
            }
            Err(error) => {
                failure::tell(&error);
                code = ExitCode::from(EXIT_OWN_FAILURE);
            }
        }
    }
    println!("{}", serde_json::to_string_pretty(&all)?);
    Ok(code)
}
