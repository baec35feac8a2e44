//! `build`: how a service's image is made.
//! See <https://github.com/compose-spec/compose-spec/blob/main/build.md>.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::fields::Fields;
use super::known::{HostFile, missing};
use crate::error::ComposeError;
use crate::file::merge::as_mapping;
use crate::file::node::{Node, Value};

/// What `isolab image build` is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// The folder to copy from.
    pub context: PathBuf,
    /// The Dockerfile, if not the folder's own.
    pub dockerfile: Option<PathBuf>,
    /// Values of its ARGs; without one, our environment's.
    pub args: BTreeMap<String, Option<String>>,
    /// The stage.
    pub target: Option<String>,
    /// Whether nothing is taken from the cache.
    pub no_cache: bool,
    /// Whether RUN has the host's network.
    pub host_network: bool,
    /// Further names of the image.
    pub tags: Vec<String>,
    /// What RUN finds as secrets: ids and files.
    pub secrets: Vec<(String, PathBuf)>,
    /// The one platform that is built.
    pub platform: Option<String>,
}

impl Build {
    pub(super) fn read(
        node: Node,
        what: &str,
        secrets: &BTreeMap<String, HostFile>,
    ) -> Result<Self, ComposeError> {
        let place = node.place.clone();
        let mut fields = Fields::of(as_mapping(node, "build")?, format!("{what}: build"))?;
        let context = fields.text("context")?.unwrap_or_else(|| ".".to_owned());
        if context.contains("://") || context.starts_with("git@") {
            let why = "a context is a folder; fetch the repository first";
            return Err(ComposeError::unsupported(&place, format!("{what}: build.context"), why));
        }
        let context = place.path(&context);
        let dockerfile = fields.text("dockerfile")?.map(|file| context.join(file));
        let mut found = Vec::new();
        if let Some(list) = fields.take("secrets") {
            for item in list.into_items("build.secrets")? {
                let place = item.place.clone();
                let (source, target) = match &item.value {
                    Value::Scalar(name) => (name.text.clone(), None),
                    _ => {
                        let mut fields = Fields::of(item, "build.secrets")?;
                        let source = fields.text("source")?.unwrap_or_default();
                        let target = fields.text("target")?;
                        fields.finish(&OWNERS)?;
                        (source, target)
                    }
                };
                let file =
                    secrets.get(&source).ok_or_else(|| missing(&place, "secrets", &source))?;
                found.push((target.unwrap_or(source), file.path.clone()));
            }
        }
        let mut platforms: Vec<String> = fields.list("platforms")?;
        let build = Self {
            context,
            dockerfile,
            args: fields.assignments("args")?,
            target: fields.text("target")?,
            no_cache: fields.flag("no_cache")?.unwrap_or(false),
            host_network: fields.text("network")?.is_some_and(|network| network == "host"),
            tags: fields.list("tags")?,
            secrets: found,
            platform: platforms.pop(),
        };
        if !platforms.is_empty() {
            let why = "linux/amd64 is built, and nothing else";
            return Err(ComposeError::unsupported(&place, format!("{what}: build.platforms"), why));
        }
        // What they are for, speed, the builder has by itself.
        for name in ["cache_from", "cache_to", "pull", "provenance", "sbom", "isolation"] {
            fields.take(name);
        }
        fields.finish(&[
            ("dockerfile_inline", "the builder reads files; write a Dockerfile"),
            ("additional_contexts", "the builder has one context"),
            ("entitlements", "the builder's steps have a container's rights"),
            ("extra_hosts", "RUN has no names but those of its network"),
            ("labels", "labels of an image are written in its Dockerfile"),
            ("privileged", "the builder's steps have a container's rights"),
            ("shm_size", "the builder's steps have what a container has"),
            ("ssh", "the builder forwards no agent"),
            ("ulimits", "the builder's steps have what a container has"),
        ])?;
        Ok(build)
    }
}

/// Of secrets and configurations: they are bind mounts, whose files have the owners that they have.
pub const OWNERS: [(&str, &str); 3] = [
    ("uid", "the file is the host's, with its own owner"),
    ("gid", "the file is the host's, with its own group"),
    ("mode", "the file is the host's, with its own mode"),
];
