//! What a build is asked for, and what it tells.

use std::collections::HashMap;
use std::path::PathBuf;

/// What is built, of what, and how it is called.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The image's names; without any it is known by its digest only.
    pub names: Vec<String>,
    /// The folder that COPY takes from.
    pub context: PathBuf,
    /// The Dockerfile; by default `Containerfile` or `Dockerfile` in the context.
    pub dockerfile: Option<PathBuf>,
    /// Values for ARGs, by name.
    pub args: HashMap<String, String>,
    /// What RUN may mount by `--mount=type=secret`, by id.
    pub secrets: HashMap<String, Secret>,
    /// The stage to build, by default the last.
    pub target: Option<String>,
    /// Do every step, even where the cache has its outcome.
    pub no_cache: bool,
    /// No file is younger, and the image is as old, in seconds since 1970: what makes builds of
    /// the same inputs the same image. Without it files keep their times.
    pub epoch: Option<u64>,
    /// Whether steps share the host's network; otherwise they have none but loopback.
    pub host_network: bool,
    /// Registries of base images may be reached by plain HTTP.
    pub insecure: bool,
    /// Where the CAs of those registries are, if not where
    /// [`RegistryOptions`](isolab_registry::RegistryOptions) says.
    pub cert_dir: Option<PathBuf>,
}

/// Where a secret is read from, when a step first needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// The content of this file.
    File(PathBuf),
    /// A variable of our environment.
    Variable(String),
}

/// What a build tells while it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildNews<'a> {
    /// What is being done.
    Step(&'a str),
    /// What the operator asked for and does not get.
    Warning(&'a str),
}
