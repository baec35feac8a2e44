//! What a project is made of, read from its tree.
//!
//! What the specification has and isolab cannot do is refused here, with its file and line; what only some levels
//! cannot do, when it is known which level there is ([`crate::plan`]).

mod build;
mod dependency;
mod fields;
mod health;
mod mount;
mod network;
mod port;
mod resources;
mod service;
pub mod units;
mod volume;

use std::collections::BTreeMap;
use std::path::PathBuf;

use isolab_isolation::Level;

pub use self::build::Build;
pub use self::dependency::{Condition, Dependency};
use self::fields::Fields;
pub use self::mount::{Mount, MountKind};
pub use self::network::{Attached, Membership, ProjectNetwork};
pub use self::resources::Resources;
pub use self::service::{PullPolicy, Service};
pub use self::volume::ProjectVolume;
use crate::error::ComposeError;
use crate::file::node::Node;
use crate::place::Place;

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
        let (secrets, configs) = (files(&mut top, "secrets")?, files(&mut top, "configs")?);
        let networks = network::read_all(top.take("networks"))?;
        let volumes = volume::read_all(top.take("volumes"))?;
        let mut services = BTreeMap::new();
        let known = service::Known {
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
        dependency::check(&services)?;
        Ok(Self { name, services, networks, volumes, isolation })
    }
}

/// A secret or configuration of the project: a file of the host.
#[derive(Clone, Debug)]
pub struct HostFile {
    path: PathBuf,
}

fn files(top: &mut Fields, kind: &'static str) -> Result<BTreeMap<String, HostFile>, ComposeError> {
    let mut all = BTreeMap::new();
    let Some(node) = top.take(kind) else { return Ok(all) };
    for (key, node) in node.into_entries(kind)? {
        let place = node.place.clone();
        let mut fields = Fields::of(node, format!("{kind}.{}", key.text))?;
        let path = fields.text("file")?;
        fields.take("name");
        fields.take("labels");
        fields.finish(&[
            ("external", "isolab keeps no secrets or configurations; name a file"),
            ("environment", "only files are passed on; name a file"),
            ("content", "only files are passed on; name a file"),
            ("driver", "only files are passed on; name a file"),
            ("driver_opts", "only files are passed on; name a file"),
            ("template_driver", "only files are passed on; name a file"),
        ])?;
        let Some(path) = path else {
            let why = format!("{kind}.{}: the file is missing", key.text);
            return Err(ComposeError::invalid(&place, why));
        };
        all.insert(key.text, HostFile { path: place.path(&path) });
    }
    Ok(all)
}

/// That a name is not among those that the project has.
fn missing(place: &Place, what: &str, name: &str) -> ComposeError {
    ComposeError::invalid(place, format!("{what}: there is no `{name}` in the project"))
}
