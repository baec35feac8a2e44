//! `depends_on`: what a service waits for, and that nobody waits for himself.

use std::collections::{BTreeMap, BTreeSet};

use super::fields::Fields;
use super::service::Service;
use crate::error::ComposeError;
use crate::file::merge::as_mapping;
use crate::file::node::Node;
use crate::place::Place;

/// When a dependency is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Condition {
    /// It runs.
    #[default]
    Started,
    /// Its health checks say that it is well.
    Healthy,
    /// It has ended, with 0.
    Completed,
}

/// What a service waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// When it is there.
    pub condition: Condition,
    /// Whether the service starts with it again.
    pub restart: bool,
    /// Whether the service cannot be without it.
    pub required: bool,
    /// Where it was written.
    pub place: Place,
}

pub(super) fn read_all(
    node: Node,
    what: &str,
) -> Result<BTreeMap<String, Dependency>, ComposeError> {
    let mut all = BTreeMap::new();
    for (key, node) in
        as_mapping(node, "depends_on")?.into_entries(&format!("{what}: depends_on"))?
    {
        let mut fields = Fields::of(node, format!("{what}: depends_on.{}", key.text))?;
        let condition = fields.read("condition", |word| match word {
            "service_started" => Ok(Condition::Started),
            "service_healthy" => Ok(Condition::Healthy),
            "service_completed_successfully" => Ok(Condition::Completed),
            other => Err(format!(
                "`{}`: expected service_started, service_healthy or service_completed_successfully",
                other.escape_debug()
            )),
        })?;
        let dependency = Dependency {
            condition: condition.unwrap_or_default(),
            restart: fields.flag("restart")?.unwrap_or(false),
            required: fields.flag("required")?.unwrap_or(true),
            place: key.place,
        };
        fields.finish(&[])?;
        all.insert(key.text, dependency);
    }
    Ok(all)
}

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
            false => return Err(super::missing(&dependency.place, "depends_on", other)),
        }
    }
    path.pop();
    done.insert(name);
    Ok(())
}
