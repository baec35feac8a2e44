//! `volumes`, `tmpfs`, `secrets` and `configs` of a service: what is mounted in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use isolab_isolation::{MemoryOptions, VolumeMount};

use super::build::OWNERS;
use super::fields::Fields;
use super::known::{HostFile, Known, missing};
use crate::error::ComposeError;
use crate::file::node::{Node, Value};
use crate::place::Place;

/// Something that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where in the instance: absolute.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Words of mount(8).
    pub options: Vec<String>,
    /// Where it was written.
    pub place: Place,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A volume of the project, by its name in the files.
    Volume {
        /// That name.
        name: String,
        /// Whether a new one gets what the image has at the path.
        copy_up: bool,
    },
    /// A volume of the instance's own.
    Anonymous {
        /// Whether it gets what the image has at the path.
        copy_up: bool,
    },
    /// A folder or file of the host.
    Host {
        /// Which one.
        path: PathBuf,
        /// Whether a folder is made where there is nothing.
        create: bool,
    },
    /// Memory.
    Memory,
}

/// All that a service has mounted.
pub(super) fn read_all(fields: &mut Fields, known: &Known) -> Result<Vec<Mount>, ComposeError> {
    let mut mounts = Vec::new();
    let what = fields.name("volumes");
    let volumes = fields.take("volumes").map(|it| it.into_items(&what)).transpose()?;
    for item in volumes.into_iter().flatten() {
        mounts.push(volume(item, &what, known)?);
    }
    let what = fields.name("tmpfs");
    for (text, place) in fields.words("tmpfs")? {
        mounts.push(memory(&text, &place, &what)?);
    }
    let secret = |name: &str| format!("/run/secrets/{name}");
    mounts.extend(files(fields, "secrets", known.secrets, secret)?);
    mounts.extend(files(fields, "configs", known.configs, |name| format!("/{name}"))?);
    for (at, mount) in mounts.iter().enumerate() {
        if mounts[..at].iter().any(|other| other.target == mount.target) {
            let why = fields.name(&format!("two mounts on {}", mount.target.display()));
            return Err(ComposeError::invalid(&mount.place, why));
        }
    }
    Ok(mounts)
}

fn target(text: &str, place: &Place, what: &str) -> Result<PathBuf, ComposeError> {
    VolumeMount::target(Path::new(text)).ok_or_else(|| {
        let text = text.escape_debug();
        let why =
            format!("{what}: `{text}`: expected an absolute path in the instance, without `..`");
        ComposeError::invalid(place, why)
    })
}

fn volume(item: Node, what: &str, known: &Known) -> Result<Mount, ComposeError> {
    let place = item.place.clone();
    match item.value {
        Value::Scalar(text) => short(&text.text, &place, what, known),
        _ => long(item, what, known),
    }
}

fn named(
    name: &str,
    copy_up: bool,
    place: &Place,
    known: &Known,
) -> Result<MountKind, ComposeError> {
    match known.volumes.contains_key(name) {
        true => Ok(MountKind::Volume { name: name.to_owned(), copy_up }),
        false => Err(missing(place, "volumes", name)),
    }
}

/// `[SOURCE:]TARGET[:OPTIONS]`
fn short(text: &str, place: &Place, what: &str, known: &Known) -> Result<Mount, ComposeError> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, path, words) = match parts[..] {
        [path] => (None, path, ""),
        [source, path] => (Some(source), path, ""),
        [source, path, words] => (Some(source), path, words),
        _ => {
            let why = format!("{what}: `{text}`: expected SOURCE:TARGET[:OPTIONS]");
            return Err(ComposeError::invalid(place, why));
        }
    };
    let (mut read_only, mut copy_up, mut options) = (false, true, Vec::new());
    for word in words.split(',').filter(|word| !word.is_empty()) {
        match word {
            "ro" => read_only = true,
            "nocopy" => copy_up = false,
            // Labels of SELinux, which nothing of isolab's has; and what Docker Desktop once did.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" => {}
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" | "rbind" => {
                options.push(word.to_owned());
            }
            other => {
                let why = format!("{what}: `{other}` is no option of a volume");
                return Err(ComposeError::invalid(place, why));
            }
        }
    }
    let kind = match source {
        None => MountKind::Anonymous { copy_up },
        Some(path) if path.starts_with(['/', '.', '~']) => {
            MountKind::Host { path: place.path(path), create: true }
        }
        Some(name) => named(name, copy_up, place, known)?,
    };
    let target = target(path, place, what)?;
    Ok(Mount { target, kind, read_only, options, place: place.clone() })
}

