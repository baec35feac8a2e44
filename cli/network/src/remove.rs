//! `isolab network rm`, `isolab network prune`

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use isolab_command::failure;
use isolab_command::format::EXIT_OWN_FAILURE;
use isolab_network::{NetworkName, Networks};

/// Remove networks that no instance uses, and print their names.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab network rm backend web")]
pub struct Remove {
    /// Their names.
    #[arg(required = true)]
    names: Vec<NetworkName>,
}

/// Remove all networks that no instance uses, but for the default one, and print their names.
#[derive(Args)]
#[command(after_help = "Example:\n  isolab network prune")]
pub struct Prune {
    /// Taken and ignored: nobody is asked.
    #[arg(long, short)]
    force: bool,
}

pub fn run(networks: &Networks, args: &Remove) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for name in &args.names {
        match networks.remove(name) {
            Ok(()) => println!("{name}"),
            Err(error) => {
                failure::tell(&error);
                code = ExitCode::from(EXIT_OWN_FAILURE);
            }
        }
    }
    Ok(code)
}

pub fn prune(networks: &Networks, _: &Prune) -> Result<ExitCode> {
    networks.prune()?.iter().for_each(|name| println!("{name}"));
    Ok(ExitCode::SUCCESS)
}
