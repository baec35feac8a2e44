//! `depends_on`: what a service waits for.

use std::collections::BTreeMap;

use super::fields::Fields;
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
