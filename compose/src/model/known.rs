//! What of its project a service may name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::fields::Fields;
use super::network::ProjectNetwork;
use super::volume::ProjectVolume;
use crate::error::ComposeError;
use crate::file::interpolate::Variables;
use crate::place::Place;

/// The names.
pub struct Known<'a> {
    pub networks: &'a BTreeMap<String, ProjectNetwork>,
    pub volumes: &'a BTreeMap<String, ProjectVolume>,
    pub secrets: &'a BTreeMap<String, HostFile>,
    pub configs: &'a BTreeMap<String, HostFile>,
    pub variables: &'a Variables,
}

/// A secret or configuration of the project: a file of the host.
#[derive(Clone, Debug)]
pub struct HostFile {
    pub(super) path: PathBuf,
}

pub(super) fn files(
    top: &mut Fields,
    kind: &'static str,
) -> Result<BTreeMap<String, HostFile>, ComposeError> {
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
pub(super) fn missing(place: &Place, what: &str, name: &str) -> ComposeError {
    ComposeError::invalid(place, format!("{what}: there is no `{name}` in the project"))
}
