//! Building images from Dockerfiles.
//!
//! `mod` is the story: parse, build the wanted stage and those it takes from, commit.
//! `stage` executes instructions; what each needs is beside it: `words` (quotes and variables),
//! `context` (files to copy from), `merged` (the image's file system so far), `copy`, `layer`
//! (from files to a blob) and `cache`.

pub(crate) mod cache;
mod config;
mod context;
mod copy;
mod layer;
pub(crate) mod merged;
mod owner;
mod stage;
#[cfg(test)]
mod tests;
mod words;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageManifestBuilder, MediaType};
use parse_dockerfile::{Dockerfile, Instruction};

use crate::archive::descriptor;
use crate::error::{ImageError, io_error};
use crate::image::{Image, bad_document};
use crate::registry::RegistryOptions;
use crate::store::Store;
use crate::store::names::{full_name, with_name};
use stage::{Stage, StageBuilder};

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The image's name.
    pub name: Option<String>,
    /// The folder that COPY takes from.
    pub context: PathBuf,
    /// The Dockerfile; by default `Dockerfile` in the context.
    pub dockerfile: Option<PathBuf>,
    /// Values for ARG.
    pub args: HashMap<String, String>,
    /// The stage to build, by default the last.
    pub target: Option<String>,
    /// Do every step, even where the cache has its outcome.
    pub no_cache: bool,
    /// No file is younger, and the image is as old, in seconds since 1970: what makes builds of
    /// the same inputs the same image.
    pub epoch: u64,
    /// Whether steps share the host's network; otherwise they have none but loopback.
    pub host_network: bool,
    /// Registries of base images may be reached by plain HTTP.
    pub insecure: bool,
    /// Where the CAs of those registries are, if not where [`RegistryOptions`] says.
    pub cert_dir: Option<PathBuf>,
}

/// One command that a build runs, over the layers so far.
#[derive(Clone, Debug)]
pub struct BuildStep {
    /// The layers so far, topmost first; at least one.
    pub lower: Vec<PathBuf>,
    /// Receives what the command writes, in overlayfs's form.
    pub upper: PathBuf,
    /// An empty folder for overlayfs.
    pub work: PathBuf,
    /// The command.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, absolute.
    pub cwd: String,
    /// `USER[:GROUP]`; empty is root.
    pub user: String,
    /// Whether it shares the host's network.
    pub host_network: bool,
}

/// Runs the commands of a build. This crate knows no container runtime; who calls it brings one.
pub trait BuildRunner {
    /// Runs the command to its end and tells its exit code; 128 and the number for a signal.
    ///
    /// # Errors
    /// Why the command could not be run.
    fn run(&self, step: &BuildStep) -> Result<i32, String>;
}

impl Store {
    /// Builds an image. `log` is told, line by line, what is done.
    ///
    /// # Errors
    /// The Dockerfile does not parse, an instruction fails, a base image cannot be had.
    pub fn build(
        &self,
        request: &BuildRequest,
        runner: &dyn BuildRunner,
        log: &mut dyn FnMut(&str),
    ) -> Result<Image, ImageError> {
        let name = request.name.as_deref().map(full_name).transpose()?;
        let path = match &request.dockerfile {
            Some(path) => path.clone(),
            None => request.context.join("Dockerfile"),
        };
        let text = fs::read_to_string(&path).map_err(io_error("read", &path))?;
        let dockerfile = parse_dockerfile::parse(&text)
            .map_err(|e| ImageError::Dockerfile { path: path.clone(), why: e.to_string() })?;
        let context = &request.context;
        if !context.is_dir() {
            let error = std::io::Error::from(std::io::ErrorKind::NotADirectory);
            return Err(io_error("build from", context)(error));
        }
        let _writing = self.writing()?;
        let work = self.work_folder("build")?;
        let mut build = Build {
            store: self,
            request,
            runner,
            log,
            text: &text,
            dockerfile: &dockerfile,
            path: &path,
            work: work.path(),
            stages: HashMap::new(),
            bases: HashMap::new(),
            steps: 0,
        };
        let wanted = build.wanted_stage()?;
        let stage = build.stage(wanted)?;
        let entry = commit(self, &stage, name)?;
        self.add_to_index(std::slice::from_ref(&entry))?;
        drop(build);
        self.resolve(entry.digest().as_ref())
    }
}

