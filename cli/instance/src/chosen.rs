//! The instances that a command is for.

use anyhow::Result;
use isolab_instances::{Catalogue, Instance};

/// The instances that are named, or that `is_meant` where all are.
pub fn chosen(
    catalogue: &Catalogue,
    names: &[String],
    all: bool,
    is_meant: impl Fn(&Instance) -> bool,
) -> Result<Vec<String>> {
    if !all {
        return Ok(names.to_vec());
    }
    let meant = catalogue.all()?.into_iter().filter(|instance| is_meant(instance));
    Ok(meant.map(|instance| instance.name().to_owned()).collect())
}
