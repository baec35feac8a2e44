//! What all services wait for, together: nobody for himself, and nobody for one that is not there.

use std::collections::{BTreeMap, BTreeSet};

use super::known::missing;
use super::service::Service;
use crate::error::ComposeError;

/// Refuses what cannot be waited for: nobody, and one that waits for the one that waits.
pub(super) fn check(services: &BTreeMap<String, Service>) -> Result<(), ComposeError> {
    let mut done = BTreeSet::new();
    for name in services.keys() {
        visit(name, services, &mut Vec::new(), &mut done)?;
    }
    Ok(())
}

fn visit<'a>(
    name: &'a str,
    services: &'a BTreeMap<String, Service>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Result<(), ComposeError> {
    if done.contains(name) {
        return Ok(());
    }
    path.push(name);
    for (other, dependency) in services.get(name).iter().flat_map(|service| &service.depends_on) {
        if let Some(at) = path.iter().position(|it| it == other) {
            let circle = [&path[at..], &[other.as_str()]].concat().join(" -> ");
            let why = format!("depends_on: a circle: {circle}");
            return Err(ComposeError::invalid(&dependency.place, why));
        }
        match services.contains_key(other) {
            true => visit(other, services, path, done)?,
            false if !dependency.required => {}
            false => return Err(missing(&dependency.place, "depends_on", other)),
        }
    }
    path.pop();
    done.insert(name);
    Ok(())
}
