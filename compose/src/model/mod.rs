//! What a project is made of, read from its tree.
//!
//! What the specification has and isolab cannot do is refused here, with its file and line; what only some levels
//! cannot do, when it is known which level there is ([`crate::plan`]).

mod build;
mod dependency;
mod fields;
mod health;
mod known;
mod membership;
mod mount;
mod network;
mod order;
mod port;
mod resources;
mod service;
pub mod units;
mod volume;

use std::collections::BTreeMap;

use isolab_isolation::Level;

pub use self::build::Build;
pub use self::dependency::{Condition, Dependency};
use self::fields::Fields;
use self::known::Known;
pub use self::membership::{Attached, Membership};
pub use self::mount::{Mount, MountKind};
pub use self::network::ProjectNetwork;
pub use self::resources::Resources;
pub use self::service::{PullPolicy, Service};
pub use self::volume::ProjectVolume;
use crate::error::ComposeError;
use crate::file::node::Node;

/// All that files say of a project.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its name, if they say one.
    pub name: Option<String>,
    /// Its services, by their names.
    pub services: BTreeMap<String, Service>,
    /// Its networks, by their names in the files.
    pub networks: BTreeMap<String, ProjectNetwork>,
    /// Its volumes, likewise.
    pub volumes: BTreeMap<String, ProjectVolume>,
    /// The level of services that say none.
    pub isolation: Option<Level>,
}

impl Model {
    /// Reads a tree.
    ///
    /// # Errors
    /// Something in it is not as the specification has it, or cannot be done.
    pub fn read(
        tree: Node,
        variables: &crate::file::interpolate::Variables,
    ) -> Result<Self, ComposeError> {
        let mut top = Fields::of(tree, "the project")?;
        let name = top.text("name")?;
        // Obsolete, and only ever a remark.
        top.take("version");
        let isolation = top.parse("x-isolation")?;
        let (secrets, configs) =
            (known::files(&mut top, "secrets")?, known::files(&mut top, "configs")?);
        let networks = network::read_all(top.take("networks"))?;
        let volumes = volume::read_all(top.take("volumes"))?;
        let mut services = BTreeMap::new();
        let known = Known {
            networks: &networks,
            volumes: &volumes,
            secrets: &secrets,
            configs: &configs,
            variables,
        };
        if let Some(node) = top.take("services") {
            for (key, node) in node.into_entries("services")? {
                let service = Service::read(&key, node, &known)?;
                services.insert(key.text, service);
            }
        }
        top.finish(&[("models", "isolab runs no models")])?;
        order::check(&services)?;
        Ok(Self { name, services, networks, volumes, isolation })
    }
}