/// A build under way.
struct Build<'a, 'd> {
    store: &'a Store,
    request: &'a BuildRequest,
    runner: &'a dyn BuildRunner,
    log: &'a mut dyn FnMut(&str),
    text: &'a str,
    /// Its type is invariant in the lifetime of its text, which so needs a name of its own.
    dockerfile: &'a Dockerfile<'d>,
    path: &'a Path,
    work: &'a Path,
    /// Those that are built.
    stages: HashMap<usize, Stage>,
    /// Images by the names they were asked for.
    bases: HashMap<String, Image>,
    /// Counts the folders of steps.
    steps: usize,
}

impl Build<'_, '_> {
    fn wanted_stage(&self) -> Result<usize, ImageError> {
        let last = self.dockerfile.stages().len().saturating_sub(1);
        let Some(target) = &self.request.target else { return Ok(last) };
        self.stage_named(target, last + 1).ok_or_else(|| ImageError::Dockerfile {
            path: self.path.to_owned(),
            why: format!("there is no stage `{target}`"),
        })
    }

    /// The stage of that name or number, of those before `end`.
    fn stage_named(&self, name: &str, end: usize) -> Option<usize> {
        let is_it = |stage: &parse_dockerfile::Stage<'_, '_>| {
            let own = stage.from.as_.as_ref().map(|(_, name)| name.value.as_ref());
            own.is_some_and(|own| own.eq_ignore_ascii_case(name))
        };
        let by_name = self.dockerfile.stages().take(end).position(|stage| is_it(&stage));
        by_name.or_else(|| name.parse().ok().filter(|number| *number < end))
    }

    /// Builds a stage unless that is done. Stages that nobody needs are never built.
    fn stage(&mut self, number: usize) -> Result<Stage, ImageError> {
        if let Some(stage) = self.stages.get(&number) {
            return Ok(stage.clone());
        }
        let stage = StageBuilder::build(self, number)?;
        self.stages.insert(number, stage.clone());
        Ok(stage)
    }

    /// An image of the store, or else of its registry.
    fn base(&mut self, name: &str) -> Result<Image, ImageError> {
        if let Some(image) = self.bases.get(name) {
            return Ok(image.clone());
        }
        let image = match self.store.resolve(name) {
            Err(ImageError::NotFound(_)) => {
                (self.log)(&format!("pulling {name}"));
                let BuildRequest { insecure, cert_dir, .. } = self.request;
                let (insecure, cert_dir) = (*insecure, cert_dir.as_deref());
                let options = RegistryOptions { insecure, cert_dir, ..RegistryOptions::default() };
                self.store.pull(name, options)?
            }
            other => other?,
        };
        self.bases.insert(name.to_owned(), image.clone());
        Ok(image)
    }

    /// An instruction that failed.
    fn failed(&self, instruction: &Instruction<'_>, why: impl ToString) -> ImageError {
        let start = stage::start_of(instruction).min(self.text.len());
        let line = 1 + self.text[..start].matches('\n').count();
        let text = self.text[start..].lines().next().unwrap_or_default().trim_end();
        ImageError::BuildStep {
            path: self.path.to_owned(),
            line,
            instruction: text.to_owned(),
            why: why.to_string(),
        }
    }
}

/// Writes a stage's configuration and manifest; gives the index entry.
fn commit(store: &Store, stage: &Stage, name: Option<String>) -> Result<Descriptor, ImageError> {
    let config = stage.config.to_bytes();
    let config_id = store.take_in_bytes(&config)?;
    let config = descriptor(MediaType::ImageConfig, &config_id, config.len() as u64)?;
    let manifest = ImageManifestBuilder::default()
        .schema_version(2u32)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(stage.layers.iter().map(|layer| layer.descriptor.clone()).collect::<Vec<_>>())
        .build()
        .map_err(|e| bad_document("manifest", &config_id, e))?;
    let manifest =
        serde_json::to_vec(&manifest).map_err(|e| bad_document("manifest", &config_id, e))?;
    let id = store.take_in_bytes(&manifest)?;
    let entry = descriptor(MediaType::ImageManifest, &id, manifest.len() as u64)?;
    Ok(with_name(&entry, name))
}
