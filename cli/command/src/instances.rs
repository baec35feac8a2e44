//! What is done to each of several instances.

use std::process::ExitCode;

use anyhow::Result;
use isolab_instances::{Catalogue, Instance, InstanceError};

use crate::failure;

/// Does `act` with each of the instances, goes on after a failure, which is told, and prints the names
/// of those with whom it went well, as they were given.
pub fn with_each(
    catalogue: &Catalogue,
    names: &[String],
    mut act: impl FnMut(&Instance) -> Result<(), InstanceError>,
) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match catalogue.find(name).and_then(|instance| act(&instance)) {
            Ok(()) => println!("{name}"),
            Err(error) => {
                failure::tell(&error);
                code = ExitCode::from(error.exit_code());
            }
        }
    }
    Ok(code)
}