fn long(item: Node, what: &str, known: &Known) -> Result<Mount, ComposeError> {
    let mut fields = Fields::of(item, what)?;
    let place = fields.place.clone();
    let kind = fields.text("type")?.unwrap_or_else(|| "volume".to_owned());
    let source = fields.text("source")?.filter(|source| !source.is_empty());
    let path = fields.text("target")?.unwrap_or_default();
    let read_only = fields.flag("read_only")?.unwrap_or(false);
    fields.take("consistency");
    let mut options = Vec::new();
    let mut sub = |name: &str| {
        let node = fields.take(name);
        node.map(|node| Fields::of(node, format!("{what}.{name}"))).transpose()
    };
    let (bind, volume, tmpfs) = (sub("bind")?, sub("volume")?, sub("tmpfs")?);
    fields.finish(&[("image", "an image is no volume")])?;
    let kind = match (kind.as_str(), source) {
        ("bind", Some(source)) => {
            let mut create = true;
            if let Some(mut bind) = bind {
                create = bind.flag("create_host_path")?.unwrap_or(true);
                options.extend(bind.text("propagation")?);
                bind.take("selinux");
                bind.finish(&[("recursive", "a bind mount has what is mounted below it")])?;
            }
            MountKind::Host { path: place.path(&source), create }
        }
        ("bind", None) => {
            return Err(ComposeError::invalid(&place, format!("{what}: the source is missing")));
        }
        ("volume", source) => {
            let mut copy_up = true;
            if let Some(mut volume) = volume {
                copy_up = !volume.flag("nocopy")?.unwrap_or(false);
                volume.finish(&[
                    ("subpath", "a volume is mounted as a whole"),
                    ("labels", "an anonymous volume has none"),
                ])?;
            }
            match source {
                Some(name) => named(&name, copy_up, &place, known)?,
                None => MountKind::Anonymous { copy_up },
            }
        }
        ("tmpfs", None) => {
            if let Some(mut tmpfs) = tmpfs {
                for name in ["size", "mode"] {
                    let option = |value: &str| {
                        let mut memory = MemoryOptions::default();
                        memory.take(&format!("{name}={value}")).map(|()| memory.words)
                    };
                    options.extend(tmpfs.read(name, option)?.into_iter().flatten());
                }
                tmpfs.finish(&[])?;
            }
            MountKind::Memory
        }
        ("tmpfs", Some(_)) => {
            return Err(ComposeError::invalid(&place, format!("{what}: a tmpfs has no source")));
        }
        (other, _) => {
            let why = "volume, bind and tmpfs are";
            return Err(ComposeError::unsupported(&place, format!("{what}: type {other}"), why));
        }
    };
    let target = target(&path, &place, what)?;
    Ok(Mount { target, kind, read_only, options, place })
}

/// `PATH[:OPTIONS]`
fn memory(text: &str, place: &Place, what: &str) -> Result<Mount, ComposeError> {
    let (path, words) = text.split_once(':').unwrap_or((text, ""));
    let mut options = MemoryOptions::default();
    let taken = options.take_all(words);
    taken.map_err(|why| ComposeError::invalid(place, format!("{what}: {why}")))?;
    let target = target(path, place, what)?;
    let MemoryOptions { read_only, words: options } = options;
    Ok(Mount { target, kind: MountKind::Memory, read_only, options, place: place.clone() })
}

/// Files of the host that a service sees: each at its path, or at the one that `usual` gives for its name.
fn files(
    fields: &mut Fields,
    kind: &str,
    known: &BTreeMap<String, HostFile>,
    usual: impl Fn(&str) -> String,
) -> Result<Vec<Mount>, ComposeError> {
    let what = fields.name(kind);
    let Some(list) = fields.take(kind) else { return Ok(Vec::new()) };
    let mut mounts = Vec::new();
    for item in list.into_items(&what)? {
        let place = item.place.clone();
        let (name, path) = match &item.value {
            Value::Scalar(name) => (name.text.clone(), None),
            _ => {
                let mut fields = Fields::of(item, what.clone())?;
                let source = fields.text("source")?.unwrap_or_default();
                let path = fields.text("target")?;
                fields.finish(&OWNERS)?;
                (source, path)
            }
        };
        let file = known.get(&name).ok_or_else(|| missing(&place, kind, &name))?;
        let path = match path {
            Some(path) if path.starts_with('/') => path,
            Some(name) => usual(&name),
            None => usual(&name),
        };
        let kind = MountKind::Host { path: file.path.clone(), create: false };
        let target = target(&path, &place, &what)?;
        mounts.push(Mount { target, kind, read_only: true, options: Vec::new(), place });
    }
    Ok(mounts)
}
