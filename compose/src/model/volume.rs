//! Volumes of a project.

use std::collections::BTreeMap;

use isolab_isolation::parse_size;
use isolab_volumes::{Kind, VolumeName};

use super::fields::{Fields, valued};
use crate::error::ComposeError;
use crate::file::node::Node;
use crate::place::Place;

/// A volume of the project.
#[derive(Clone, Debug)]
pub struct ProjectVolume {
    /// Its name on this host, if the files say one.
    pub name: Option<VolumeName>,
    /// Whether it is there without the project.
    pub external: bool,
    /// What it is; without, its first use decides.
    pub kind: Option<Kind>,
    /// Bytes that it has room for, if it is a disk.
    pub size: Option<u64>,
    /// What is said of it.
    pub labels: BTreeMap<String, String>,
    /// Where it was written.
    pub place: Place,
}

pub(super) fn read_all(
    node: Option<Node>,
) -> Result<BTreeMap<String, ProjectVolume>, ComposeError> {
    let mut all = BTreeMap::new();
    for (key, node) in node.map_or(Ok(Vec::new()), |node| node.into_entries("volumes"))? {
        let what = format!("volumes.{}", key.text);
        let mut fields = Fields::of(node, what.clone())?;
        let mut volume = ProjectVolume {
            name: fields.parse("name")?,
            external: fields.flag("external")?.unwrap_or(false),
            kind: None,
            size: None,
            labels: valued(fields.assignments("labels")?),
            place: key.place,
        };
        if let Some(driver) = fields.take("driver") {
            let place = driver.place.clone();
            let driver = driver.into_text(&what)?;
            if !["local", "default"].contains(&driver.as_str()) {
                let what = format!("{what}: driver {driver}");
                return Err(ComposeError::unsupported(&place, what, "volumes are local"));
            }
        }
        if let Some(options) = fields.take("driver_opts") {
            let mut options = Fields::of(options, format!("{what}: driver_opts"))?;
            let place = options.place.clone();
            volume.kind = match options.text("type")?.as_deref() {
                None => None,
                Some("folder") => Some(Kind::Folder),
                Some("disk") => Some(Kind::Disk),
                Some(other) => {
                    let what = format!("{what}: driver_opts.type {}", other.escape_debug());
                    let why = "a volume is isolab's own: a folder or a disk";
                    return Err(ComposeError::unsupported(&place, what, why));
                }
            };
            volume.size = options.read("size", parse_size)?;
            // Only a disk has a size.
            volume.kind = volume.kind.or(volume.size.map(|_| Kind::Disk));
            options.finish(&[
                (
                    "device",
                    "a volume is isolab's own; mount a folder of the host with a bind mount",
                ),
                ("o", "a volume is isolab's own; mount a folder of the host with a bind mount"),
            ])?;
        }
        fields.finish(&[])?;
        all.insert(key.text, volume);
    }
    Ok(all)
}
